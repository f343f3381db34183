"""Layers and losses of the articles against NumPy, written from their formulas; gradients by finite differences."""

import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import bert4x
from bert4x import errors, plots
from bert4x import layers as L
from bert4x.layers.discrete import rotated
from bert4x.layers.equations import solver
from bert4x.layers.ordered_neurons import spans_of, tokens_of, tree_of, trees_f1, written
from bert4x.metrics import energy_distance, frechet_distance
from bert4x.metrics.tones import couplet_tones
from bert4x.plots.glyphs import chinese_characters
from bert4x.training import rivals, smooth
from bert4x.training.command_line import parse
from bert4x.training.compiled import gradients_of, value_and_gradients
from bert4x.training.fields import conditional_score, follow, poisson_field, poisson_noise
from bert4x.training.instances import changed

RNG = np.random.default_rng(0)
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


def tensor(x, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(x, dtype))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gradient(function, *arrays):
    def value(*given):
        return (function(*given),) * 2

    return [numpy(g) for g in gradients_of(value, [tensor(a) for a in arrays])[1]]


def differences(function, array, step=1e-3):
    """The gradient of a function of one array, by central differences in double precision."""
    found = np.zeros_like(array, "float64")
    for place in np.ndindex(array.shape):
        up, down = array.astype("float64"), array.astype("float64")
        up[place] += step
        down[place] -= step
        found[place] = (function(up) - function(down)) / (2 * step)
    return found


def saved(model, tmp_path, *inputs):
    """Outputs of a model after a way through a file."""
    model.save(tmp_path / "model.keras")
    return [numpy(x) for x in keras.tree.flatten(keras.saving.load_model(tmp_path / "model.keras")(*inputs))]


def test_ordered_neurons(tmp_path):
    units, levels, x = 6, 3, RNG.normal(0, 1, (2, 5, 4))
    inputs = keras.Input((None, 4))
    layer = L.OrderedNeurons(units, levels)
    model = keras.Model(inputs, layer(inputs))
    w, u, b = (RNG.normal(0, 0.7, v.shape) for v in layer.cell.weights)
    layer.cell.set_weights([w, u, b])
    h, c, outputs = np.zeros((2, units)), np.zeros((2, units)), []
    for t in range(5):
        z = x[:, t] @ w + h @ u + b
        forget, write = np.cumsum(softmax(z[:, :3]), -1), np.cumsum(softmax(z[:, 3:6])[:, ::-1], -1)[:, ::-1]
        released = 1 - forget.mean(-1)
        forget, write = np.repeat(forget, 2, -1), np.repeat(write, 2, -1)
        f, i, o, new = np.split(z[:, 6:], 4, -1)
        new, f, i, o = np.tanh(new), sigmoid(f), sigmoid(i), sigmoid(o)
        both = forget * write
        c = both * (f * c + i * new) + (forget - both) * c + (write - both) * new
        h = o * np.tanh(c)
        outputs.append((h, released))
    for found in ([numpy(y) for y in model(tensor(x))], saved(model, tmp_path, tensor(x))):
        np.testing.assert_allclose(found[0], np.stack([h for h, _ in outputs], 1), **TOLERANCE)
        np.testing.assert_allclose(found[1], np.stack([r for _, r in outputs], 1), **TOLERANCE)
    with pytest.raises(errors.ConfigError, match="multiple of the levels"):
        L.OrderedNeurons(7, 3)


def test_trees():
    assert tree_of("abcd", [9, 1, 5, 2]) == (("a", "b"), ("c", "d"))
    assert tree_of("a", [1]) == "a"
    tree, right = (("a", "b"), ("c", ("d", "e"))), ("a", ("b", ("c", ("d", "e"))))
    assert spans_of(tree) == ({(0, 5), (0, 2), (2, 5), (3, 5)}, 5)
    assert tokens_of(tree) == list("abcde") and written(tree) == "((a b) (c (d e)))"
    assert trees_f1([tree], [tree]) == 1 and trees_f1([tree], [right]) == 2 * 2 / 6


def test_gumbel_softmax():
    """Hard draws are those of the softmax; the gradient of hard ones is that of soft ones with the same noise."""
    logits = np.array([1.0, 0.0, -1.0, 2.0])
    draws = numpy(L.gumbel_softmax(tensor(np.tile(logits, (20000, 1))), 0.5, hard=True, seed=0))
    assert set(np.unique(draws.round(6))) <= {0.0, 1.0}
    np.testing.assert_allclose(draws.mean(0), softmax(logits), atol=0.015)
    weights = tensor([3.0, -1.0, 2.0, 0.5])
    soft, hard = (
        gradient(lambda x, hard=hard: ops.sum(L.gumbel_softmax(x, 0.7, hard, seed=3) * weights), logits)[0]
        for hard in (False, True)
    )
    np.testing.assert_allclose(hard, soft, **TOLERANCE)
    assert np.abs(soft).max() > 1e-3


@pytest.mark.parametrize(("through", "linear"), [("straight", False), ("rotated", False), ("straight", True)])
def test_vector_quantizer(tmp_path, through, linear):
    z, codes, matrix = RNG.normal(0, 1, (2, 3, 4)), RNG.normal(0, 1, (5, 4)), RNG.normal(0, 1, (4, 4))
    layer = L.VectorQuantizer(5, commitment=0.3, through=through, linear=linear)
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([codes, matrix] if linear else [codes])
    codes = codes @ matrix if linear else codes
    numbers = ((z[:, :, None] - codes) ** 2).sum(-1).argmin(-1)
    for found in ([numpy(y) for y in model(tensor(z))], saved(model, tmp_path, tensor(z))):
        np.testing.assert_allclose(found[0], codes[numbers], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[1], numbers)
    (loss,) = (layer(tensor(z)), layer.losses)[1][-1:]
    assert float(numpy(loss)) == pytest.approx(1.3 * ((z - codes[numbers]) ** 2).mean(), rel=1e-4)
    with pytest.raises(errors.ConfigError, match="no way"):
        L.VectorQuantizer(5, through="around")


def test_equation_as_a_cell(tmp_path):
    """dx/dt = -x: the factor of a step is a polynomial, of degree 1 or 4."""

    @keras.saving.register_keras_serializable("bert4x_tests")
    class Decay(L.EquationCell):
        def slope(self, x):
            return -x

    for better, factor in ((False, 1 - 0.3), (True, 1 - 0.3 + 0.3**2 / 2 - 0.3**3 / 6 + 0.3**4 / 24)):
        model, start = solver(Decay(2, 0.3, better)), np.array([[1.0, -2]])
        given = [tensor(start), tensor(np.zeros((1, 4, 1)))]
        for found in (numpy(model(given)), *saved(model, tmp_path, given)):
            np.testing.assert_allclose(found, [start * factor ** np.arange(1, 5)[:, None]], rtol=1e-5)


def test_rotation_trick():
    """Turned and stretched onto the code; the gradient is that of this rotation, written as a matrix."""
    z, e, weights = RNG.normal(0, 1, (3, 4)), RNG.normal(0, 1, (3, 4)), RNG.normal(0, 1, (3, 4))
    np.testing.assert_allclose(numpy(rotated(tensor(z), tensor(e))), e, rtol=1e-4, atol=1e-5)
    (found,) = gradient(lambda x: ops.sum(rotated(x, tensor(e)) * tensor(weights)), z)
    for row in range(3):
        a, b = z[row] / np.linalg.norm(z[row]), e[row] / np.linalg.norm(e[row])
        r = (a + b) / np.linalg.norm(a + b)
        turn = np.eye(4) - 2 * np.outer(r, r) + 2 * np.outer(b, a)
        expected = np.linalg.norm(e[row]) / np.linalg.norm(z[row]) * turn.T @ weights[row]
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_tones_of_couplets():
    pytest.importorskip("pypinyin", reason="pypinyin is not installed")
    assert couplet_tones(["白日依山尽黄河入海流", "白山依日尽黄河入海尽"]) == (0.5, 0.5)


def test_energy_distance():
    assert energy_distance(np.array([[0.0, 0]]), np.array([[3.0, 4]])) == 10
    a, b = np.array([[0.0], [2]]), np.array([[1.0], [1]])
    assert energy_distance(a, b) == 2 * 1 - 1 - 0 and energy_distance(a, a) == 0


def test_frechet_distance():
    """Against the eigenvalues of the product of both covariances, which need no root of a matrix."""
    a, b = RNG.normal(0, 1, (50, 4)) @ RNG.normal(0, 1, (4, 4)), RNG.normal(1, 2, (30, 4)) @ RNG.normal(0, 1, (4, 4))
    one, other = np.cov(a.T), np.cov(b.T)
    shared = np.sqrt(np.linalg.eigvals(one @ other).real).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + other) - 2 * shared
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance([[0.0], [2]], [[3.0], [7]]) == pytest.approx(4**2 + (2 * 2**0.5 - 2**0.5) ** 2)
    with pytest.raises(errors.InputError, match="two points or more each"):
        frechet_distance(a, b[:, :3])


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_spectral_norm(tmp_path, kind):
    """Value and gradient of one power iteration, through the division; after many of them the largest value is 1."""
    size = (4,) if kind == "dense" else (3, 3, 2)
    given = keras.layers.Dense(3) if kind == "dense" else keras.layers.Conv2D(3, 3)
    inputs, layer = keras.Input(size), L.SpectralNorm(given)
    model = keras.Model(inputs, layer(inputs))
    kernel, bias, start = RNG.normal(0, 1, given.kernel.shape), RNG.normal(0, 1, 3), RNG.normal(0, 1, (1, 3))
    given.set_weights([kernel, bias])
    layer.direction.assign(start)
    x, weights = RNG.normal(0, 1, (5, *size)), RNG.normal(0, 1, (5, 3))
    matrix, flat = kernel.reshape(-1, 3), x.reshape(5, -1)
    left = start @ matrix.T
    left /= np.linalg.norm(left)
    right = left @ matrix
    right /= np.linalg.norm(right)

    def out(matrix):
        return flat @ (matrix / (left @ matrix @ right.T)) + bias

    def loss():
        value = ops.sum(ops.reshape(model(tensor(x), training=True), (5, 3)) * tensor(weights))
        return value, value

    found = numpy(model(tensor(x))).reshape(5, 3)
    np.testing.assert_allclose(found, out(matrix), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(saved(model, tmp_path, tensor(x))[0].reshape(5, 3), found, **TOLERANCE)
    (value, _), (slope,) = value_and_gradients(loss, [given.kernel], model.variables)
    assert float(numpy(value)) == pytest.approx((out(matrix) * weights).sum(), rel=1e-4)
    expected = differences(lambda m: (out(m) * weights).sum(), matrix)
    np.testing.assert_allclose(numpy(slope).reshape(-1, 3), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(numpy(layer.direction), right, **TOLERANCE)
    np.testing.assert_allclose(numpy(given.kernel), kernel, **TOLERANCE)  # is not changed by itself
    for _ in range(60):
        loss()
    normal = matrix / np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(numpy(model(tensor(x))).reshape(5, 3), flat @ normal + bias, rtol=1e-3, atol=1e-3)
    with pytest.raises(errors.ConfigError, match="has the activation relu"):
        L.SpectralNorm(keras.layers.Dense(3, activation="relu"))


def test_self_modulation(tmp_path):
    x, z = RNG.normal(2, 3, (6, 2, 2, 3)), RNG.normal(0, 1, (6, 4))
    inputs, layer = [keras.Input((2, 2, 3)), keras.Input((4,))], L.SelfModulation(5, momentum=0.0)
    model = keras.Model(inputs, layer(*inputs))
    weights = [RNG.normal(0, 1, v.shape) for v in model.trainable_variables]
    for variable, weight in zip(model.trainable_variables, weights, strict=True):
        variable.assign(weight)
    (u, a, v, b), (s, c, t, d) = weights[:4], weights[4:]
    scale, shift = (np.maximum(z @ u + a, 0) @ v + b for u, a, v, b in ((u, a, v, b), (s, c, t, d)))
    normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
    expected = normal * (1 + scale[:, None, None]) + shift[:, None, None]
    given = [tensor(x), tensor(z)]
    for found in (numpy(model(given, training=True)), numpy(model(given)), *saved(model, tmp_path, given)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rivals():
    """Losses by their formulas; an update moves the maker and the judge, each by its own loss only."""
    real, made = RNG.normal(0, 2, 7), RNG.normal(0, 2, 7)
    expected = {
        "cross_entropy": (-np.log(sigmoid(real) * (1 - sigmoid(made))).mean(), -np.log(sigmoid(made)).mean()),
        "hinge": (np.maximum(1 - real, 0).mean() + np.maximum(1 + made, 0).mean(), -made.mean()),
    }
    for name, loss in rivals.LOSSES.items():
        np.testing.assert_allclose([numpy(x) for x in loss(tensor(real), tensor(made))], expected[name], rtol=1e-5)
    maker = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    judge = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    pair = rivals.Rivals(maker, judge, learning_rate=(0.5, 0.25))
    losses = pair.update(np.full((8, 1), 3.0, "float32"))
    weight, bias = (float(numpy(v).ravel()[0]) for v in judge.variables)
    assert (weight, bias) == pytest.approx((0.25, 0), abs=1e-4)  # 3 is true and 0 is not; Adam's first step is the rate
    assert float(numpy(maker.variables[1])[0]) == pytest.approx(0.5, abs=1e-4)  # towards what the judge takes for true
    assert losses == pytest.approx((2, 0), abs=1e-4)
    np.testing.assert_allclose(pair.make(np.ones((300, 2), "float32")), numpy(maker(tensor(np.ones((300, 2))))))
    with pytest.raises(errors.ConfigError, match="no loss 'hing'"):
        rivals.Rivals(maker, judge, "hing")


def test_images_that_are_moved():
    images = RNG.uniform(0.1, 1, (40, 5, 4, 1)).astype("float32")
    found, moves = changed(images, 1, 0.0, np.random.default_rng(0)), set()
    for image, moved in zip(images[..., 0], found[..., 0], strict=True):
        padded = np.pad(image, 1)
        moves |= {(i, j) for i in range(3) for j in range(3) if np.array_equal(padded[i : i + 5, j : j + 4], moved)}
    assert len(moves) == 9
    noise = changed(images, 0, 0.5, np.random.default_rng(0)) - images
    assert (noise.mean(), noise.std()) == pytest.approx((0, 0.5), abs=0.05)


def test_finite_scalar_quantizer(tmp_path):
    z, levels = RNG.normal(0, 2, (4, 3)), np.array([5, 3, 2])
    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.FiniteScalarQuantizer(levels)(inputs))
    places = np.round((levels - 1) * sigmoid(z))
    for found in ([numpy(y) for y in model(tensor(z))], saved(model, tmp_path, tensor(z))):
        np.testing.assert_allclose(found[0], 2 * places / (levels - 1) - 1, **TOLERANCE)
        np.testing.assert_array_equal(found[1], places @ [1, 5, 15])
    (slope,) = gradient(lambda x: ops.sum(L.FiniteScalarQuantizer(levels)(x)[0]), z)
    np.testing.assert_allclose(slope, 2 * sigmoid(z) * (1 - sigmoid(z)), **TOLERANCE)
    with pytest.raises(errors.ConfigError, match="as many"):
        L.FiniteScalarQuantizer([3, 3])(tensor(z))


def test_reparametrized_normal(tmp_path):
    """In training draws of the distribution; without it the mean. The divergence counts more with every update."""
    mean, logs = RNG.normal(0, 1, (3, 4)), RNG.normal(0, 0.5, (3, 4))

    def divergence(mean, logs):
        return ((mean**2 + np.exp(logs) - logs - 1) / 2).sum()

    found = numpy(L.normal_divergence(tensor(mean), tensor(logs)))
    np.testing.assert_allclose(found.sum(), divergence(mean, logs), rtol=1e-5)
    slopes = gradient(lambda m, v: ops.sum(L.normal_divergence(m, v)), mean, logs)
    np.testing.assert_allclose(slopes[0], differences(lambda m: divergence(m, logs), mean), atol=1e-5)
    np.testing.assert_allclose(slopes[1], differences(lambda v: divergence(mean, v), logs), atol=1e-5)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    layer = L.ReparametrizedNormal(0.5, annealing=4, seed=1)
    model = keras.Model(inputs, layer(*inputs))
    given = [np.tile(mean[0], (20000, 1)), np.tile(logs[0], (20000, 1))]
    for update in range(6):
        draws = numpy(model([tensor(x) for x in given], training=True))
        expected = 0.5 * min(update / 4, 1) * divergence(mean[0], logs[0])
        assert float(numpy(model.losses[-1])) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(draws.mean(0), mean[0], atol=0.04)
    np.testing.assert_allclose(draws.std(0), np.exp(logs[0] / 2), rtol=0.04)
    np.testing.assert_allclose(saved(model, tmp_path, [tensor(mean), tensor(logs)])[0], mean, **TOLERANCE)
    again = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert (again.weight, again.annealing, again.seed, float(numpy(again.updates))) == (0.5, 4, 1, 6)


def test_scores_and_fields():
    """The score of noise is a gradient, the field a sum over charges; Heun's steps are exact for a linear slope."""
    x, clean = RNG.normal(0, 1, (4, 3)), RNG.normal(0, 1, (4, 3))
    expected = differences(lambda x: -((x - clean) ** 2).sum() / (2 * 0.7**2), x)
    np.testing.assert_allclose(numpy(conditional_score(tensor(x), tensor(clean), 0.7)), expected, rtol=1e-4, atol=1e-5)
    places, data = np.abs(RNG.normal(0, 1, (5, 3))), RNG.normal(0, 1, (7, 2))
    apart = places[:, None] - np.pad(data, ((0, 0), (0, 1)))
    field = (apart / np.linalg.norm(apart, axis=-1, keepdims=True) ** 3).sum(1)
    found = numpy(poisson_field(tensor(places), tensor(data)))
    np.testing.assert_allclose(found, field / np.linalg.norm(field, axis=-1, keepdims=True), rtol=1e-4, atol=1e-5)
    shares = 1 / (np.linalg.norm(apart[..., :2], axis=-1) ** 2 + places[:, 2:] ** 2) ** 1.5  # a charge's noise
    clean = (shares / shares.sum(1, keepdims=True)) @ data
    np.testing.assert_allclose((places[:, :2] - clean) / places[:, 2:], field[:, :2] / field[:, 2:], rtol=1e-9)
    noise = poisson_noise(np.full(20000, 2.0), 3, np.random.default_rng(0))
    squares = (noise**2).sum(1)
    assert (squares / (squares + 4)).mean() == pytest.approx(3 / 4, abs=0.01)  # of the integral of r^2 / (r^2 + t^2)^2
    np.testing.assert_allclose((noise / np.sqrt(squares)[:, None]).mean(0), 0, atol=0.02)
    np.testing.assert_allclose(follow(lambda x, t: 0 * x + 2 * t, np.ones((2, 2)), [0.0, 1.0, 3.0]), 10.0)


@pytest.mark.parametrize("rate", [1, 2])
def test_dilated_gated_convolution(tmp_path, rate):
    x, mask = RNG.normal(0, 1, (2, 7, 4)), np.arange(7) < np.array([[7], [4]])
    inputs, real = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    layer = L.DilatedGatedConv(rate)
    model = keras.Model([inputs, real], layer(inputs, mask=real))
    kernel, bias = (RNG.normal(0, 0.5, v.shape) for v in layer.weights if "seed" not in v.path)
    layer.convolution.set_weights([kernel, bias])
    seen = x * mask[..., None]
    padded = np.pad(seen, ((0, 0), (rate, rate), (0, 0)))
    z = sum(padded[:, k * rate : k * rate + 7] @ kernel[k] for k in range(3)) + bias
    g = sigmoid(z[..., 4:])
    expected = (seen * (1 - g) + z[..., :4] * g) * mask[..., None]
    np.testing.assert_allclose(numpy(model([tensor(x), tensor(mask, "bool")])), expected, **TOLERANCE)
    np.testing.assert_allclose(saved(model, tmp_path, [tensor(x), tensor(mask, "bool")])[0], expected, **TOLERANCE)


def test_attention_pooling():
    x, mask = RNG.normal(0, 1, (2, 5, 4)), np.arange(5) < np.array([[5], [3]])
    layer = L.AttentionPooling()
    layer.build((None, None, 4))
    kernel, vector = (RNG.normal(0, 1, v.shape) for v in layer.weights)
    layer.set_weights([kernel, vector])
    scores = np.where(mask, np.tanh(x @ kernel) @ vector, -np.inf)
    expected = (softmax(scores)[..., None] * x).sum(1)
    np.testing.assert_allclose(numpy(layer(tensor(x), mask=tensor(mask, "bool"))), expected, **TOLERANCE)


def test_smooth_scores():
    """With sure answers they are the scores themselves; gradients by finite differences."""
    y, p = RNG.integers(0, 2, (9, 3)), RNG.uniform(0.1, 0.9, (9, 3))

    def f1(p):
        return 1 - np.mean(2 * (y * p).sum(0) / (y.sum(0) + p.sum(0)))

    assert float(numpy(smooth.smooth_f1(tensor(y), tensor(p)))) == pytest.approx(f1(p), rel=1e-5)
    np.testing.assert_allclose(gradient(lambda p: smooth.smooth_f1(tensor(y), p), p)[0], differences(f1, p), atol=1e-5)
    sure = (p > 0.5).astype(float)
    right, found, true = (y * sure).sum(0), sure.sum(0), y.sum(0)
    harmonic = 2 / (found / right + true / right)
    assert float(numpy(smooth.smooth_f1(tensor(y), tensor(sure)))) == pytest.approx(1 - harmonic.mean(), rel=1e-5)
    logits, labels = RNG.normal(0, 1, (6, 4)), RNG.integers(0, 4, 6)
    expected = 1 - softmax(logits)[np.arange(6), labels].mean()
    found = smooth.smooth_accuracy(tensor(labels, "int32"), tensor(logits), from_logits=True)
    assert float(numpy(found)) == pytest.approx(expected, rel=1e-5)


def test_noise_contrast():
    """At its least, noise contrast has log-probabilities for scores; a sampled softmax of all is the whole one."""
    p, q = softmax(RNG.normal(0, 1, 5)), np.full(5, 0.2)

    def expected_loss(scores):
        data = np.log1p(np.exp(-(scores - np.log(q) - np.log(3))))
        noise = np.log1p(np.exp(scores - np.log(q) - np.log(3)))
        return p @ data + 3 * q @ noise

    np.testing.assert_allclose(differences(expected_loss, np.log(p)), 0, atol=1e-6)
    scores, noise = RNG.normal(0, 1, 4), RNG.normal(0, 1, (4, 3))
    logs, noise_logs = np.log(RNG.uniform(0.1, 0.9, 4)), np.log(RNG.uniform(0.1, 0.9, (4, 3)))
    found = numpy(smooth.nce_loss(*map(tensor, (scores, noise, logs, noise_logs))))
    data, contrast = scores - logs - np.log(3), noise - noise_logs - np.log(3)
    np.testing.assert_allclose(found, np.log1p(np.exp(-data)) + np.log1p(np.exp(contrast)).sum(-1), **TOLERANCE)
    zeros = np.zeros(4), np.zeros((4, 3))
    whole = numpy(smooth.sampled_softmax_loss(tensor(scores), tensor(noise), *map(tensor, zeros)))
    every = np.concatenate([scores[:, None], noise], -1)
    np.testing.assert_allclose(whole, -np.log(softmax(every))[:, 0], **TOLERANCE)


def test_glyphs(tmp_path):
    """One baseline and one size of type, filling the square; what a font lacks is refused, not drawn as a box."""
    images = plots.glyphs("Aag", 20, "DejaVu Sans")
    ink = images > 0.3
    rows = [np.flatnonzero(x.any(1)) for x in ink]
    assert images.shape == (3, 20, 20) and images.min() == 0 and images.max() > 0.9
    assert rows[0][-1] == rows[1][-1] < rows[2][-1]  # A and a stand on a line, g reaches below it
    assert rows[0][0] < rows[1][0] and max(ink.any((0, 1)).sum(), ink.any((0, 2)).sum()) >= 18
    plots.page(images[None], tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 100
    assert len(chinese_characters()) == 3755
    with pytest.raises(errors.ConfigError, match="1 characters are not in the font: 字"):
        plots.glyphs("a字", font="DejaVu Sans")
    with pytest.raises(errors.ConfigError, match="no font 'Nothing Sans' is installed"):
        plots.glyphs("a", font="Nothing Sans")


def test_self_orthogonality():
    y = RNG.normal(0, 0.2, (6, 3))

    def penalty(y):
        t = np.tanh(10 * y)
        t = t / np.linalg.norm(t, axis=0)
        off = t.T @ t - np.eye(3)
        return 100 * off.sum() ** 2 + (off**2).sum()

    assert float(numpy(smooth.self_orthogonality(tensor(y)))) == pytest.approx(penalty(y), rel=1e-4)
    (found,) = gradient(smooth.self_orthogonality, y)
    expected = differences(penalty, y, 1e-5)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


RECIPES = Path(__file__).parents[1] / "recipes" / "from_scratch"


def smoke(name, tmp_path, monkeypatch, capsys):
    """What a recipe's `main` returns, and prints."""
    monkeypatch.setattr(sys, "argv", [name, "--smoke", "--output", str(tmp_path / "run")])
    recipe = runpy.run_path(str(RECIPES / f"{name}.py"))
    found = recipe["main"](parse(recipe["Arguments"], ""))
    return found, capsys.readouterr().out


def test_every_recipe_is_run_here():
    tried = {
        *("word_discovery", "gumbel_softmax", "initialisation", "ordered_neurons"),
        *("vq_glyphs", "noise_contrast", "ode_rnn", "normalisation", "poem_vae", "scores_and_fields"),
        *("long_texts", "gan_glyphs", "field_glyphs"),
        *("chinese_chess", "dgcnn_reading", "dgcnn_triples", "smooth_f1"),  # test_article_recipes.py
    }
    assert {path.stem for path in RECIPES.glob("*.py")} == tried


@pytest.mark.sweep("recipes of articles")
def test_words(tmp_path, monkeypatch, capsys):
    words, said = smoke("word_discovery", tmp_path, monkeypatch, capsys)
    lines = (tmp_path / "run/words.tsv").read_text("utf-8").splitlines()
    assert [line.split("\t") for line in lines] == [[word, str(count)] for word, count in words.items()]
    assert len(words) > 10 and "solid n-grams" in said


@pytest.mark.sweep("recipes of articles")
def test_gradients_through_choices(tmp_path, monkeypatch, capsys):
    table, _ = smoke("gumbel_softmax", tmp_path, monkeypatch, capsys)
    assert table["Gumbel soft, t = 1"][1] < table["Gumbel soft, t = 0.1"][1]  # spread grows as it gets colder
    assert table["REINFORCE, baseline"][1] < table["REINFORCE"][1]
    assert (tmp_path / "run/gradients.png").exists()


@pytest.mark.sweep("recipes of articles")
def test_initialisation(tmp_path, monkeypatch, capsys):
    losses, said = smoke("initialisation", tmp_path, monkeypatch, capsys)
    assert len(losses) == 5 and np.isfinite(list(losses.values())).all()
    row = next(line for line in said.splitlines() if line.startswith("| orthogonal | linear"))
    assert row == "| orthogonal | linear | 1 | 1 |"
    assert (tmp_path / "run/lengths.png").exists()


@pytest.mark.sweep("recipes of articles")
def test_trees_of_a_made_language(tmp_path, monkeypatch, capsys):
    scores, _ = smoke("ordered_neurons", tmp_path, monkeypatch, capsys)
    assert set(scores) == {"ON-LSTM", "right-branching", "random"} and all(0 <= s <= 1 for s in scores.values())
    assert "true: (" in (tmp_path / "run/trees.txt").read_text("utf-8")


@pytest.mark.sweep("recipes of articles")
def test_codes_of_characters(tmp_path, monkeypatch, capsys):
    table, _ = smoke("vq_glyphs", tmp_path, monkeypatch, capsys)
    assert set(table) == {"rotated", "fsq"}
    for error, used, perplexity in table.values():
        assert 0 < error < 0.5 and 1 <= perplexity <= used <= 27
    assert (tmp_path / "run/glyphs.png").exists()


@pytest.mark.sweep("recipes of articles")
def test_characters_by_rivals(tmp_path, monkeypatch, capsys):
    table, said = smoke("gan_glyphs", tmp_path, monkeypatch, capsys)
    assert set(table) == {"kept back", "pixel by pixel", "dcgan", "selfmod"} and "48 images to learn from" in said
    for name in ("dcgan", "selfmod"):
        assert len(table[name]) == 2 and min(table[name]) > table["kept back"][0] > 0
        assert (tmp_path / f"run/{name}.png").exists()


@pytest.mark.sweep("recipes of articles")
def test_characters_down_a_field(tmp_path, monkeypatch, capsys):
    table, said = smoke("field_glyphs", tmp_path, monkeypatch, capsys)
    assert set(table) == {"kept back", "pixel by pixel", "score", "poisson"} and "16 kept back" in said
    assert min(table["score"], table["poisson"]) > table["kept back"] > 0
    assert all((tmp_path / f"run/{name}.png").exists() for name in ("score", "poisson"))


@pytest.mark.sweep("recipes of articles")
def test_words_by_noise_contrast(tmp_path, monkeypatch, capsys):
    table, _ = smoke("noise_contrast", tmp_path, monkeypatch, capsys)
    assert set(table) == {"frequency", "softmax", "noise contrast", "sampled"}
    for likelihood, total, *_ in table.values():  # they begin at the frequencies, and have hardly moved
        assert likelihood == pytest.approx(table["frequency"][0], abs=0.1) and abs(total) < 0.1
    assert len((tmp_path / "run/neighbours.txt").read_text("utf-8").splitlines()) == 20


@pytest.mark.sweep("recipes of articles")
def test_an_equation_as_a_network(tmp_path, monkeypatch, capsys):
    """Half the step: about half the error by Euler, a sixteenth of it by Runge and Kutta."""
    pytest.importorskip("scipy")
    (errors, found), _ = smoke("ode_rnn", tmp_path, monkeypatch, capsys)
    (euler, better), (half, finer) = errors[0.5], errors[0.25]
    assert half < euler and 12 < better / finer < 20 and better < 1e-3
    np.testing.assert_allclose(found["scipy"], found["true"], atol=0.15)
    assert np.abs(found["network"]).min() > 0  # two steps have moved each constant
    assert (tmp_path / "run/equation.png").exists()


@pytest.mark.sweep("recipes of articles")
def test_normalisation(tmp_path, monkeypatch, capsys):
    table, _ = smoke("normalisation", tmp_path, monkeypatch, capsys)
    curvatures = {kind: curvature for kind, (curvature, _) in table.items()}
    assert 0 < curvatures["both"] < curvatures["neither"]
    assert all(len(losses) == 2 for _, losses in table.values()) and (tmp_path / "run/rates.png").exists()


@pytest.mark.sweep("recipes of articles")
def test_couplets(tmp_path, monkeypatch, capsys):
    (back, commonest, _), said = smoke("poem_vae", tmp_path, monkeypatch, capsys)
    assert 0 <= back <= 1 and 0 <= commonest < 0.5 and "9 couplets to learn from, 1 to score" in said
    lines = (tmp_path / "run/couplets.txt").read_text("utf-8").splitlines()
    assert len(lines) == 1 + 20 + 1 + 10 and all(len(line) == 12 for line in lines if not line.endswith(":"))


@pytest.mark.sweep("recipes of articles")
def test_longer_texts_than_in_training(tmp_path, monkeypatch, capsys):
    """The same hidden tokens at each length: what is not scaled does not depend on how it was loaded."""
    table, said = smoke("long_texts", tmp_path, monkeypatch, capsys)
    assert {len(shares) for shares in table.values()} == {3} and all(0 <= x <= 1 for row in table.values() for x in row)
    assert len({row[0] for (name, _), row in table.items() if name == "as usual"}) == 1
    assert "411 hidden tokens of 46 texts" in said and (tmp_path / "run/long_texts.png").exists()
    assert bert4x.load(tmp_path / "run/with_log_n/model").config.log_n == 16


@pytest.mark.sweep("recipes of articles")
def test_points_that_follow_a_field(tmp_path, monkeypatch, capsys):
    """The two losses of a network differ by what those of none differ by."""
    table, _ = smoke("scores_and_fields", tmp_path, monkeypatch, capsys)
    gaps = [table[name][1] - table[name][0] for name in ("nothing", "the true score", "the noise's score")]
    np.testing.assert_allclose(gaps, gaps[0], rtol=0.2)
    assert table["other points of the data"] < table["a normal distribution of the same spread"]
    assert (tmp_path / "run/points.png").exists()
