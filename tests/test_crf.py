"""CRF and MEMM against all paths, one by one, in plain NumPy."""

import itertools

import keras
import numpy as np
import pytest

from bert4x import errors
from bert4x.layers import crf as crf_module
from bert4x.layers.crf import PADDED, ConditionalRandomField, MaximumEntropyMarkovModel
from bert4x.snippets import ViterbiDecoder

L, T = 3, 4
MASKS = {
    "all": [1, 1, 1, 1],
    "right": [1, 1, 0, 0],
    "left": [0, 0, 1, 1],
    "hole": [1, 0, 1, 1],
    "single": [0, 1, 0, 0],
    "none": [0, 0, 0, 0],
}
MASK = np.array([*MASKS.values()], bool)
RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 2, (len(MASK), T, L)).astype("float32")
LABELS = RNG.integers(0, L, (len(MASK), T))
KINDS = [
    (ConditionalRandomField, {}),
    (ConditionalRandomField, {"lr_multiplier": 100}),
    (MaximumEntropyMarkovModel, {}),
    (MaximumEntropyMarkovModel, {"bidirectional": False, "lr_multiplier": 10}),
    (MaximumEntropyMarkovModel, {"hidden_dim": 2, "lr_multiplier": 10}),
]
kinds = pytest.mark.parametrize(("kind", "options"), KINDS)


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def make(kind, options, size=L):
    layer = kind(**options)
    layer.build((None, None, size))
    for variable in layer.trainable_variables:
        variable.assign(np.random.default_rng(1).normal(0, 1, variable.shape) / layer.lr_multiplier)
    return layer


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def path_score(layer, scores, labels):
    """What the layer says of a path: of a CRF its score, of a MEMM its log-probability."""
    trans = numpy(layer.trans).astype("float64")
    if isinstance(layer, ConditionalRandomField):
        return sum(s[y] for s, y in zip(scores, labels, strict=True)) + sum(
            trans[a, b] for a, b in itertools.pairwise(labels)
        )

    def one_way(scores, labels, trans):
        total = log_softmax(scores[0])[labels[0]]
        for t in range(1, len(labels)):
            total += log_softmax((scores[t] + trans[labels[t - 1]]) / 2)[labels[t]]
        return total

    forward = one_way(scores, labels, trans)
    return (forward + one_way(scores[::-1], labels[::-1], trans.T)) / 2 if layer.bidirectional else forward


def paths(layer, scores):
    """Every path of a row with what the layer says of it."""
    return {p: path_score(layer, scores, p) for p in itertools.product(range(scores.shape[1]), repeat=len(scores))}


def expected_loss(layer, scores, labels, mask):
    total = []
    for row, gold, real in zip(scores.astype("float64"), labels, mask, strict=True):
        found = 0.0
        if real.any():
            found = -path_score(layer, row[real], tuple(gold[real]))
            if isinstance(layer, ConditionalRandomField):
                every = np.array([*paths(layer, row[real]).values()])
                found += every.max() + np.log(np.exp(every - every.max()).sum())
        total.append(found)
    if isinstance(layer, ConditionalRandomField):
        return np.array(total)
    return np.array(total) * len(mask) / mask.sum()


@kinds
def test_loss_is_that_of_all_paths(kind, options):
    layer = make(kind, options)
    out = layer(SCORES, mask=MASK)
    expected = expected_loss(layer, SCORES, LABELS, MASK)
    np.testing.assert_allclose(numpy(layer.sparse_loss(LABELS, out)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numpy(layer.sparse_loss(LABELS[..., None], out)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numpy(layer.dense_loss(np.eye(L)[LABELS], out)), expected, rtol=1e-5, atol=1e-5)
    for row in range(len(MASK)):  # alone, with no padding at all
        real = MASK[row]
        if isinstance(layer, ConditionalRandomField) and real.any():
            alone = layer.sparse_loss(LABELS[row, real][None], layer(SCORES[row, real][None]))
            np.testing.assert_allclose(numpy(alone), expected[row : row + 1], rtol=1e-5, atol=1e-5)


@kinds
def test_labels_of_padding_do_not_matter(kind, options):
    layer = make(kind, options)
    out = layer(SCORES, mask=MASK)
    other = np.where(MASK, LABELS, -1)
    np.testing.assert_array_equal(numpy(layer.sparse_loss(other, out)), numpy(layer.sparse_loss(LABELS, out)))


@kinds
def test_probabilities_of_all_labels_sum_to_one(kind, options):
    if options.get("bidirectional", True) and kind is MaximumEntropyMarkovModel:
        pytest.skip("the mean of two models' log-probabilities is not that of a distribution")
    layer = make(kind, options)
    every = np.array([*itertools.product(range(L), repeat=T)])
    losses = numpy(layer.sparse_loss(every, layer(np.repeat(SCORES[:1], len(every), 0))))
    losses = losses if kind is ConditionalRandomField else losses * T  # a mean over places
    assert np.exp(-losses.astype("float64")).sum() == pytest.approx(1, abs=1e-5)


@kinds
def test_decode_finds_the_best_of_all_paths(kind, options):
    layer = make(kind, options)
    found = layer.decode(layer(SCORES, mask=MASK))
    limited = layer.decode(layer(SCORES, mask=MASK), starts=[0, 2], ends=[1, 2])
    assert found.dtype == np.int32
    for row, real, labels, others in zip(SCORES.astype("float64"), MASK, found, limited, strict=True):
        assert (labels[~real] == -1).all()
        if not real.any():
            continue
        said = paths(layer, row[real])
        assert said[tuple(labels[real])] == pytest.approx(max(said.values()), abs=1e-9)
        allowed = [value for path, value in said.items() if path[0] in (0, 2) and path[-1] in (1, 2)]
        assert said[tuple(others[real])] == pytest.approx(max(allowed), abs=1e-9)


def test_a_crf_decodes_as_viterbi_decoder_does():
    layer = make(ConditionalRandomField, {}, size=6)
    scores = RNG.normal(size=(2, 20, 6)).astype("float32")
    decoder = ViterbiDecoder(keras.ops.convert_to_numpy(layer.trans), starts=[0, 1], ends=[2])
    for row, labels in zip(scores, layer.decode(scores, [0, 1], [2]), strict=True):
        np.testing.assert_array_equal(labels, decoder.decode(row))


@kinds
def test_accuracy(kind, options):
    layer = make(kind, options)
    correct = (SCORES.argmax(-1) == LABELS)[MASK]
    out = layer(SCORES, mask=MASK)
    assert 0 < np.mean(correct) < 1
    assert numpy(layer.sparse_accuracy(LABELS, out)).mean() == pytest.approx(np.mean(correct))
    assert numpy(layer.dense_accuracy(np.eye(L)[LABELS], out)).mean() == pytest.approx(np.mean(correct))


@kinds
@pytest.mark.parametrize("scale", [1e4, 0.0])
def test_extreme_scores(kind, options, scale):
    layer = make(kind, options)
    scores = np.sign(SCORES) * np.float32(scale)
    out = layer(scores, mask=MASK)
    losses = numpy(layer.sparse_loss(LABELS, out))
    assert np.isfinite(losses).all()
    np.testing.assert_allclose(losses, expected_loss(layer, scores, LABELS, MASK), rtol=1e-4, atol=1e-2)


@kinds
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_float32(kind, options, policy):
    layer = make(kind, {**options, "dtype": policy})
    half = keras.ops.cast(SCORES, policy.removeprefix("mixed_"))
    out = layer(half, mask=MASK)
    assert keras.backend.standardize_dtype(out.dtype) == "float32"
    assert all(variable.dtype == "float32" for variable in layer.variables)
    rounded = numpy(keras.ops.cast(half, "float32"))
    expected = expected_loss(layer, rounded, LABELS, MASK)
    np.testing.assert_allclose(numpy(layer.sparse_loss(LABELS, out)), expected, rtol=1e-5, atol=1e-5)


def test_nan_is_seen():
    layer = make(ConditionalRandomField, {})
    scores = SCORES[:1].copy()
    scores[0, 1] = np.nan
    assert np.isnan(numpy(layer.sparse_loss(LABELS[:1], layer(scores)))).all()
    with pytest.raises(errors.InputError, match="NaN"):
        layer.decode(layer(scores))


def test_bad_input_of_decode():
    layer = make(ConditionalRandomField, {})
    with pytest.raises(errors.InputError, match=r"scores \(4, 3\); expected \(B, T, 3\)"):
        layer.decode(SCORES[0])
    with pytest.raises(errors.InputError, match="ends is \\[3\\]; expected labels from 0 to 2"):
        layer.decode(SCORES, ends=[3])
    with pytest.raises(errors.InputError, match="no path of 1 labels from starts"):
        layer.decode(SCORES[:, :1], starts=[0], ends=[1])


@pytest.mark.parametrize(("kind", "options"), [KINDS[0], KINDS[-1]])
def test_lr_multiplier(kind, options):
    """As many times the update of Adam, from the same start."""
    batch = keras.ops.convert_to_tensor(SCORES)

    def step(multiplier):
        keras.utils.set_random_seed(3)
        layer = kind(**options | {"lr_multiplier": multiplier})
        inputs = keras.Input((None, L))
        model = keras.Model(inputs, layer(inputs))
        before = numpy(layer.trans)
        model.compile(keras.optimizers.Adam(1e-4, epsilon=1e-12), loss=layer.sparse_loss, run_eagerly=True)
        model.train_on_batch(batch, LABELS)
        return before, numpy(layer.trans) - before

    (start, one), (same_start, ten) = step(1), step(10)
    np.testing.assert_allclose(start, same_start, rtol=1e-5, atol=1e-7)
    assert np.abs(one).max() > 5e-5
    np.testing.assert_allclose(ten, 10 * one, rtol=0.02, atol=2e-6)


@kinds
def test_gradients_by_finite_differences(kind, options):
    """Of scores and transitions, through Keras' own training step with SGD."""
    layer = make(kind, {**options, "lr_multiplier": 1})
    start = [numpy(v).copy() for v in layer.trainable_variables]
    scale = keras.layers.EinsumDense("btl,tl->btl", output_shape=(T, L))
    inputs = keras.Input((T, L))
    mask = keras.Input((T,), dtype="bool")
    model = keras.Model([inputs, mask], layer(scale(inputs), mask=mask))
    scale.set_weights([np.ones((T, L))])
    model.compile(keras.optimizers.SGD(1.0), loss=layer.sparse_loss, run_eagerly=True)
    model.train_on_batch([SCORES, MASK], LABELS)
    start.append(np.ones((T, L)))
    variables = [*layer.trainable_variables, scale.kernel]
    found = [before - numpy(variable) for before, variable in zip(start, variables, strict=True)]
    for position, gradient in enumerate(found):
        assert np.abs(gradient).max() > 1e-3
        for index in [(0, 1), (1, 0), (2, 1)]:
            losses = []
            for sign in (1, -1):
                values = [value.astype("float64") for value in start]
                values[position][index] += sign * 1e-3
                for variable, value in zip(layer.trainable_variables, values, strict=False):
                    variable.assign(value)
                losses.append(expected_loss(layer, SCORES * values[-1], LABELS, MASK).mean())
            assert gradient[index] == pytest.approx((losses[0] - losses[1]) / 2e-3, rel=2e-2, abs=1e-3)


def model_of(layer):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(20, 8, mask_zero=True)(inputs)
    return keras.Model(inputs, layer(keras.layers.Dense(L)(x)))


@pytest.mark.parametrize(("kind", "options"), [KINDS[0], KINDS[4]])
def test_fit_learns_and_a_saved_model_is_the_same(kind, options, tmp_path):
    """Labels that cannot be told from tokens alone: a token's label follows that of the one before."""
    keras.utils.set_random_seed(0)
    ids = np.random.default_rng(0).integers(1, 20, (64, 7))
    labels = np.cumsum(ids % 2, axis=1) % L
    ids[::2, 5:] = 0
    layer = kind(**options)
    model = model_of(layer)
    model.compile(keras.optimizers.Adam(0.02), loss=layer.sparse_loss, metrics=[layer.sparse_accuracy])
    history = model.fit(ids, labels, batch_size=32, epochs=6, verbose=0).history
    model.fit(ids[:, :5], labels[:, :5], batch_size=32, epochs=1, verbose=0)  # another length
    assert history["loss"][-1] < history["loss"][0]
    assert 0 < history["sparse_accuracy"][-1] <= 1
    out = model.predict_on_batch(ids)
    np.testing.assert_array_equal(out.max(-1) < PADDED / 2, ids == 0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    copy = loaded.layers[-1]
    assert {name: getattr(copy, name) for name in kind.settings} == {
        name: getattr(layer, name) for name in kind.settings
    }
    np.testing.assert_array_equal(numpy(copy.trans), numpy(layer.trans))
    np.testing.assert_allclose(loaded.predict_on_batch(ids), out, rtol=1e-5, atol=1e-5)


def test_variables_are_named_as_in_bert4keras():
    names = {
        kind: [v.name for v in make(kind, {}).variables] for kind in (ConditionalRandomField, MaximumEntropyMarkovModel)
    }
    assert names == {kind: ["trans"] for kind in names}
    layer = make(MaximumEntropyMarkovModel, {"hidden_dim": 2})
    assert [(v.name, tuple(v.shape)) for v in layer.variables] == [("l_trans", (L, 2)), ("r_trans", (L, 2))]


def test_batch_and_length_of_one():
    for kind, options in KINDS:
        layer = make(kind, options)
        scores = SCORES[:1, :1]
        loss = numpy(layer.sparse_loss(LABELS[:1, :1], layer(scores)))
        expected = -log_softmax(scores[0, 0].astype("float64"))[LABELS[0, 0]]
        np.testing.assert_allclose(loss, [expected], rtol=1e-5)


def test_both_are_of_the_layers():
    from bert4x import layers

    assert layers.ConditionalRandomField is crf_module.ConditionalRandomField
    assert layers.MaximumEntropyMarkovModel is crf_module.MaximumEntropyMarkovModel
