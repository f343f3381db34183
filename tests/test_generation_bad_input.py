"""What cannot be decoded is a GenerationError that says why, before anything is computed."""

import numpy as np
import pytest
from conftest import write_tiny

import bert4x
from bert4x.errors import GenerationError
from bert4x.generation import compiled

POSITIONS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("writer") / "bert", num_hidden_layers=1, max_position=POSITIONS)


@pytest.fixture(scope="module")
def lm(folder):
    return bert4x.load(folder, "lm")


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    def run(*_):
        raise AssertionError("something was computed")

    monkeypatch.setattr(compiled.CompiledByShape, "__call__", run)


def test_the_guard_works(lm):
    with pytest.raises(AssertionError, match="something was computed"):
        lm.generate("天", max_new_tokens=3)


def test_every_token_suppressed(lm):
    with pytest.raises(GenerationError, match="leaves no token"):
        lm.generate_ids(IDS, max_new_tokens=4, suppress_ids=range(lm.config.vocab_size))


IDS = [[5, 6, 7]]
OPTIONS = {
    "max_new_tokens": [(0, "at least 1"), (-1, "at least 1"), (2.5, "at least 1"), ("9", "at least 1"), (True, "1")],
    "min_new_tokens": [(-1, "at least 0"), (5, "above max_new_tokens 4")],
    "temperature": [(0, "above 0"), (-1.0, "above 0"), (float("nan"), "above 0"), (float("inf"), "above 0")],
    "top_k": [(0, "at least 1"), (1.5, "at least 1")],
    "top_p": [
        (0, "at most 1"),
        (1.01, "at most 1"),
        (-0.1, "at most 1"),
        (float("nan"), "at most 1"),
        ("a", "at most"),
    ],
    "min_p": [(-0.1, "from 0 to 1"), (1.1, "from 0 to 1")],
    "repetition_penalty": [(0, "above 0"), (-1, "above 0"), (float("inf"), "above 0"), (None, "above 0")],
    "no_repeat_ngram_size": [(-1, "at least 0"), (1.0, "at least 0")],
    "num_beams": [(0, "at least 1"), (-2, "at least 1"), (True, "at least 1")],
    "num_return_sequences": [(0, "at least 1")],
    "length_penalty": [(float("inf"), "finite"), (float("nan"), "finite"), ("1", "finite")],
    "early_stopping": [("always", "'never'"), (2, "'never'"), (None, "'never'")],
    "seed": [(-1, "at least 0"), (0.5, "at least 0")],
    "pad_id": [(-1, "an id"), (1.5, "an id")],
    "stop_ids": [(["[SEP]"], "expected ids from 0 to"), (1000, "expected ids from 0 to"), ([-1], "ids from 0 to")],
    "suppress_ids": [
        ([1000], "ids from 0 to"),
        (range(1000), "ids from 0 to"),
        (7.5, "suppress_ids"),
        ("a", "ids from"),
    ],
    "forced_ids": [
        ({0: 1000}, "ids from 0 to"),
        ({4: 5}, "max_new_tokens"),
        ({-2: 5}, "forced_ids"),
        ({"0": 5}, "forced_ids"),
        ([5], "forced_ids"),
        ({0: "a"}, "ids from 0 to"),
    ],
    "stop": [("。", "generate_ids knows no text")],
    "do_sample": [("yes", "do_sample")],
    "sliding_window": [("yes", "sliding_window"), (None, "sliding_window")],
    "max_tokens": [(4, "max_new_tokens")],
    "num_beam": [(4, "num_beams")],
}


@pytest.mark.parametrize(("name", "value", "message"), [(n, v, m) for n, cases in OPTIONS.items() for v, m in cases])
def test_options(lm, name, value, message):
    with pytest.raises(GenerationError, match=message) as error:
        lm.generate_ids(IDS, **{"max_new_tokens": 4} | {name: value})
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences 3 is above num_beams 2"),
        ({"num_beams": 2, "do_sample": True}, "do_sample samples"),
        ({"num_beams": 2, "temperature": 0.5}, "temperature samples"),
        ({"num_beams": 2, "top_p": 0.5}, "top_p samples"),
        ({"num_beams": 2, "sliding_window": True}, "sliding window"),
        ({"do_sample": False, "top_k": 3}, "do_sample is False"),
        ({"num_beams": 2, "seed": 1}, "seed samples"),
        ({"do_sample": False, "seed": 1}, "do_sample is False"),
        ({"do_sample": False, "num_return_sequences": 2}, "writes one text"),
        ({"length_penalty": 2.0}, "length_penalty compares beams"),
        ({"early_stopping": "never", "num_return_sequences": 2}, "early_stopping compares beams"),
        ({"start_id": 2}, "start_id"),
        ({"forced_ids": {0: 7, 2: 9}, "suppress_ids": [8, 9]}, "wants token 9 at 2, suppress_ids forbids it"),
        ({"forced_ids": {-1: 7, 63: 8}}, "is also number 63"),
        ({"forced_ids": {1: 3, 4: 7}, "stop_ids": [3]}, "ends the text by the stop token 3 at 1"),
        ({"forced_ids": {1: 3}, "stop_ids": [3], "min_new_tokens": 4}, "ends the text by the stop token 3 at 1"),
        ({"max_new_tokens": POSITIONS - 2}, f"max_new_tokens can be {POSITIONS - 3}"),
        ({"max_new_tokens": 10**9}, "positions"),
    ],
)
def test_options_together(lm, options, message):
    with pytest.raises(GenerationError, match=message):
        lm.generate_ids(IDS, **options)


@pytest.mark.parametrize(
    ("ids", "given", "message"),
    [
        ([], {}, "batch is empty"),
        (np.zeros((0, 4), "int32"), {}, "batch is empty"),
        (np.zeros((2, 0), "int32"), {}, "prompt 0 is empty"),
        ([[5], []], {}, "prompt 1 is empty"),
        ([[5], [0, 0]], {"pad_id": 0}, "prompt 1 is empty"),
        ([[5, 6]], {"padding_mask": [[0, 0]]}, "prompt 0 is empty"),
        ([5, 6], {}, "token_ids"),
        (np.array([5, 6]), {}, r"expected \(batch, length\)"),
        (np.zeros((1, 2, 3), "int32"), {}, r"expected \(batch, length\)"),
        ([[5.0, 6.5]], {}, "integers"),
        ([["天"]], {}, "integers"),
        (["天气"], {}, "token_ids"),
        ([[5, [6]]], {}, "token_ids"),
        ([[5, 10_000]], {}, "prompt 0 has id 10000"),
        ([[5], [-1]], {}, "prompt 1 has id -1"),
        ([[5, 2**32 + 6]], {}, "has id 4294967302"),
        (np.array([[2**64 - 1]], "uint64"), {}, "has id"),
        ([[5, 6]], {"segment_ids": [[0]]}, "segment_ids"),
        ([[5, 6]], {"segment_ids": [[0, 0], [0, 0]]}, "segment_ids"),
        ([[5, 6]], {"segment_ids": [[0, 2]]}, "segment"),
        ([[5, 6]], {"segment_ids": [[0, -1]]}, "segment"),
        ([[5, 6]], {"padding_mask": [[1]]}, "padding_mask"),
        ([[5, 6]], {"padding_mask": [[0.5, 1]]}, "padding_mask"),
        ([list(range(5, 6 + POSITIONS))], {}, f"has {POSITIONS + 1} tokens"),
        ([[5] * POSITIONS], {}, "positions"),
        ([[5], [6] * (POSITIONS - 3)], {"max_new_tokens": 4}, "max_new_tokens can be 3"),
    ],
)
def test_ids(lm, ids, given, message):
    with pytest.raises(GenerationError, match=message):
        lm.generate_ids(ids, **{"max_new_tokens": 2} | given)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "prompt '' has no token"),
        (["天", ""], {}, "prompt '' has no token"),
        (["天", "  \n"], {}, "has no token"),
        (None, {}, "str"),
        (3, {}, "str"),
        (["天", 3], {}, "a prompt is a str, not int"),
        ([[5, 6]], {}, "generate_ids"),
        ("天" * POSITIONS, {}, f"has {POSITIONS + 1} tokens"),
        ("天", {"stop_ids": "[SEPP]"}, r"no token '\[SEPP\]'.*'\[SEP\]'"),
        ("天", {"stop_ids": [3, "没有这个"]}, "no token '没有这个'"),
        ("天", {"stop_ids": [3, 10_000]}, "ids from 0 to"),
        ("天", {"stop_ids": [3.5]}, "3.5"),
        ("天", {"stop": ""}, "stop"),
        ("天", {"stop": ["。", ""]}, "not empty"),
        ("天", {"stop": [3]}, "stop"),
        ("天", {"stop": 3}, "stop"),
    ],
)
def test_text(lm, text, options, message):
    options = {"max_new_tokens": 2} | options
    with pytest.raises(GenerationError, match=message):
        lm.generate(text, **options)
    if not isinstance(text, list):
        with pytest.raises(GenerationError, match=message):
            lm.stream(text, **options)  # at once, not when the first piece is asked for


def test_streams(lm):
    for options in ({"num_beams": 2}, {"num_return_sequences": 2}):
        with pytest.raises(GenerationError, match="only one sequence can be streamed"):
            lm.stream("天", max_new_tokens=2, **options)
    with pytest.raises(GenerationError, match="str"):
        lm.stream(["天", "气"], max_new_tokens=2)


@pytest.mark.parametrize(
    ("prompts", "choices", "message"),
    [
        ("天", "好坏", "expected a list"),
        ("天", [], "at least one"),
        ("天", ["好", ""], "no token"),
        ("天", ["好", 3], "a choice is a str, not int"),
        ("", ["好"], "no token"),
        (["天", ""], ["好"], "no token"),
        ([3], ["好"], "str"),
        ("天", ["好", "好" * POSITIONS], "positions"),
        ("天" * (POSITIONS - 2), ["好", "好天"], "positions"),
    ],
)
def test_scores(lm, prompts, choices, message):
    with pytest.raises(GenerationError, match=message):
        lm.score(prompts, choices)


def test_models_that_do_not_write(folder):
    encoder, hidden = bert4x.load(folder), bert4x.load(folder, "lm", with_mlm=False)
    masked = bert4x.load(folder, with_mlm=True)
    for model in (encoder, masked):
        for call in (lambda m: m.generate("天"), lambda m: m.generate_ids(IDS), lambda m: m.score("天", ["好"])):
            with pytest.raises(GenerationError, match="application='encoder'"):
                call(model)
    with pytest.raises(GenerationError, match="not logits"):
        hidden.generate("天")


def test_models_without_vocabulary(folder):
    model = bert4x.load(folder, "lm")
    model.tokenizer = None
    for call in (lambda: model.generate("天"), lambda: model.stream("天"), lambda: model.score("天", ["好"])):
        with pytest.raises(GenerationError, match="no tokenizer"):
            call()
    with pytest.raises(GenerationError, match="no tokenizer"):
        model.generate("天", stop_ids="[SEP]")


def test_a_unilm_keeps_its_source(folder):
    model = bert4x.load(folder, "unilm")
    with pytest.raises(GenerationError, match="forget the beginning"):
        model.generate("天", sliding_window=True, max_new_tokens=2)
    with pytest.raises(GenerationError, match=f"has {POSITIONS + 1} tokens"):
        model.generate("天" * (POSITIONS - 1), max_new_tokens=2)
