"""What TensorFlow trains through in our own way: values and gradients, and what is kept."""

import keras
import numpy as np
import pytest
from keras import ops

from bert4x.layers.base import Dense, gelu_erf, gelu_tanh
from bert4x.layers.gradients import LARGE, compiled, in_one_pass
from bert4x.training.compiled import value_and_gradients

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
only_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="other backends compile all of a step, or nothing")
X = np.linspace(-6, 6, 96).reshape(2, 3, 16)


def test_only_wide_layers_in_training():
    for units, training in ((LARGE - 1, True), (LARGE, False), (LARGE, None)):
        assert in_one_pass(gelu_erf, units, training) is gelu_erf
    assert (in_one_pass(gelu_erf, LARGE, True) is gelu_erf) == (not ON_TENSORFLOW)


@only_tensorflow
@pytest.mark.parametrize("function", [gelu_erf, gelu_tanh, keras.activations.relu])
@pytest.mark.parametrize("dtype, error", [("float32", 5e-5), ("float64", 1e-12), ("bfloat16", 0.02), ("float16", 2e-3)])
def test_values_and_both_derivatives_are_those_of_the_plain_function(function, dtype, error):
    import tensorflow as tf

    def derivatives(function, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = function(x)
            first = inner.gradient(y, x, 2 * tf.ones_like(x))
        return y, first, outer.gradient(first, x)

    found = derivatives(compiled(function), tf.cast(X, dtype))
    expected = derivatives(function, tf.cast(tf.cast(X, dtype), "float64"))
    for ours, plain in zip(found, expected, strict=True):
        assert (ours is None) == (plain is None)
        if ours is not None:
            assert ours.dtype == dtype and ours.shape == X.shape
            np.testing.assert_allclose(tf.cast(ours, "float64"), plain, rtol=error, atol=error)


@only_tensorflow
def test_a_dense_layer_trains_as_before_and_keeps_its_argument_only():
    """In a graph for any number of rows, as batches of different lengths run."""
    import tensorflow as tf

    layer = Dense(LARGE, activation=gelu_erf)
    layer.build((None, 4))

    def gradients(training, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(x, training=training)))
        return tape.gradient(loss, [v.value for v in layer.trainable_variables])

    run = tf.function(gradients, autograph=False, reduce_retracing=True)
    for rows in (3, 5, 7):
        x = ops.convert_to_tensor(np.random.default_rng(rows).normal(size=(rows, 4)).astype("float32"))
        for ours, plain in zip(run(True, x), run(False, x), strict=True):
            np.testing.assert_allclose(ours, plain, rtol=2e-5, atol=1e-7)
    graph = run.get_concrete_function(True, tf.TensorSpec((None, 4))).graph
    assert not [op.name for op in graph.get_operations() if op.type in ("Erf", "Exp")]
    plain = run.get_concrete_function(False, tf.TensorSpec((None, 4))).graph
    assert [op.name for op in plain.get_operations() if op.type == "Erf"]


@pytest.mark.parametrize("dtype, error", [("float32", 1e-6), ("bfloat16", 0.01), ("float16", 4e-3)])
def test_a_bias_has_an_exact_gradient(dtype, error):
    """That of many rows of 16 bits is nearly as exact as the dtype, against a sum in float64."""
    layer = Dense(24, dtype=keras.DTypePolicy("float32" if dtype == "float32" else f"mixed_{dtype}"))
    layer.build((None, 8))
    rng = np.random.default_rng(0)
    x, slope = rng.normal(size=(4, 1024, 8)), ops.cast(rng.normal(size=(4, 1024, 24)) + 0.05, dtype)
    x = ops.cast(x, dtype)

    def function():
        return ops.sum(ops.cast(layer(x, training=True) * slope, "float32")), ()

    _, (gradient,) = value_and_gradients(function, [layer.bias], layer.variables)
    expected = ops.convert_to_numpy(ops.cast(slope, "float32")).astype("float64").sum((0, 1))
    found = ops.convert_to_numpy(gradient)
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)
