"""Adam and AdaFactor against NumPy; learning rates by step and by layer; weight decay's exclusions, on real names."""

import math
import re

import keras
import numpy as np
import pytest
from keras import ops
from random_models import tiny_config

from bert4x import optimizers
from bert4x.models.build import build_transformer_model

RNG = np.random.default_rng(0)


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


def test_weight_decay_leaves_out_norms_and_biases_by_default():
    model = build_transformer_model(tiny_config(num_hidden_layers=1), None)
    optimizer = optimizers.extend_with_weight_decay(keras.optimizers.SGD)(1.0, weight_decay_rate=0.25)
    variables = model.trainable_variables
    values = {v.path: numpy(v) for v in variables}
    optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    for variable in variables:
        kept = variable.path.endswith(("bias", "gamma", "beta"))
        np.testing.assert_allclose(numpy(variable), (1 if kept else 0.75) * values[variable.path], rtol=1e-6)
    assert len(variables) >= 16


def test_adam_without_correction_and_its_epsilon():
    gradient, weights, m, v = np.array([1e-6, 1.0]), np.zeros(2), np.zeros(2), np.zeros(2)
    for correct in (True, False):
        variable = keras.Variable(weights.astype("float32"))
        optimizer = optimizers.Adam(0.1, bias_correction=correct)
        expected, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
        for t in range(1, 4):
            optimizer.apply([ops.convert_to_tensor(gradient.astype("float32"))], [variable])
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            scales = (1 - 0.9**t, 1 - 0.999**t) if correct else (1, 1)
            expected = expected - 0.1 * m / scales[0] / (np.sqrt(v / scales[1]) + 1e-6)
        np.testing.assert_allclose(numpy(variable), expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3,), (5, 4), (2, 6, 4), (4, 6)])
@pytest.mark.parametrize("settings", [{}, {"beta1": 0.9, "beta2": 0.99, "clipping_threshold": None}])
def test_adafactor(shape, settings):
    start, expected = RNG.normal(0, 1, shape), None
    variable = keras.Variable(start.astype("float32"), name="kernel")
    rate = None if settings else 0.05
    optimizer = optimizers.AdaFactor(rate, min_dim_size_to_factor=4, **settings)
    expected, rows, columns, full, m = start.copy(), 0.0, 0.0, 0.0, 0.0
    for t in range(1, 5):
        g = RNG.normal(0, 1, shape)
        optimizer.apply([ops.convert_to_tensor(g.astype("float32"))], [variable])
        beta = settings.get("beta2", 1 - t**-0.8)
        if len(shape) == 1:
            full = beta * full + (1 - beta) * g**2
        else:  # of these shapes, the last two dimensions are the largest: any mean over one is a row's or column's
            rows = beta * rows + (1 - beta) * (g**2).mean(-1, keepdims=True)
            columns = beta * columns + (1 - beta) * (g**2).mean(-2, keepdims=True)
            full = rows * columns / rows.mean(-2, keepdims=True)
        u = g / np.sqrt(full)
        if not settings:
            u /= max(1, np.sqrt((u**2).mean()))
        else:
            u = m = 0.9 * m + 0.1 * u
        lr = rate or min(1 / math.sqrt(t), 0.01)
        expected = expected - lr * u * max(np.sqrt((expected**2).mean()), 1e-3)
        np.testing.assert_allclose(numpy(variable), expected, rtol=1e-4, atol=1e-5)
    sizes = sum(math.prod(s.shape) for s in optimizer.second_moments[0])
    assert sizes < math.prod(shape) or len(shape) == 1
    again = optimizers.AdaFactor.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


POINTS = [{1000: 1, 2000: 0.1}, {0: 1}, {0: 2, 10: 1, 20: 3}, {5: 1}]


@pytest.mark.parametrize("schedule", POINTS)
@pytest.mark.parametrize("from_zero", [True, False])
def test_piecewise_linear(schedule, from_zero):
    points = sorted(({0: 0} if from_zero and 0 not in schedule else {} | schedule).items() | schedule.items())
    steps, values = zip(*points, strict=True)
    keras_schedule = optimizers.PiecewiseLinear(0.5, schedule, from_zero)
    for t in (0, 1, 4, 7, 10, 15, 500, 999, 1000, 1700, 2000, 10**6):
        expected = np.interp(t, steps, values)
        value = optimizers.piecewise_linear(t, schedule, from_zero)
        assert isinstance(value, float) and value == pytest.approx(expected)
        assert float(keras_schedule(ops.convert_to_tensor(t))) == pytest.approx(0.5 * expected, rel=1e-5)
        assert isinstance(keras_schedule(t), float)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(keras_schedule))
    assert again(7) == keras_schedule(7)


def test_warmup_decay():
    linear = [optimizers.warmup_decay(t, 10, 4, end=0.5) for t in range(13)]
    np.testing.assert_allclose(linear, np.interp(range(13), [0, 4, 10], [0, 1, 0.5]))
    assert optimizers.warmup_decay(0, 10) == 1 and optimizers.warmup_decay(3, 3, 3) == 1
    assert [optimizers.warmup_decay(t, 8, 2, "constant") for t in (1, 2, 50)] == [0.5, 1, 1]
    for t, expected in {1: 0.5, 2: 1, 6: 0.5 * (1 + math.cos(math.pi / 2)), 10: 0, 11: 0}.items():
        assert optimizers.warmup_decay(t, 10, 2, "cosine") == pytest.approx(expected, abs=1e-9)
        schedule = optimizers.WarmupDecay(3.0, 10, 2, "cosine")
        assert float(schedule(ops.convert_to_tensor(t))) == pytest.approx(3 * expected, abs=1e-6)
    again = optimizers.WarmupDecay.from_config(schedule.get_config())
    assert [again(t) for t in range(9)] == [schedule(t) for t in range(9)]


@pytest.mark.parametrize("family, blocks", [("bert", 3), ("albert_unshared", 3), ("gpt2", 3), ("albert", 1)])
def test_layerwise_schedule(family, blocks):
    heads = {"application": "lm"} if family == "gpt2" else {"with_mlm": True}
    model = build_transformer_model(tiny_config(family), None, model=family, **heads)
    schedule, seen = optimizers.layerwise_schedule(model, 0.5), {}
    for variable in model.trainable_variables:
        part = re.match(r"Transformer(-\d+)?|Embedding|Output|MLM", variable.path)[0]
        product = math.prod(v for k, v in schedule.items() if k in variable.path)
        seen.setdefault(part, set()).add(product)
    top = "Output" if family == "gpt2" else "MLM"
    expected = {"Embedding": {0.5 ** (blocks + 1)}, top: {1}}
    for i in range(blocks):
        expected["Transformer" if family == "albert" else f"Transformer-{i}"] = {0.5 ** (blocks - i)}
    assert seen == expected
