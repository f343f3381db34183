"""What is forbidden is never written, however little is left; and forced places are reached."""

import itertools

import numpy as np
import pytest
from generation_models import EAGER, ON_PYTORCH, writer

import bert4x
from bert4x.errors import GenerationError
from bert4x.generation import continuations

VOCABULARY = 8
PROMPT = [[5, 6]]


@pytest.fixture(scope="module")
def lm():
    model = writer(num_hidden_layers=1, vocab_size=VOCABULARY, max_position=16)
    model.tokenizer = bert4x.Tokenizer(
        {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"床前明月"])}
    )
    return model


def allowing(*ids):
    return {"suppress_ids": [i for i in range(VOCABULARY) if i not in ids], "stop_ids": ()}


@pytest.mark.parametrize(("allowed", "length"), [((4, 6, 7), 1), ((6, 7), 2)])
def test_fewer_sequences_than_beams(lm, allowed, length):
    """All that there are, best first; the other rows are empty, and of no score."""
    ids, scores = lm.generate_ids(
        PROMPT, max_new_tokens=length, num_beams=5, num_return_sequences=5, return_scores=True, **allowing(*allowed)
    )
    count = len(allowed) ** length
    assert {tuple(row) for row in ids[:count].tolist()} == set(itertools.product(allowed, repeat=length))
    assert (ids[count:] == 0).all() and np.isneginf(scores[count:]).all()
    assert (np.diff(scores[:count]) <= 0).all() and np.isfinite(scores[:count]).all()
    (found,) = continuations(
        lm, ["前明"], max_new_tokens=length, num_beams=5, num_return_sequences=5, **allowing(*allowed)
    )
    assert len(found) == count and all(one.finish_reason == "length" for one in found)


@ON_PYTORCH
def test_no_sequence_at_all(lm):
    options = allowing(6) | {"no_repeat_ngram_size": 1, "max_new_tokens": 3}
    with pytest.raises(GenerationError, match="prompt 0 has no continuation"):
        lm.generate_ids(PROMPT, num_beams=2, **options)


@pytest.mark.parametrize("sampling", [{}, {"seed": 0}] if EAGER else [{}])
def test_a_text_ends_where_no_token_is_left(lm, sampling):
    options = allowing(4, 7) | {"no_repeat_ngram_size": 1, "max_new_tokens": 5} | sampling
    ids, scores = lm.generate_ids(PROMPT * 2, return_scores=True, pad_id=0, **options)
    assert [sorted(row) for row in ids.tolist()] == [[4, 7]] * 2 and np.isfinite(scores).all()
    (found,) = continuations(lm, ["前明"], **options)[0]
    assert found.finish_reason == "forbidden" and sorted(found.token_ids) == [4, 7] and len(found.text) == 2
    pieces = list(lm.stream("前明", **options))
    assert "".join(piece.text for piece in pieces) == found.text
    assert [piece.finish_reason for piece in pieces] == [None, None, "forbidden"] and pieces[-1].token_id == -1
    pieces = list(lm.stream("前明", sliding_window=True, **options))
    assert pieces[-1].finish_reason == "forbidden" or len(pieces) == 5


@pytest.mark.parametrize("beams", [1, 2] if EAGER else [1])
def test_a_text_does_not_end_before_its_forced_tokens(lm, beams):
    """But the last, given as -1, is one that the text may not reach."""
    stops = [i for i in range(VOCABULARY) if i != 7]
    options = {"max_new_tokens": 6, "num_beams": beams, "stop_ids": stops, "pad_id": 0}
    early = lm.generate_ids(PROMPT, forced_ids={0: 7, -1: 7}, **options)
    assert early[0, 0] == 7 and (beams > 1 or early.shape[1] < 6)
    ids = lm.generate_ids(PROMPT, forced_ids={0: 7, 4: 7}, **options)
    assert ids[0, :5].tolist() == [7] * 5


@ON_PYTORCH
def test_a_start_token_before_a_prompt(lm):
    """UER's GPT2 begin with [CLS]: it may be given by its id, or written."""
    options = {"max_new_tokens": 4, "stop_ids": ()}
    (written,) = continuations(lm, ["[CLS]床前"], **options)[0]
    (given,) = continuations(lm, ["床前"], start_id=2, **options)[0]
    assert given == written != continuations(lm, ["床前"], **options)[0][0]
    assert lm.generate_ids([[4, 5]], start_id=2, **options).tolist() == [written.token_ids]
    assert "".join(piece.text for piece in lm.stream("床前", start_id=2, **options)) == written.text
