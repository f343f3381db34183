"""Adam and AdaFactor against NumPy; learning rates by step and by layer; weight decay's exclusions, on real names."""

import math
import re

import keras
import numpy as np
import pytest
from keras import ops
from random_models import tiny_config

from bert4x import errors, optimizers
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


def orthogonalized(g, steps=5):
    """Newton and Schulz by Muon's three coefficients (Jordan et al. 2024), in double precision."""
    wide = g if len(g) <= len(g[0]) else g.T
    x = wide / (np.linalg.norm(wide) + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x if wide is g else x.T


@pytest.mark.parametrize(("heads", "size"), [(1, None), (3, None), (2, 4)])
def test_muon(heads, size):
    """Kernels of attention head by head, other matrices whole, all else by AdamW."""
    kernels = [keras.Variable(RNG.normal(0, 1, (6, 12)).astype("float32")) for _ in range(2)]
    for variable, path in zip(kernels, ["Transformer-0-MultiHeadSelfAttention/query/kernel", "x/kernel"], strict=True):
        variable._path = path
    bias = keras.Variable(np.zeros(5, "float32"))
    optimizer = optimizers.Muon(0.1, num_heads=heads, head_size=size, weight_decay=0.2, rates={"x/kernel": 2})
    expected, momenta = [numpy(v).astype("float64") for v in kernels], [0.0, 0.0]
    for _ in range(3):
        gradients = [RNG.normal(0, 1, (6, 12)) for _ in range(2)]
        tensors = [ops.convert_to_tensor(g.astype("float32")) for g in (*gradients, np.ones(5))]
        optimizer.apply(tensors, [*kernels, bias])
        for i, g in enumerate(gradients):
            momenta[i] = 0.95 * momenta[i] + g
            u, count = g + 0.95 * momenta[i], 1 if i else (12 // size if size else heads)
            parts = [orthogonalized(part) * 0.2 * max(part.shape) ** 0.5 for part in np.split(u, count, axis=1)]
            expected[i] = expected[i] * (1 - 0.1 * 0.2) - 0.1 * (2 if i else 1) * np.concatenate(parts, axis=1)
    for variable, values in zip(kernels, expected, strict=True):
        np.testing.assert_allclose(numpy(variable), values, rtol=1e-3, atol=1e-4)
    assert np.allclose(numpy(bias), -0.3, atol=0.02)  # three steps of Adam
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()


def test_muon_heads_that_do_not_divide():
    variable = keras.Variable(np.ones((4, 10), "float32"))
    variable._path = "Transformer-0-MultiHeadSelfAttention/key/kernel"
    with pytest.raises(errors.ConfigError, match="10 columns, which 3 heads do not divide"):
        optimizers.Muon(0.1, num_heads=3).apply([ops.ones((4, 10))], [variable])


@pytest.mark.parametrize("steps", [1, 2])
def test_tiger(steps):
    """Against the article's formulas; accumulated gradients are those of larger batches; NaN shrinks a variable."""
    kernel, gamma = (keras.Variable(RNG.normal(0, 1, shape).astype("float32")) for shape in ((4, 3), (3,)))
    kernel._path, gamma._path = "x/kernel", "x/gamma"
    optimizer = optimizers.Tiger(0.01, weight_decay=0.1, grad_accum_steps=steps)
    expected = [numpy(v).astype("float64") for v in (kernel, gamma)]
    momenta = [0.0, 0.0]
    for _ in range(3):
        batches = [[RNG.normal(0, 1, (4, 3)), RNG.normal(0, 1, 3)] for _ in range(steps)]
        for batch in batches:
            optimizer.apply([ops.convert_to_tensor(g.astype("float32")) for g in batch], [kernel, gamma])
        for i in range(2):
            momenta[i] = 0.965 * momenta[i] + 0.035 * np.mean([batch[i] for batch in batches], axis=0)
        scale = np.sqrt((expected[0] ** 2).mean())
        expected[0] = expected[0] - 0.01 * scale * (np.sign(momenta[0]) + 0.1 * expected[0])
        expected[1] = expected[1] - 0.005 * np.sign(momenta[1])
    for variable, values in zip((kernel, gamma), expected, strict=True):
        np.testing.assert_allclose(numpy(variable), values, rtol=1e-4)
    optimizer.apply([ops.full((4, 3), np.nan), ops.full((3,), np.inf)], [kernel, gamma])
    np.testing.assert_allclose(numpy(kernel), 0.99 * expected[0], rtol=1e-4)
    np.testing.assert_allclose(numpy(gamma), 0.99 * (expected[1] - 1) + 1, rtol=1e-4)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config() and len(optimizer.momentums) == 2


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
    stable = [optimizers.warmup_decay(t, 10, 2, "stable") for t in (1, 2, 8, 8.5, 10)]
    assert stable == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert float(optimizers.warmup_decay(ops.convert_to_tensor(8.5), 10, 2, "stable")) == pytest.approx(0.5)
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
