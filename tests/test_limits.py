"""Numbers that name no label, place or row: the same error on every backend, and NaN where code is compiled."""

import functools

import keras
import numpy as np
import pytest
from random_models import tiny_config

import bert4x
from bert4x import layers as L
from bert4x.errors import InputError
from bert4x.training import losses
from bert4x.training.compiled import Compiled

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(2, 3, 4)).astype("float32")
PAIRS = RNG.normal(size=(2, 3, 4, 4)).astype("float32")


def labels(bad, low=0):
    found = np.array([[0, 3, 1], [2, 0, 3]])
    found[1, 1] = bad
    return found


def pairs(*bad):
    found = np.zeros((2, 3, 2, 2), int)
    found[1, 2, 1] = bad
    return found


def binary(bad):
    found = (SCORES > 0).astype("float32")
    found[0, 1, 2] = bad
    return found


def crf(kind=L.ConditionalRandomField, **options):
    layer = kind(**options)
    layer.build((None, None, 4))
    return layer.sparse_loss


CASES = {
    "masked": (losses.masked_crossentropy, SCORES, labels(2), [labels(4), labels(1 << 20)]),
    "smoothed": (functools.partial(losses.masked_crossentropy, smoothing=0.1), SCORES, labels(-1), [labels(4)]),
    "focal": (losses.sparse_categorical_focal_crossentropy, SCORES, labels(2), [labels(4), labels(-1)]),
    "sparse": (losses.sparse_multilabel_categorical_crossentropy, SCORES[:, 0], labels(2), [labels(4), labels(-1)]),
    "pairs": (
        losses.sparse_global_pointer_crossentropy, PAIRS, pairs(1, 3), [pairs(0, 4), pairs(4, 0), pairs(1, -1)],
    ),
    "multilabel": (losses.multilabel_categorical_crossentropy, SCORES, binary(1), [binary(2), binary(-1)]),
    "soft": (losses.soft_multilabel_categorical_crossentropy, SCORES, binary(0.5), [binary(1.5), binary(-0.5)]),
    "binary focal": (losses.binary_focal_crossentropy, SCORES, binary(0), [binary(2)]),
    "crf": (crf(), SCORES, labels(2), [labels(4), labels(-1)]),
    "memm": (crf(L.MaximumEntropyMarkovModel, hidden_dim=2), SCORES, labels(2), [labels(4), labels(-1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_losses(name):
    loss, scores, good, several = CASES[name]
    assert np.isfinite(numpy(loss(good, keras.ops.convert_to_tensor(scores)))).all()
    for bad in several:
        with pytest.raises(InputError, match="expected 0 to"):
            loss(bad, keras.ops.convert_to_tensor(scores))
        with pytest.raises(InputError):
            loss(keras.ops.convert_to_tensor(bad), keras.ops.convert_to_tensor(scores))


@pytest.mark.compiled
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch compiles nothing here, and raises as above")
@pytest.mark.parametrize("name", CASES)
def test_compiled_losses(name):
    """Compiled code cannot raise: its loss is NaN, and not one that looks like any other."""
    loss, scores, good, several = CASES[name]
    run = Compiled(lambda y, s: keras.ops.mean(loss(y, s)), [], assigns=False)
    expected = float(np.mean(numpy(loss(good, keras.ops.convert_to_tensor(scores)))))
    assert float(run(good, scores)) == pytest.approx(expected, rel=1e-5)
    for bad in several:
        assert np.isnan(float(run(bad, scores)))


def test_one_hot_labels_of_another_number():
    layer = L.ConditionalRandomField()
    layer.build((None, None, 4))
    with pytest.raises(InputError, match="expected 4"):
        layer.dense_loss(np.zeros((2, 3, 5)), SCORES)


def test_padding_may_have_any_label():
    """A place that does not count is not looked at."""
    scores = SCORES.copy()
    scores[1, 1] = L.crf.PADDED
    for loss in (crf(), crf(L.MaximumEntropyMarkovModel)):
        assert np.isfinite(numpy(loss(labels(-1), scores))).all()


@pytest.mark.parametrize("bad", [-1, 30])
def test_ids(bad):
    """Also of a model over ours, whose call does not look at its inputs."""
    model = bert4x.build_transformer_model(tiny_config("bert", vocab_size=30))
    over = keras.Model(model.inputs, keras.layers.Dense(2)(model.output))
    ids = np.array([[2, 7, bad]])
    for one in (model, over):
        with pytest.raises(InputError, match=f"id {bad}"):
            one([keras.ops.convert_to_tensor(ids), keras.ops.zeros_like(ids)])


@pytest.mark.parametrize(
    "layer", [L.PositionEmbedding(5), L.SinusoidalPosition(5), L.PositionEmbedding(2, hierarchical=True)]
)
def test_positions(layer):
    x = np.zeros((1, 3, 4), "float32")
    layer(x, np.array([[0, 1, 3]]))
    for bad in (-1, 5):
        with pytest.raises(InputError, match=f"position {bad}"):
            layer(x, np.array([[0, 1, bad]]))


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))
