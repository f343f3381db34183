"""Synchronous bidirectional attention: against NumPy, with a cache, and what it must leave alone."""

import keras
import numpy as np
import pytest
from battery import array, build, close, given
from keras import ops
from random_models import random_inputs, random_pairs, random_weights, tiny_config
from reference import bert, gpt2, transformer

import bert4x
from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError, InputError
from bert4x.families import family_of
from bert4x.models.cache import new_cache

ORACLES = {"bert": bert, "albert": bert, "gpt2": gpt2, "transformer": transformer}
APPLICATION = {"transformer": "seq2seq"}  # of the others: unilm
ROWS, LENGTH, SOURCE = 4, 11, 5
BOTH = {"bidirectional": True, "with_mlm": "linear"}


def two_ways(family, config):
    """Inputs in pairs of directions, and where their targets are: the rows of a pair have one source, and targets that
    are equally long, but two pairs differ in both."""
    if family == "transformer":
        inputs = random_pairs(config, batch=ROWS, target_length=LENGTH)
        inputs |= {name: np.tile(inputs[name][: ROWS // 2], (2, 1)) for name in ("token_ids", "padding_mask")}
        inputs["target_mask"] = np.tile(inputs["target_mask"][: ROWS // 2], (2, 1))
        inputs["target_ids"] = np.where(inputs["target_mask"], np.maximum(inputs["target_ids"], 1), 0)
        return inputs, inputs["target_mask"]
    inputs = random_inputs(config, batch=ROWS, length=LENGTH + SOURCE)
    for name in ("segment_ids", "padding_mask"):
        inputs[name] = np.tile(inputs[name][: ROWS // 2], (2, 1))
    source = inputs["padding_mask"] & (inputs["segment_ids"] == 0)
    same = np.tile(inputs["token_ids"][: ROWS // 2], (2, 1))
    inputs["token_ids"] = np.where(source, same, np.where(inputs["padding_mask"], inputs["token_ids"] % 96 + 1, 0))
    return inputs, inputs["segment_ids"] == 1


def oracle(family, weights, config, inputs, **options):
    known = given(inputs)
    outputs = ORACLES[family].forward(weights, config, **known, application=APPLICATION.get(family, "unilm"), **options)
    return outputs["mlm_logits" if "mlm_logits" in outputs else "lm_logits"]


def model_of(family, config, weights, **options):
    return build(config, weights, APPLICATION.get(family, "unilm"), **BOTH | options)


@pytest.mark.parametrize("changes", [{}, {"residual_attention_scores": True}], ids=["plain", "residual"])
@pytest.mark.parametrize("family", ORACLES)
def test_against_numpy(family, changes):
    config = tiny_config(family, pad_token_id=0, **changes)
    weights = random_weights(config)
    inputs, targets = two_ways(family, config)
    expected = oracle(family, weights, config, inputs, lookahead=0.1)
    outputs = array(model_of(family, config, weights)(given(inputs)))
    real = targets if family == "transformer" else inputs["padding_mask"]
    close(outputs[real], expected[real], 2e-5 * max(1, np.abs(expected).max() / 10))
    plain = oracle(family, weights, config, inputs)
    assert np.abs(expected - plain)[targets].max() > 0.05  # the other direction matters
    heavier = array(model_of(family, config, weights, bidirectional_weight=0.7)(given(inputs)))
    assert np.abs(heavier - outputs)[targets].max() > 0.05
    close(heavier[real], oracle(family, weights, config, inputs, lookahead=0.7)[real], 1e-4)


@pytest.mark.parametrize("family", ["bert", "albert", "gpt2"])
def test_the_source_of_a_unilm_is_as_without(family):
    config = tiny_config(family, pad_token_id=0)
    weights = random_weights(config)
    inputs, targets = two_ways(family, config)
    source = inputs["padding_mask"] & ~targets
    with_it, without = (array(model_of(family, config, weights, bidirectional=b)(inputs)) for b in (True, False))
    close(with_it[source], without[source], 1e-5)
    assert np.abs(with_it - without)[targets].max() > 0.05


@pytest.mark.parametrize("family", ["bert", "transformer"])
def test_who_sees_what_of_the_other_direction(family):
    """A target sees the other direction's targets up to as many as its own, of its own pair alone."""
    config = tiny_config(family, pad_token_id=None)
    weights = random_weights(config)
    model = model_of(family, config, weights)
    inputs, _ = two_ways(family, config)
    changed = "target_ids" if family == "transformer" else "token_ids"
    first = 0 if family == "transformer" else SOURCE
    if family == "bert":
        inputs["segment_ids"] = np.tile(np.arange(LENGTH + SOURCE) >= SOURCE, (ROWS, 1)).astype("int32")
        inputs["padding_mask"] = np.ones_like(inputs["padding_mask"])
    before = array(model(given(inputs)))
    for k in range(LENGTH):
        ids = inputs[changed].copy()
        ids[2, first + k] = ids[2, first + k] % 96 + 1
        reached = np.abs(array(model(given(inputs) | {changed: ids})) - before).max(-1) > 1e-6
        expected = np.zeros_like(reached)
        expected[[0, 2], first + k :] = True  # rows 0 and 2 are the pair
        assert np.array_equal(reached, expected), k


@pytest.mark.parametrize("changes", [{}, {"residual_attention_scores": True}], ids=["plain", "residual"])
@pytest.mark.parametrize("family", ["bert", "albert", "gpt2", "transformer"])
def test_cached_equals_uncached(family, changes):
    """The source at once, then both directions step by step; the row of a shorter source has padding on the left."""
    config = tiny_config(family, initializer_range=0.3, pad_token_id=0, **changes)
    cls = family_of(family)
    backbone = cls(TransformerConfig(**config), APPLICATION.get(family, "unilm"), **BOTH).build()
    random = np.random.default_rng(0)
    ids = random.integers(1, 97, (ROWS, SOURCE + 6)).astype("int32")
    ids[2:, :SOURCE] = ids[:2, :SOURCE]
    valid = np.ones_like(ids, dtype=bool)
    valid[1::2, :2] = False
    segments = np.tile(np.arange(SOURCE + 6) >= SOURCE, (ROWS, 1)).astype("int32")
    cache = new_cache(backbone.config, ROWS, length=SOURCE + 9, dtype="float32")
    if family == "transformer":
        source = {"token_ids": ids[:, :SOURCE], "padding_mask": valid[:, :SOURCE]}
        targets = {"target_ids": ids[:, SOURCE:]}
        whole = array(backbone.model(source | targets))
        start, stops = 0, (1, 2, 4, 6)
    else:
        source, targets = {}, {"token_ids": ids, "segment_ids": segments, "padding_mask": valid}
        whole = array(backbone.model(targets))
        start, stops = 0, (SOURCE, SOURCE + 1, SOURCE + 2, SOURCE + 4, SOURCE + 6)
    steps = []
    for stop in stops:
        step = source | {name: values[:, start:stop] for name, values in targets.items()}
        step = {name: ops.convert_to_tensor(values) for name, values in step.items()}
        logits, cache = backbone.forward(step, cache, start)
        steps.append(array(logits))
        source, start = {}, stop
    real = np.ones(whole.shape[:2], bool) if family == "transformer" else valid
    close(np.concatenate(steps, axis=1)[real], whole[real])
    assert np.ptp(whole) > 1


@pytest.mark.parametrize("family", ["bert", "transformer"])
def test_training(family):
    """The gradient reaches a direction through the other; dropout of what comes from there acts in training only."""
    changes = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
    config = tiny_config(family, **changes)
    weights = random_weights(config)
    inputs, targets = two_ways(family, config)
    model = model_of(family, config, weights, bidirectional_weight=0.5, bidirectional_dropout=0.5)
    expected = array(model(given(inputs)))
    close(model(given(inputs), training=False), expected, 0)
    assert np.abs(array(model(given(inputs), training=True)) - expected)[targets].max() > 0.05
    model = model_of(family, config, weights, bidirectional_dropout=0.0)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = {name: values for name, values in given(inputs).items() if name != "padding_mask"}
    y = np.where(targets, inputs["target_ids" if family == "transformer" else "token_ids"], 0)
    losses = [float(np.array(model.train_on_batch(x, y))) for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def test_any_checkpoint_loads(tmp_path):
    """No variable of its own, so the embedded model reads and writes as ever; the option survives `.keras` files."""
    plain = bert4x.load(application="unilm")
    model = bert4x.load(application="unilm", bidirectional=True)
    assert [v.path for v in plain.variables if "seed" not in v.path] == [
        v.path for v in model.variables if "seed" not in v.path
    ]
    ids = np.array([[2, 5, 6, 7, 8, 9], [2, 5, 6, 9, 8, 7]])
    segments = np.array([[0, 0, 0, 1, 1, 1]] * 2)
    outputs = array(model([ids, segments]))
    assert np.abs(outputs - array(plain([ids, segments])))[:, 3:].max() > 1e-3
    model.save(tmp_path / "model.keras")
    again = bert4x.load(tmp_path / "model.keras")
    close(again([ids, segments]), outputs, 0)
    assert again.builder.bidirectional is True


def test_what_is_refused():
    config = tiny_config("bert")
    for application in ("encoder", "lm"):
        with pytest.raises(ConfigError, match="expected 'unilm'"):
            build(config, {}, application, **BOTH)
    for bad in ({"bidirectional_weight": 0}, {"bidirectional_weight": float("nan")}, {"bidirectional_dropout": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            build(config, {}, "unilm", **BOTH, **bad)
    model = model_of("bert", config, random_weights(config))
    with pytest.raises(InputError, match=r"3 rows.*even"):
        model(random_inputs(config, batch=3))
