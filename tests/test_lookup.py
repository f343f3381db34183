"""Drafts copied from the prompt: the same texts in fewer passes."""

import numpy as np
import pytest
from random_models import random_model

import bert4x
from bert4x.errors import GenerationError
from bert4x.generation import lookup
from bert4x.generation.lookup import draft_of


def test_drafts():
    ids = np.array([5, 1, 2, 3, 9, 1, 2, 4, 7, 1, 2])
    assert draft_of(ids, 3).tolist() == [4, 7, 1]  # the last place where 1 2 stood before
    assert draft_of(ids, 1).tolist() == [4]
    assert draft_of(np.array([1, 2, 3]), 4).tolist() == []
    assert draft_of(np.array([1, 1]), 4).tolist() == [1]
    assert draft_of(np.array([1]), 4).tolist() == []


@pytest.fixture
def passes(monkeypatch):
    """How many tokens were read by each pass beyond the prompt."""
    counted, real = [], lookup.draft_of

    def counting(ids, size):
        found = real(ids, size)
        counted.append(len(found))
        return found

    monkeypatch.setattr(lookup, "draft_of", counting)
    return counted


@pytest.mark.parametrize(("family", "application", "draft"), [("bert", "unilm", 1), ("gpt2", "lm", 5)])
def test_the_same_tokens_in_fewer_passes(family, application, draft, passes):
    """Also where drafts are wrong, at the end of the room that the cache has, and after a stop token."""
    config = {"num_hidden_layers": 1, "max_position": 200, "vocab_size": 11}
    model, _ = random_model(family, config, application=application, **({"with_mlm": True} if family == "bert" else {}))
    draw = np.random.default_rng(0)
    prompts = [draw.integers(1, 11, length).tolist() * 3 for length in (3, 7)]
    plain, scores = model.generate_ids(prompts, max_new_tokens=20, return_scores=True)
    found, others = model.generate_ids(prompts, max_new_tokens=20, return_scores=True, prompt_lookup=draft)
    np.testing.assert_array_equal(found, plain)
    np.testing.assert_allclose(others, scores, rtol=1e-4, atol=1e-4)
    assert len(passes) < 2 * 19  # less than a pass for each token of both
    stop = int(plain[0, 5])
    plain = model.generate_ids(prompts, max_new_tokens=20, stop_ids=[stop])
    np.testing.assert_array_equal(
        model.generate_ids(prompts, max_new_tokens=20, stop_ids=[stop], prompt_lookup=draft), plain
    )
    suppressed = {"max_new_tokens": 20, "suppress_ids": [int(plain[0, 0])]}
    np.testing.assert_array_equal(
        model.generate_ids(prompts, **suppressed, prompt_lookup=draft), model.generate_ids(prompts, **suppressed)
    )


@pytest.mark.parametrize(("family", "application", "draft"), [("bert", "unilm", 1), ("gpt2", "lm", 5)])
def test_another_model_drafts(family, application, draft):
    """Also where it is the model itself, whose drafts are all right, and one that is nearly always wrong."""
    config = {"num_hidden_layers": 2, "max_position": 200, "vocab_size": 11}
    more = {"application": application} | ({"with_mlm": True} if family == "bert" else {})
    model, _ = random_model(family, config, **more)
    other, _ = random_model(family, config | {"num_hidden_layers": 1}, **more)
    prompts = [[3, 4, 5, 6], [7, 8, 9, 1, 2, 3, 4]]
    plain, scores = model.generate_ids(prompts, max_new_tokens=12, return_scores=True)
    for drafter in (model, other):
        given = {"drafter": drafter, "draft_tokens": draft, "max_new_tokens": 12}
        found, others = model.generate_ids(prompts, return_scores=True, **given)
        np.testing.assert_array_equal(found, plain)
        np.testing.assert_allclose(others, scores, rtol=1e-4, atol=1e-4)
        stop = [int(plain[0, 5])]
        np.testing.assert_array_equal(
            model.generate_ids(prompts, stop_ids=stop, **given),
            model.generate_ids(prompts, stop_ids=stop, max_new_tokens=12),
        )


def test_a_right_drafter_saves_passes(monkeypatch):
    """Four of its tokens and one more come of each pass of the model."""
    model, _ = random_model("gpt2", {"max_position": 200, "vocab_size": 11})
    read, real = [], lookup.Reader.read
    monkeypatch.setattr(lookup.Reader, "read", lambda self, *a: read.append(type(self)) or real(self, *a))
    plain = model.generate_ids([[2, 3, 4]], max_new_tokens=21)
    np.testing.assert_array_equal(model.generate_ids([[2, 3, 4]], max_new_tokens=21, drafter=model), plain)
    assert read.count(lookup.Reader) == 4 and read.count(lookup.Drafter) == 16


def test_drafters_that_do_not_fit():
    model, _ = random_model("gpt2", {"max_position": 60})
    fitting, _ = random_model("gpt2", {"max_position": 20})
    encoder = random_model("bert", {})[0]
    vocabulary, _ = random_model("gpt2", {"max_position": 60, "vocab_size": 12})
    given = {"max_new_tokens": 30}
    for options, message in (
        ({"drafter": fitting}, "drafter: 2 tokens of prompt and 30 new ones"),
        ({"drafter": encoder}, "sees the whole text"),
        ({"drafter": vocabulary}, "a model of 12 tokens"),
        ({"drafter": model, "seed": 1}, "drafter is for greedy texts"),
        ({"drafter": model, "prompt_lookup": 2}, "give one of them"),
        ({"draft_tokens": 2}, "give drafter"),
        ({"drafter": model, "draft_tokens": 65}, "from 1 to 64"),
    ):
        with pytest.raises(GenerationError, match=message):
            model.generate_ids([[2, 3]], **given, **options)


def test_texts_and_stop_strings():
    model = bert4x.load(application="lm", num_hidden_layers=1)
    prompts = ["床前明月光，疑是地上霜。床前明月光，", "白日依山尽，黄河入海流。白日依山"]
    for options in ({}, {"stop": "。"}, {"max_new_tokens": 5}):
        options = {"max_new_tokens": 20} | options
        plain = model.generate(prompts, **options)
        assert model.generate(prompts, **options, prompt_lookup=6) == plain
        assert model.generate(prompts, **options, drafter=model) == plain


def test_what_drafts_do_not_go_with():
    model, _ = random_model("gpt2", {"max_position": 60})
    for options in ({"top_k": 3}, {"num_beams": 2}, {"repetition_penalty": 1.2}, {"forced_ids": {0: 3}}):
        with pytest.raises(GenerationError, match="prompt_lookup is for greedy texts"):
            model.generate_ids([[2, 3, 4]], prompt_lookup=4, max_new_tokens=4, **options)
    with pytest.raises(GenerationError, match="no text can be streamed"):
        next(bert4x.load(application="lm", num_hidden_layers=1).stream("床前", prompt_lookup=4))
    with pytest.raises(GenerationError, match="from 0 to 64"):
        model.generate_ids([[2]], prompt_lookup=65)
