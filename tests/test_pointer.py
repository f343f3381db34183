"""Global pointers against loops over heads, starts and ends."""

import keras
import numpy as np
import pytest

from bert4x import errors, layers
from bert4x.layers import EfficientGlobalPointer, GlobalPointer
from bert4x.layers.pointer import HIDDEN

B, T, D, HEADS, SIZE = 4, 5, 6, 3, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
KINDS = [GlobalPointer, EfficientGlobalPointer]
kinds = pytest.mark.parametrize("kind", KINDS)


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def make(kind, **options):
    layer = kind(HEADS, SIZE, **options)
    layer.build((None, None, D))
    for seed, variable in enumerate(layer.trainable_variables):
        variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
    return layer


def rotated(vector, place):
    """By 2 x 2 rotation matrices."""
    turned = np.zeros_like(vector)
    for i in range(0, len(vector), 2):
        angle = place / 10000 ** (i / len(vector))
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned[i : i + 2] = matrix @ vector[i : i + 2]
    return turned


def expected(layer, x, mask):
    weights = {v.path.rsplit("/", 2)[-2] + "/" + v.name: numpy(v).astype("float64") for v in layer.variables}

    def dense(name, vector):
        return vector @ weights[f"{name}/kernel"] + weights.get(f"{name}/bias", 0)

    scores = np.full((len(x), HEADS, x.shape[1], x.shape[1]), HIDDEN)
    for b, h, i, j in np.ndindex(*scores.shape):
        if not (mask[b, i] and mask[b, j]) or (layer.tril_mask and i > j):
            continue
        start, end = x[b, i].astype("float64"), x[b, j].astype("float64")
        bias = 0.0
        if isinstance(layer, EfficientGlobalPointer):
            start, end = dense("p_dense", start), dense("p_dense", end)
            bias = (dense("q_dense", end)[2 * h] + dense("q_dense", start)[2 * h + 1]) / 2
            query, key = start[::2], end[1::2]
        else:
            start, end = (dense("dense", v)[2 * SIZE * h : 2 * SIZE * (h + 1)] for v in (start, end))
            query, key = start[:SIZE], end[SIZE:]
        if layer.RoPE:
            query, key = rotated(query, i), rotated(key, j)
        scores[b, h, i, j] = query @ key / SIZE**0.5 + bias
    return scores


@kinds
@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("tril", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
def test_scores_are_those_of_loops(kind, rope, tril, use_bias):
    layer = make(kind, RoPE=rope, tril_mask=tril, use_bias=use_bias)
    out = layer(X, mask=MASK)
    assert tuple(out.shape) == (B, HEADS, T, T)
    np.testing.assert_allclose(numpy(out), expected(layer, X, MASK), rtol=1e-4, atol=1e-4)
    everything = np.ones_like(MASK)
    np.testing.assert_allclose(numpy(layer(X)), expected(layer, X, everything), rtol=1e-4, atol=1e-4)


@kinds
def test_padding_on_the_left_changes_nothing(kind):
    layer = make(kind)
    alone = numpy(layer(X[:1, :3]))
    padded = np.concatenate([RNG.normal(size=(1, 2, D)), X[:1, :3]], axis=1).astype("float32")
    out = numpy(layer(padded, mask=np.array([[0, 0, 1, 1, 1]], bool)))
    np.testing.assert_allclose(out[:, :, 2:, 2:], alone, rtol=1e-4, atol=1e-4)


@kinds
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(kind, policy):
    layer = make(kind, dtype=policy)
    out = layer(X, mask=MASK)
    assert keras.backend.standardize_dtype(out.dtype) == "float32"
    tolerance = 0.02 if policy == "mixed_float16" else 0.2
    np.testing.assert_allclose(numpy(out), expected(layer, X, MASK), rtol=tolerance, atol=tolerance)
    assert np.isfinite(numpy(keras.ops.cast(out, "float16"))).all()
    large = numpy(layer(200 * np.sign(X), mask=MASK))  # products beyond what float16 holds
    assert np.isfinite(large).all()
    assert np.abs(large[large != HIDDEN]).max() > 65504


@kinds
def test_batch_and_length_of_one(kind):
    layer = make(kind)
    out = numpy(layer(X[:1, :1]))
    np.testing.assert_allclose(out, expected(layer, X[:1, :1], np.ones((1, 1), bool)), rtol=1e-4, atol=1e-4)


@kinds
def test_fit_learns_and_a_saved_model_is_the_same(kind, tmp_path):
    from bert4x.training.losses import global_pointer_crossentropy

    keras.utils.set_random_seed(0)
    ids = np.random.default_rng(0).integers(1, 9, (32, 7))
    ids[::2, 5:] = 0
    labels = np.zeros((32, 2, 7, 7), "int32")
    for b, i in np.argwhere((ids[:, :-1] == 1) & (ids[:, 1:] > 0)):
        labels[b, ids[b, i + 1] % 2, i, i + 1] = 1
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 16, mask_zero=True)(inputs)
    model = keras.Model(inputs, kind(2, 8, kernel_initializer="glorot_normal")(x))
    model.compile(keras.optimizers.Adam(0.02), loss=global_pointer_crossentropy)
    history = model.fit(ids, labels, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert history[-1] < history[0] / 2
    out = model.predict_on_batch(ids)
    assert (out[0, :, 5:] == HIDDEN).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(ids), out, rtol=1e-5, atol=1e-5)
    assert loaded.layers[-1].kernel_initializer.get_config() == model.layers[-1].kernel_initializer.get_config()
    assert isinstance(loaded.layers[-1].kernel_initializer, keras.initializers.GlorotNormal)
    assert loaded.loss is global_pointer_crossentropy


def test_parameters():
    sizes = {kind: kind(10, 64).compute_output_spec(keras.KerasTensor((2, 7, 32))).shape for kind in KINDS}
    assert sizes == dict.fromkeys(KINDS, (2, 10, 7, 7))
    assert make(GlobalPointer).count_params() == (D + 1) * HEADS * SIZE * 2
    assert make(EfficientGlobalPointer).count_params() == (D + 1) * SIZE * 2 + (SIZE * 2 + 1) * HEADS * 2


def test_odd_sizes_cannot_be_rotated():
    with pytest.raises(errors.ConfigError, match="head_size is 3; RoPE rotates pairs"):
        GlobalPointer(2, 3)
    assert GlobalPointer(2, 3, RoPE=False).head_size == 3


def test_both_are_of_the_layers():
    assert {"GlobalPointer", "EfficientGlobalPointer"} <= set(layers.__all__)
