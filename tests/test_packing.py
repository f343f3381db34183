"""Several texts in a row of a batch: none sees another, and what is learnt is what is learnt of them alone."""

import keras
import numpy as np
import pytest
from keras import ops
from random_models import DEFAULTS, tiny_config

import bert4x
from bert4x import errors
from bert4x.families import family_of
from bert4x.tasks.packed import Packed
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.training.compiled import value_and_gradients
from bert4x.training.packing import PackedBatches, best_fit, in_rows, packed_rows

RNG = np.random.default_rng(0)
LENGTHS, ROWS, PLACES = (5, 9, 3, 12), [[0, 3], [1, 2]], {0: (0, 0), 3: (0, 5), 1: (1, 0), 2: (1, 9)}
APPLICATIONS = ("encoder", "lm", "unilm")
FAMILIES = [name for name in ("bert", "albert", *DEFAULTS) if "packed" in family_of(name).options]
KINDS = [(name, one) for name in FAMILIES for one in APPLICATIONS if one in family_of(name).applications]


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


@pytest.mark.parametrize(("family", "application"), KINDS)
def test_a_text_is_what_it_is_alone(family, application):
    """In a row with others, and whatever these are."""
    config = tiny_config(family, num_hidden_layers=2)
    plain = bert4x.build_transformer_model(config, None, model=family, application=application)
    assert plain.config.model == family
    for variable in plain.trainable_variables:
        variable.assign(RNG.normal(0, 0.3, variable.shape))
    packed = plain.builder.over_the_same_layers(packed=True).build().model
    texts = [RNG.integers(5, 90, length) for length in LENGTHS]
    second = 1 if application == "unilm" or plain.config.segment_rows > 1 else 0
    segments = [np.arange(length) * 2 // length * second for length in LENGTHS]

    def given(texts):
        where = [PLACES[i] for i in range(4)]
        inputs = {"token_ids": texts, "segment_ids": segments, "text_ids": [[i + 1] * n for i, n in enumerate(LENGTHS)]}
        return {name: packed_rows(values, where, (2, 18)) for name, values in inputs.items()}

    found = numpy(packed(given(texts)))
    others = numpy(packed(given([texts[0], *(text[::-1] for text in texts[1:])])))
    np.testing.assert_allclose(others[0, :5], found[0, :5], rtol=1e-5, atol=1e-5)
    assert np.abs(others[0, 5:17] - found[0, 5:17]).max() > 1e-4
    for i, (row, start) in PLACES.items():
        alone = numpy(plain({"token_ids": texts[i][None], "segment_ids": segments[i][None]}))[0]
        np.testing.assert_allclose(found[row, start : start + LENGTHS[i]], alone, rtol=2e-5, atol=2e-5)


@pytest.mark.compiled  # `predict` must look before: compiled code cannot raise
def test_what_does_not_go_with_packed_rows():
    for options in ({"with_pool": True}, {"with_nsp": True}, {"custom_position_ids": True}):
        with pytest.raises(errors.ConfigError, match=f"packed=True does not go with {next(iter(options))}"):
            bert4x.build_transformer_model(tiny_config(), None, packed=True, **options)
    with pytest.raises(errors.UnknownOptionError, match="packed"):
        bert4x.build_transformer_model(tiny_config("transformer"), None, model="transformer", packed=True)
    model = bert4x.build_transformer_model(tiny_config(), None, packed=True)
    with pytest.raises(errors.InputError, match="Input-Text"):
        model.predict({"token_ids": np.ones((1, 4), "int32")}, verbose=0)
    ids = np.ones((1, 40), "int32")
    assert model.predict({"token_ids": ids, "text_ids": np.arange(40)[None] // 29}, verbose=0).shape[1] == 40
    with pytest.raises(errors.InputError, match="30"):
        model.predict({"token_ids": ids, "text_ids": np.arange(40)[None] // 30}, verbose=0)


def test_rows():
    rows = best_fit([4, 7, 3, 10, 6, 1], 10)
    assert sorted(map(sorted, rows)) == [[0, 4], [1, 2], [3], [5]]
    assert best_fit([], 10) == [] and best_fit([10], 10) == [[0]]
    assert in_rows([6, 4, 1, 9], 10) == [(0, 0), (0, 6), (1, 0), (1, 1)]
    with pytest.raises(errors.DataError, match="11 tokens does not fit a row of 10"):
        best_fit([11], 10)


def test_epochs_have_each_example_once_and_little_padding():
    lengths = np.clip(RNG.gamma(2, 40, 3000).astype(int), 4, 128)
    batches = PackedBatches(lengths, 32, capacity=512)
    assert batches.real >= 0.98
    for epoch in (0, 1):
        plan = batches.epoch(epoch)
        seen = np.concatenate([rows for rows, _ in plan])
        last = plan[-1][0]
        assert len(plan) == len(batches) and set(seen) == set(range(3000)) and len(seen) - 3000 < len(last)
        assert all(in_rows(lengths[rows], 512)[-1][0] < batches.rows for rows, _ in plan)
    assert not np.array_equal(plan[0][0], batches.epoch(0)[0][0])


def loss_and_gradients(task, model, inputs, targets):
    variables = sorted((v for v in task.model.trainable_variables), key=lambda v: v.path)

    def loss():
        value = task.loss(model([ops.convert_to_tensor(x) for x in inputs], training=True), targets)
        return value, value

    (_, value), gradients = value_and_gradients(loss, variables, model.variables, False)
    return float(numpy(value)), [numpy(gradient) for gradient in gradients]


@pytest.mark.parametrize("kind", ["classification", "unilm"])
def test_what_is_learnt(kind, quiet_model):
    texts = ["床前明月光", "疑是地上霜，举头望明月", "好", "低头思故乡"]
    if kind == "unilm":
        task = Seq2Seq(quiet_model(application="unilm"), maxlen=24, max_target=8)
        examples = task.prepare([(text, text[::-1][:5]) for text in texts])
    else:
        task = TextClassification(quiet_model(), ["诗", "词"], dropout=0.0)
        examples = task.prepare([(text, "诗词"[len(text) % 2]) for text in texts])
    packed = Packed(task, examples, batch_size=4)
    (rows, length), *_ = packed.batches.epoch(0)
    inputs, targets = packed.batch([examples[i] for i in rows], length)
    assert len(inputs[0]) < 3 and (inputs[0] != task.pad_id).sum() == sum(e.length for e in examples)
    found = loss_and_gradients(task, packed.model, inputs, targets)
    alone = task.batch([examples[i] for i in rows], 32)
    expected = loss_and_gradients(task, task.model, *alone)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-6 + 1e-5 * np.abs(theirs).max())
    report = task.fit([(t, "诗") if kind != "unilm" else (t, t[:3]) for t in texts], epochs=2, pack=True, verbose=False)
    assert np.isfinite(report.history["loss"]).all()


def test_tasks_that_cannot(quiet_model):
    task = TextClassification(quiet_model(), ["诗", "词"], multi_label=True)
    with pytest.raises(errors.ConfigError, match="packed for one label each"):
        task.fit([("好", ["诗"])], pack=True, verbose=False)


@pytest.fixture(scope="module")
def quiet_model():
    """The embedded model's first layer, without dropout."""

    def load(**options):
        keras.utils.set_random_seed(0)
        return bert4x.load(num_hidden_layers=1, dropout_rate=0.0, attention_dropout_rate=0.0, **options)

    return load
