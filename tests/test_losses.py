"""Losses against their formulas in double precision."""

import functools

import keras
import numpy as np
import pytest

from bert4x import errors
from bert4x.training import losses

RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 3, (4, 5, 6)).astype("float32")
BINARY = RNG.integers(0, 2, SCORES.shape)
BINARY[0, 0], BINARY[0, 1] = 0, 1  # none is right, all are
SOFT = np.where(BINARY == 1, 1.0, RNG.random(SCORES.shape) * (RNG.random(SCORES.shape) > 0.3))
LABELS = RNG.integers(0, 6, SCORES.shape[:2])
DTYPES = ["float16", "bfloat16", "float32"]


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def log_sum(x):
    """log(1 + sum e^x)"""
    x = np.append(np.asarray(x, "float64"), 0.0)
    return x.max() + np.log(np.exp(x - x.max()).sum())


def multilabel(y, s):
    return log_sum(s[y == 0]) + log_sum(-s[y == 1])


def soft_multilabel(y, s):
    return log_sum((s + np.log(1 - y, where=y < 1, out=np.full_like(s, -np.inf)))[y < 1]) + log_sum(
        (-s + np.log(y, where=y > 0, out=np.full_like(s, -np.inf)))[y > 0]
    )


def binary_focal(y, s, gamma=2.0, alpha=None):
    right = np.where(y == 1, s, -s)
    log_p = -np.logaddexp(0, -right)
    weight = 1 if alpha is None else np.where(y == 1, alpha, 1 - alpha)
    return (-log_p * np.exp(gamma * -np.logaddexp(0, right)) * weight).mean()


def log_softmax(s):
    s = s - s.max()
    return s - np.log(np.exp(s).sum())


def focal(y, s, gamma=2.0):
    others = np.delete(log_softmax(s), y)
    return -log_softmax(s)[y] * np.exp(others - others.max()).sum() ** gamma * np.exp(gamma * others.max())


def per_place(formula, labels, scores):
    scores = scores.astype("float64")
    return np.array([[formula(y, s) for y, s in zip(*row, strict=True)] for row in zip(labels, scores, strict=True)])


PLAIN = {
    "multilabel": (losses.multilabel_categorical_crossentropy, multilabel, BINARY),
    "soft": (losses.soft_multilabel_categorical_crossentropy, soft_multilabel, SOFT),
    "soft of 0 and 1": (losses.soft_multilabel_categorical_crossentropy, multilabel, BINARY),
    "binary focal": (losses.binary_focal_crossentropy, binary_focal, BINARY),
    "binary focal, weighed": (
        functools.partial(losses.binary_focal_crossentropy, gamma=0.5, alpha=0.25),
        functools.partial(binary_focal, gamma=0.5, alpha=0.25),
        BINARY,
    ),
    "focal": (losses.sparse_categorical_focal_crossentropy, focal, LABELS),
    "cross-entropy": (
        functools.partial(losses.sparse_categorical_focal_crossentropy, gamma=0.0),
        lambda y, s: -log_softmax(s)[y],
        LABELS,
    ),
}
plain = pytest.mark.parametrize("name", PLAIN)


@plain
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 0.0, 1e4])
def test_formula(name, dtype, scale):
    """With scores of up to 10,000, and in half precision."""
    loss, formula, labels = PLAIN[name]
    scores = keras.ops.cast(SCORES if scale == 1 else scale * np.sign(SCORES), dtype)
    found = loss(keras.ops.convert_to_tensor(labels), scores)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = numpy(keras.ops.cast(scores, "float32"))
    np.testing.assert_allclose(numpy(found), per_place(formula, labels, exact), rtol=1e-5, atol=1e-5)


@plain
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradient(name, scale):
    """By finite differences where they mean something, and finite everywhere."""
    loss, formula, labels = PLAIN[name]
    scores = SCORES if scale == 1 else np.float32(scale) * np.sign(SCORES)
    gradient = gradient_of(lambda s: keras.ops.sum(loss(keras.ops.convert_to_tensor(labels), s)), scores)
    assert np.isfinite(gradient).all()
    if scale == 1:
        for index in [(0, 0, 1), (0, 1, 2), (3, 4, 5), (2, 2, 0)]:
            more, less = scores.astype("float64"), scores.astype("float64")
            more[index] += 1e-4
            less[index] -= 1e-4
            slope = (per_place(formula, labels, more) - per_place(formula, labels, less)).sum() / 2e-4
            assert gradient[index] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def gradient_of(function, x):
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    if backend == "torch":
        x = keras.ops.convert_to_tensor(x).clone().requires_grad_(True)
        function(x).backward()
        return x.grad.numpy()
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x).numpy()


def test_soft_labels_have_their_optimum_at_half_the_logit():
    t = np.array([0.2, 0.5, 0.9])
    gradient = gradient_of(
        lambda s: keras.ops.sum(losses.soft_multilabel_categorical_crossentropy(t[:, None], s)),
        (np.log(t / (1 - t)) / 2)[:, None].astype("float32"),
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("mask_zero", [False, True])
def test_sparse_multilabel(dtype, scale, mask_zero):
    indices = np.array([[[0, 0, 0], [1, 0, 0], [5, 2, 0], [2, 2, 4], [1, 2, 3]]] * 4)
    scores = keras.ops.cast(SCORES if scale == 1 else scale * np.sign(SCORES), dtype)
    exact = numpy(keras.ops.cast(scores, "float32"))

    def formula(chosen, s):
        y = np.isin(np.arange(6), chosen).astype(int)
        return multilabel(y[1:], s[1:]) if mask_zero else multilabel(y, s)

    found = losses.sparse_multilabel_categorical_crossentropy(keras.ops.convert_to_tensor(indices), scores, mask_zero)
    np.testing.assert_allclose(numpy(found), per_place(formula, indices, exact), rtol=1e-5, atol=1e-5)
    gradient = gradient_of(
        lambda s: keras.ops.sum(losses.sparse_multilabel_categorical_crossentropy(indices, s, mask_zero)), exact
    )
    assert np.isfinite(gradient).all()
    assert (gradient[..., 0] == 0).all() == mask_zero


@pytest.mark.parametrize("length", [1, 4])
def test_global_pointer(length):
    """Dense and sparse agree, where masked pairs have the least score of a pointer."""
    scores = RNG.normal(0, 2, (2, 3, length, length)).astype("float32")
    scores = np.where(np.tri(length, k=-1, dtype=bool), -6e4, scores).astype("float32")
    pairs, dense = np.zeros((2, 3, 2, 2), "int32"), np.zeros(scores.shape, "int32")
    if length > 1:
        pairs[0, 1] = [[1, 2], [3, 3]]
        pairs[1, 2] = [[0, 3], [0, 0]]
        for b, h in np.ndindex(2, 3):
            for i, j in pairs[b, h]:
                dense[b, h, i, j] = (i, j) != (0, 0)
    flat, labels = (x.reshape(2, 3, -1) for x in (scores, dense))
    found = numpy(losses.global_pointer_crossentropy(dense, scores))
    np.testing.assert_allclose(found, per_place(multilabel, labels, flat).sum(1), rtol=1e-5)
    found = numpy(losses.sparse_global_pointer_crossentropy(pairs.astype("float32"), scores))
    np.testing.assert_allclose(
        found, per_place(multilabel, labels[..., 1:], flat[..., 1:]).sum(1), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(errors.InputError, match=r"expected pairs \(B, heads, K, 2\)"):
        losses.sparse_global_pointer_crossentropy(pairs[..., 0], scores)


def cross_entropy(labels, scores, smoothing=0.0):
    total = []
    for y, s in zip(labels.ravel(), scores.reshape(-1, scores.shape[-1]).astype("float64"), strict=True):
        if y >= 0:
            target = (1 - smoothing) * np.eye(len(s))[y] + smoothing / len(s)
            total.append(-(target * log_softmax(s)).sum())
    return np.mean(total) if total else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_masked_crossentropy(dtype, smoothing, scale):
    labels = np.where(RNG.random(LABELS.shape) < 0.4, -1, LABELS)
    labels[1] = -1
    scores = keras.ops.cast(SCORES if scale == 1 else scale * np.sign(SCORES), dtype)
    exact = numpy(keras.ops.cast(scores, "float32"))
    found = numpy(losses.masked_crossentropy(keras.ops.convert_to_tensor(labels), scores, smoothing))
    assert found[1] == 0
    assert found.mean() == pytest.approx(cross_entropy(labels, exact, smoothing), rel=1e-5)
    if scale == 1 and dtype == "float32":
        probabilities = keras.ops.softmax(scores)
        found = numpy(losses.masked_crossentropy(labels, probabilities, smoothing, from_logits=False))
        assert found.mean() == pytest.approx(cross_entropy(labels, exact, smoothing), rel=1e-4)
    nothing = numpy(losses.masked_crossentropy(np.full_like(labels, -1), scores, smoothing))
    np.testing.assert_array_equal(nothing, np.zeros(4))


def test_unilm_is_the_formula_of_bert4keras():
    """sum(CE * m) / sum(m) with y = ids[:, 1:], m = segments[:, 1:], p = predictions[:, :-1]."""
    segments = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    y, m, p = LABELS[:, 1:], segments[:, 1:], SCORES[:, :-1]
    expected = sum(-log_softmax(p[i].astype("float64"))[y[i]] for i in np.ndindex(*y.shape) if m[i]) / m.sum()
    found = numpy(losses.unilm_crossentropy(LABELS, segments, SCORES))
    assert found.mean() == pytest.approx(expected, rel=1e-5)
    labels = numpy(losses.unilm_labels(LABELS, segments))
    assert labels.shape == LABELS.shape
    assert labels[1].tolist() == [LABELS[1, 1], LABELS[1, 2], -1, -1, -1]
    np.testing.assert_array_equal(numpy(losses.masked_crossentropy(labels, SCORES)), found)


@pytest.mark.parametrize("loss", [losses.masked_crossentropy, losses.multilabel_categorical_crossentropy])
def test_compile_and_load(loss, tmp_path):
    """Trained by name or by function, any length, and saved with the model."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, keras.layers.Dense(6)(inputs))
    model.compile(keras.optimizers.Adam(0.1), loss=loss)
    labels = LABELS if loss is losses.masked_crossentropy else BINARY
    history = model.fit(SCORES, labels, epochs=3, verbose=0).history["loss"]
    model.fit(SCORES[:, :3], labels[:, :3], verbose=0)
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").loss is loss
