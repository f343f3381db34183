"""Layers that are called at once give what Keras' own call of them gives: values, masks, dropout, precision."""

import keras
import numpy as np
import pytest
from random_models import tiny_config

import bert4x
from bert4x.layers import calling
from bert4x.layers.base import Dropout

pytestmark = pytest.mark.skipif(calling.get_global_attribute is None, reason="Keras' modules are elsewhere")


def build(policy="float32", **options):
    keras.utils.set_random_seed(1)
    config = tiny_config("bert", vocab_size=30) | {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}
    return bert4x.build_transformer_model(config, dtype=policy, **options)


def both_ways(run, monkeypatch):
    """What `run` gives, by layers called at once and by Keras; and how many calls were at once."""
    count, called = [], calling.CalledAtOnce.called
    monkeypatch.setattr(calling.CalledAtOnce, "called", lambda *args: count.append(1) or called(*args))
    ours = run()
    monkeypatch.setattr(calling.CalledAtOnce, "is_plain", lambda self: False)
    before = len(count)
    theirs = run()
    assert len(count) == before
    return ours, theirs, before


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_a_model(policy, training, monkeypatch):
    ids = np.array([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]])

    def run():
        output = build(policy, with_mlm="linear")([ids, ids * 0], training=training)
        return keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")), calling.mask_of(output)

    (ours, mask), (theirs, their_mask), count = both_ways(run, monkeypatch)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(mask, their_mask)
    assert np.array(mask).tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert count > 20


def test_a_layer_by_itself():
    """Without a model around it a layer is not in training, unless it is told; masks go through it."""
    dropout, x = Dropout(0.5, seed=3), keras.ops.ones((20, 3))
    dropout.build((20, 3))
    assert np.array_equal(dropout(x), x)
    assert (keras.ops.convert_to_numpy(dropout(x, training=True)) == 0).any()
    add = bert4x.layers.base.Add()
    masked = keras.layers.Masking()(np.array([[[1.0], [0.0]]]))
    for _ in range(2):  # the first call builds it
        assert np.array(calling.mask_of(add([masked, masked * 2]))).tolist() == [[True, False]]


def test_what_keras_has_to_look_at():
    """Arrays, other dtypes and symbolic tensors take Keras' way."""
    dense = bert4x.layers.Dense(3)
    x = np.random.default_rng(0).normal(size=(2, 4))  # float64
    first = keras.ops.convert_to_numpy(dense(x))
    for same in (x.astype("float32"), keras.ops.convert_to_tensor(x)):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(dense(same)), first)
    assert isinstance(dense(keras.Input((4,))), keras.KerasTensor)


class Several(bert4x.layers.Layer):
    def call(self, *tensors, factor=1):
        return factor * sum(tensors)


def test_arguments_are_bound_as_python_binds_them():
    x, several, dense = keras.ops.ones((2, 3)), Several(), bert4x.layers.Dense(3)
    for _ in range(2):  # the first call builds them
        assert float(keras.ops.sum(several(x, x, factor=2))) == 24
        dense(x)
    for given, named in [((x,), {"inputs": x}), ((x, None, x), {}), ((x,), {"wrong": 1}), ((), {})]:
        with pytest.raises((TypeError, ValueError)):
            dense(*given, **named)


def test_dropout_has_the_masks_of_keras():
    ours, theirs = Dropout(0.3, seed=7), keras.layers.Dropout(0.3, seed=7)
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(5, 7, 11)), "float32")
    for _ in range(2):
        a, b = (keras.ops.convert_to_numpy(layer(x, training=True)) for layer in (ours, theirs))
        assert 0.2 < (a == 0).mean() < 0.4
        np.testing.assert_array_equal(a == 0, b == 0)
        np.testing.assert_allclose(a, b, rtol=1e-6)
