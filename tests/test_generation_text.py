"""Text in and text out: stop strings, pieces of a stream, scores of choices."""

import numpy as np
import pytest
from battery import array
from conftest import VOCABULARY, write_tiny
from generation_models import ON_PYTORCH, log_probability, uncached

import bert4x
from bert4x.generation.batch import Prompt
from bert4x.generation.engine import engine_of
from bert4x.generation.options import GenerationOptions

PROMPT = "床前明月光"
SEP = VOCABULARY.index("[SEP]")
SPECIALS = range(5)
NEW = 20
COMPILED = pytest.mark.compiled  # what decodes more tokens than compiling is worth


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("writer") / "bert", num_hidden_layers=1, max_position=64)


@pytest.fixture(scope="module")
def lm(folder):
    return bert4x.load(folder, "lm")


@pytest.fixture(scope="module")
def unilm(folder):
    return bert4x.load(folder, "unilm")


def samples(model, count=12, **options):
    """Texts of some seeds, none of them ended."""
    options = {"max_new_tokens": NEW, "temperature": 1.5, "suppress_ids": SPECIALS} | options
    return [model.generate(PROMPT, seed=seed, **options) for seed in range(count)]


def streamed(model, prompt=PROMPT, **options):
    """The pieces of a stream, of which only the last says why it ended."""
    pieces = list(model.stream(prompt, **options))
    assert all(piece.finish_reason is None for piece in pieces[:-1])
    assert all(piece.tokens_per_second > 0 for piece in pieces)
    return pieces


def text_of(pieces):
    return "".join(piece.text for piece in pieces)


@COMPILED
def test_generate_is_generate_ids_decoded(lm, unilm):
    for model, end in ((lm, []), (unilm, [SEP])):
        ids = model.tokenizer.encode(PROMPT)[0][:-1] + end
        expected, _ = uncached(model, ids, NEW)
        expected = expected[: expected.index(SEP)] if SEP in expected else expected
        assert model.generate(PROMPT, max_new_tokens=NEW) == model.tokenizer.decode(expected)
        assert model.generate([PROMPT], max_new_tokens=NEW) == [model.tokenizer.decode(expected)]


@ON_PYTORCH
def test_shapes_of_answers(lm):
    prompts = [PROMPT, "天气", "a"]
    one = lm.generate(prompts, max_new_tokens=NEW, seed=0)
    several = lm.generate(prompts, max_new_tokens=NEW, seed=0, num_return_sequences=2)
    assert [len(texts) for texts in several] == [2, 2, 2] and [texts[0] for texts in several] == one
    assert lm.generate(PROMPT, max_new_tokens=NEW, seed=0, num_return_sequences=2) == several[0]
    assert lm.generate([]) == []
    best = lm.generate(prompts, max_new_tokens=6, num_beams=3)
    all_beams = lm.generate(prompts, max_new_tokens=6, num_beams=3, num_return_sequences=3)
    assert [texts[0] for texts in all_beams] == best
    assert lm.generate("a", max_new_tokens=6, num_beams=3, num_return_sequences=3) == all_beams[2]


@COMPILED
def test_stop_strings(lm):
    """Those within a token, over several, in the middle of words, one of several, and one that never comes."""
    spanning = 0
    options = {"max_new_tokens": NEW, "temperature": 1.5, "suppress_ids": SPECIALS}
    for seed, text in enumerate(samples(lm, 5)):
        for start, length in ((0, 1), (1, 4), (len(text) // 2, 2), (len(text) - 2, 2)):
            stop = text[start : start + length]
            expected = text[: text.index(stop)]
            assert lm.generate(PROMPT, seed=seed, stop=[stop, "不会来"], **options) == expected
            pieces = streamed(lm, seed=seed, stop=stop, **options)
            assert text_of(pieces) == expected and pieces[-1].finish_reason == "stop"
            spanning += len(lm.tokenizer.tokenize(stop)) > 3  # [CLS] and [SEP] are two
    pieces = streamed(lm, seed=seed, stop="不会来", **options)
    assert text_of(pieces) == text == lm.generate(PROMPT, seed=seed, stop="不会来", **options)
    assert len(pieces) == NEW and pieces[-1].finish_reason == "length"
    assert spanning > 5


@COMPILED
def test_stop_strings_of_a_batch(lm):
    """Every row ends at its own place; what it wrote behind that is not seen."""
    prompts = [PROMPT, "天气很好", "a", "公园", "b"]
    options = {"max_new_tokens": NEW, "temperature": 1.5, "suppress_ids": SPECIALS, "seed": 3}
    whole = lm.generate(prompts, **options)
    stops = [whole[0][3:5], whole[1][1], whole[2][8:10]]
    expected = [text[: min((text.index(stop) for stop in stops if stop in text), default=None)] for text in whole]
    assert lm.generate(prompts, stop=stops, **options) == expected
    assert len({len(text) for text in expected}) > 2


@COMPILED
@pytest.mark.parametrize("application", ["lm", "unilm"])
def test_streams(lm, unilm, application):
    """Token by token what `generate` gives at once, with the log-probabilities of a pass over the whole text."""
    model = lm if application == "lm" else unilm
    prompt = model.tokenizer.encode(PROMPT)[0][: None if application == "unilm" else -1]
    reasons, stops = set(), [SEP, 20, 21, 22]
    for seed in range(6):
        options = {"max_new_tokens": NEW, "temperature": 1.5, "stop_ids": stops, "seed": seed}
        pieces = streamed(model, **options)
        ids = [piece.token_id for piece in pieces]
        assert text_of(pieces) == model.generate(PROMPT, **options)
        expected = model.generate_ids([prompt], **options)[0]
        assert ids == expected.tolist()
        assert pieces[-1].finish_reason == ("stop" if ids[-1] in stops else "length")
        reasons.add(pieces[-1].finish_reason)
        total = sum(piece.log_probability for piece in pieces)
        assert abs(total - log_probability(model, prompt, ids)) < 1e-4
    assert reasons == {"stop", "length"}


@ON_PYTORCH
def test_stop_tokens_by_name(lm):
    ids = lm.generate_ids([lm.tokenizer.encode(PROMPT)[0][:-1]], max_new_tokens=NEW, suppress_ids=SPECIALS)[0]
    options = {"max_new_tokens": NEW, "suppress_ids": SPECIALS}
    token = VOCABULARY[ids[5]]
    first = ids.tolist().index(ids[5])
    expected = lm.tokenizer.decode(ids[:first])
    for stop_ids in (token, [token], ids[5], [int(ids[5]), "[SEP]"]):
        assert lm.generate(PROMPT, stop_ids=stop_ids, **options) == expected
    assert lm.generate(PROMPT, stop_ids=(), **options) == lm.tokenizer.decode(ids)


def test_one_token(lm):
    options = {"max_new_tokens": 1, "suppress_ids": SPECIALS}
    (piece,) = streamed(lm, **options)
    assert piece.text == lm.generate(PROMPT, **options) != ""
    assert piece.finish_reason == "length"
    options["max_new_tokens"] = NEW
    stopped = streamed(lm, stop_ids=[piece.token_id], **options)
    assert [(p.text, p.finish_reason) for p in stopped] == [("", "stop")]
    assert lm.generate(PROMPT, stop_ids=[piece.token_id], **options) == ""
    assert lm.generate(PROMPT, stop=piece.text, **options) == ""


@COMPILED
def test_a_stream_that_is_left(lm):
    """Closed, forgotten, or side by side with others: the model goes on as if nothing had been."""
    expected = lm.generate(PROMPT, max_new_tokens=NEW, suppress_ids=SPECIALS)
    stream = lm.stream(PROMPT, max_new_tokens=NEW, suppress_ids=SPECIALS)
    begun = next(stream).text + next(stream).text
    stream.close()
    with pytest.raises(KeyboardInterrupt):
        for _ in lm.stream(PROMPT, max_new_tokens=NEW):
            raise KeyboardInterrupt
    assert lm.generate(PROMPT, max_new_tokens=NEW, suppress_ids=SPECIALS) == expected
    first, second = (lm.stream(PROMPT, max_new_tokens=NEW, suppress_ids=SPECIALS) for _ in range(2))
    pairs = list(zip(first, second, strict=True))
    assert text_of(a for a, _ in pairs) == text_of(b for _, b in pairs) == expected
    assert expected.startswith(begun)


# Scores of choices.

CHOICES = ["好", "月光", "a b c", "举头望明月，低思故乡。", "好", "x"]


@pytest.mark.parametrize("application", ["lm", "unilm"])
def test_scores(lm, unilm, application):
    model = lm if application == "lm" else unilm
    prompts = [PROMPT, "天", "今天天气很好我们去公园散步吧，", "举头", "故乡"]
    found = model.score(prompts, CHOICES)
    assert found.shape == (5, len(CHOICES)) and found.dtype == np.float32
    mean = model.score(prompts, CHOICES, normalize=True)
    for i, prompt in enumerate(prompts):
        ids = model.tokenizer.encode(prompt)[0][: None if application == "unilm" else -1]
        for j, choice in enumerate(CHOICES):
            answer = model.tokenizer.encode(choice)[0][1:-1]
            expected = log_probability(model, ids, answer)
            assert abs(found[i, j] - expected) < 1e-4
            assert abs(mean[i, j] - expected / len(answer)) < 1e-4
    np.testing.assert_allclose(model.score(PROMPT, CHOICES), found[0], atol=1e-5)
    np.testing.assert_allclose(model.score(PROMPT, CHOICES[3:4]), found[0, 3:4], atol=1e-5)
    assert model.score([], CHOICES).shape == (0, len(CHOICES))


@ON_PYTORCH
def test_scores_of_many(lm):
    """More prompts than are computed at once."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    prompts = [a + b for a in letters[:6] for b in letters]
    found = lm.score(prompts, ["好", "天气"])
    assert found.shape == (156, 2)
    for i in (0, 31, 32, 155):
        np.testing.assert_allclose(found[i], lm.score(prompts[i], ["好", "天气"]), atol=1e-5)


@ON_PYTORCH
def test_the_scores_of_all_next_tokens_sum_to_one(lm):
    ids, size = lm.tokenizer.encode(PROMPT)[0][:-1], len(VOCABULARY)
    scores = [
        lm.generate_ids([ids], max_new_tokens=1, forced_ids={0: i}, return_scores=True)[1][0] for i in range(size)
    ]
    assert abs(np.exp(scores).sum() - 1) < 1e-5
    np.testing.assert_allclose(scores[:5], [log_probability(lm, ids, [token]) for token in range(5)], atol=1e-4)


def test_rows_of_nothing_but_padding_are_finite(lm):
    """Such rows fill up a batch to a power of 2, and a model may be given them."""
    engine = engine_of(lm)
    prompts = [Prompt(np.array(ids, "int32"), np.zeros(len(ids), "int32")) for ids in ([7, 8], [9], [10, 11, 12])]
    search, inputs, given, rows = engine.prepare(prompts, GenerationOptions(max_new_tokens=4))
    assert rows == 3 and inputs["token_ids"].shape[0] == 4
    state = engine.functions(search)[0](inputs, given)
    state = engine.functions(search)[1](state, given, engine.scalar(4))
    assert all(np.isfinite(array(x)).all() for layer in state.cache.layers for x in layer)
    assert np.isfinite(array(state.log_probabilities)).all()
    nothing = {"token_ids": np.zeros((2, 5), "int32"), "padding_mask": np.zeros((2, 5), bool)}
    assert np.isfinite(array(lm(nothing))).all()
