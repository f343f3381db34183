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
    config = {"num_hidden_layers": 2, "max_position": 200, "vocab_size": 11}
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


def test_texts_and_stop_strings():
    model = bert4x.load(application="lm", num_hidden_layers=1)
    prompts = ["床前明月光，疑是地上霜。床前明月光，", "白日依山尽，黄河入海流。白日依山"]
    for options in ({}, {"stop": "。"}, {"max_new_tokens": 5}):
        assert model.generate(prompts, **options, prompt_lookup=6) == model.generate(prompts, **options)


def test_what_drafts_do_not_go_with():
    model, _ = random_model("gpt2", {"max_position": 60})
    for options in ({"top_k": 3}, {"num_beams": 2}, {"repetition_penalty": 1.2}, {"forced_ids": {0: 3}}):
        with pytest.raises(GenerationError, match="prompt_lookup is for greedy texts"):
            model.generate_ids([[2, 3, 4]], prompt_lookup=4, max_new_tokens=4, **options)
    with pytest.raises(GenerationError, match="no text can be streamed"):
        next(bert4x.load(application="lm", num_hidden_layers=1).stream("床前", prompt_lookup=4))
    with pytest.raises(GenerationError, match="from 0 to 64"):
        model.generate_ids([[2]], prompt_lookup=65)
