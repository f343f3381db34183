"""Decoding: cached, streamed and batched give what whole texts give, on every family; nothing is compiled twice."""

import itertools

import numpy as np
import pytest
from generation_models import EAGER, FAMILIES, ON_PYTORCH, log_probability, log_softmax, logits_after, uncached, writer

import bert4x
from bert4x.generation.batch import bucket
from bert4x.generation.engine import engine_of

pytestmark = pytest.mark.compiled

NEW = 10
KINDS = [(family, application) for family in FAMILIES for application in ("lm", "unilm")]
KINDS = KINDS if EAGER else KINDS[1::4] + KINDS[2::4]  # each family once, lm and unilm twice
COMPILES = pytest.mark.skipif(EAGER, reason="PyTorch runs the functions as they are: nothing is compiled")


def prompts(seed=0, lengths=(7, 1, 5, 16, 2), vocabulary=61):
    random = np.random.default_rng(seed)
    return [random.integers(5, vocabulary, length).tolist() for length in lengths]


def padded(rows, pad, side):
    """Rows of one length, and which of their ids are real."""
    length = max(map(len, rows)) + 2
    ids, real = np.full((len(rows), length), pad, "int32"), np.zeros((len(rows), length), bool)
    for number, row in enumerate(rows):
        start = {"left": length - len(row), "right": 0, "both": (length - len(row)) // 2}[side]
        ids[number, start : start + len(row)], real[number, start : start + len(row)] = row, True
    return ids, real


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def model(request):
    return writer(*request.param)


def test_cached_equals_uncached(model):
    """Ragged lists, padding on either side told by an id or a mask, all in one batch: as each prompt alone, whole."""
    rows = prompts()
    expected, scores = zip(*(uncached(model, row, NEW) for row in rows), strict=True)
    assert len({tuple(ids) for ids in expected}) > 1
    ids, found = model.generate_ids(rows, max_new_tokens=NEW, return_scores=True)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(found, scores, rtol=0, atol=1e-4)
    for side in ("left", "right", "both"):
        array, real = padded(rows, 3, side)
        np.testing.assert_array_equal(model.generate_ids(array, padding_mask=real, max_new_tokens=NEW), expected)
        np.testing.assert_array_equal(model.generate_ids(array, pad_id=3, max_new_tokens=NEW), expected)
    for row, one in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(model.generate_ids([row], max_new_tokens=NEW), [one])


def test_streamed_equals_uncached(model):
    from bert4x.generation.batch import Prompt
    from bert4x.generation.options import GenerationOptions

    row = prompts()[0]
    expected, score = uncached(model, row, NEW)
    prompt = Prompt(np.array(row, "int32"), np.zeros(len(row), "int32"))
    tokens = list(engine_of(model).stream(prompt, GenerationOptions(max_new_tokens=NEW)))
    assert [token.id for token in tokens] == expected
    assert not any(token.is_stop for token in tokens)
    assert abs(sum(token.log_probability for token in tokens) - score) < 1e-4


def test_segments_of_the_prompt(model):
    """A UniLM may be given the beginning of its target; another model goes on in the last segment."""
    row, segments = [8, 9, 10, 11, 12], [0, 0, 0, 1, 1]
    expected, _ = uncached(model, row, NEW, segments)
    if (model.config.model, model.builder.application) != ("gpt2", "lm"):  # which knows no segments
        assert expected != uncached(model, row, NEW)[0]
    ids = model.generate_ids([row], segment_ids=[segments], max_new_tokens=NEW)
    np.testing.assert_array_equal(ids, [expected])


@pytest.fixture(scope="module")
def gpt2():
    return writer("gpt2")


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8] if EAGER else [1, 3])
def test_batches(gpt2, batch):
    """Rows that are added to make a power of 2 change nothing, and are not returned."""
    rows = prompts(1, [9, 1, 3, 14, 2, 2, 6, 11][:batch])
    ids, scores = gpt2.generate_ids(rows, max_new_tokens=NEW, return_scores=True)
    assert ids.shape == (batch, NEW) and scores.shape == (batch,)
    for row, found, score in zip(rows, ids, scores, strict=True):
        expected, total = uncached(gpt2, row, NEW)
        assert found.tolist() == expected and abs(score - total) < 1e-4


def test_stop_ids(gpt2):
    """Each row ends with its first stop token; after it comes padding, and nothing is added to its score."""
    rows = prompts(2, (4, 6, 3, 9, 2, 8))
    whole = gpt2.generate_ids(rows, max_new_tokens=NEW)
    first = int(whole[0, 0])
    stops = sorted({first, int(whole[1, 4]), int(whole[2, 7])})
    texts = [row[: np.argmax(np.isin(row, stops)) + 1] if np.isin(row, stops).any() else row for row in whole]
    lengths = [len(text) for text in texts]
    assert min(lengths) == 1 and len(set(lengths)) > 2
    for options, fill in (({"pad_id": 2}, 2), ({}, stops[0])):
        expected = np.full((len(rows), max(lengths)), fill)
        for row, text in zip(expected, texts, strict=True):
            row[: len(text)] = text
        ids, scores = gpt2.generate_ids(rows, max_new_tokens=NEW, stop_ids=stops, return_scores=True, **options)
        np.testing.assert_array_equal(ids, expected)
        totals = [log_probability(gpt2, row, text.tolist()) for row, text in zip(rows, texts, strict=True)]
        np.testing.assert_allclose(scores, totals, rtol=0, atol=1e-4)
    assert gpt2.generate_ids(rows[:1], max_new_tokens=NEW, stop_ids=first).tolist() == [[first]]  # no wider than needed
    assert gpt2.generate_ids(rows[:1], max_new_tokens=1).tolist() == [[first]]


# Compiling.


@COMPILES
def test_nothing_is_compiled_twice():
    """Other lengths in the same bucket, other values of every option: the functions are those that are there."""
    model = writer("gpt2", num_hidden_layers=1)
    engine = engine_of(model)
    base = {"max_new_tokens": 9, "temperature": 0.7, "top_p": 0.9, "seed": 1, "stop_ids": [3]}
    model.generate_ids(prompts(0, (5, 3)), **base)
    assert engine.traces == 2  # one reads the prompts, one goes on
    outputs = set()
    for changes in (
        {"max_new_tokens": 16},
        {"max_new_tokens": 1},
        {"temperature": 2.5},
        {"top_p": 0.3},
        {"seed": 9},
        {"stop_ids": [4]},
        {"pad_id": 0},
    ):
        outputs.add(model.generate_ids(prompts(0, (5, 3)), **base | changes).tobytes())
    assert len(outputs) > 4  # the values do matter
    for lengths in ((1, 1), (16, 2), (7,), (4, 4)):
        model.generate_ids(prompts(0, lengths) if len(lengths) > 1 else prompts(0, lengths * 2), **base)
    assert engine.traces == 2
    model.generate_ids(prompts(0, (17, 3)), **base)  # the next bucket
    assert engine.traces == 4
    assert engine_of(model) is engine


@COMPILES
def test_rules_are_given_as_tensors():
    model = writer("gpt2", num_hidden_layers=1)
    engine = engine_of(model)
    rows = prompts(0, (5, 3))
    options = {"max_new_tokens": 9, "repetition_penalty": 1.5, "suppress_ids": [7], "forced_ids": {1: 8}}
    options |= {"stop_ids": [3], "min_new_tokens": 2}
    first = model.generate_ids(rows, **options)
    assert engine.traces == 2
    assert (first[:, 1] == 8).all() and 7 not in first
    changed = {"repetition_penalty": 3.0, "suppress_ids": [8, 9, 10], "forced_ids": {0: 11, 2: 12}, "min_new_tokens": 4}
    second = model.generate_ids(rows, **options | changed)
    assert (second[:, 0] == 11).all() and (second[:, 2] == 12).all() and not np.isin(second, [8, 9, 10]).any()
    assert engine.traces == 2


@COMPILES
def test_beams_are_given_as_tensors():
    model = writer("gpt2", num_hidden_layers=1)
    engine = engine_of(model)
    for lengths, most, penalty in (((5, 3), 9, 1.0), ((2, 16), 16, -0.5), ((1, 1), 2, 0.0)):
        options = {"max_new_tokens": most, "length_penalty": penalty, "num_return_sequences": 2}
        model.generate_ids(prompts(0, lengths), num_beams=3, stop_ids=[3], **options)
        assert engine.traces == 2


def test_buckets():
    """No bucket is more than half again as large as what it holds, beyond the smallest."""
    sizes = [bucket(size) for size in range(1, 3000)]
    assert all(bucket >= size for size, bucket in enumerate(sizes, start=1))
    assert all(bucket < 1.5 * size for size, bucket in enumerate(sizes, start=1) if size > 16)
    assert len(set(sizes)) < 18


@COMPILES
def test_streams_compile_once():
    model = writer("gpt2", num_hidden_layers=1)
    from bert4x.generation.batch import Prompt
    from bert4x.generation.options import GenerationOptions

    engine = engine_of(model)
    for number, (length, most) in enumerate(((5, 9), (16, 3), (1, 16))):
        prompt = Prompt(np.arange(5, 5 + length, dtype="int32"), np.zeros(length, "int32"))
        assert len(list(engine.stream(prompt, GenerationOptions(max_new_tokens=most)))) == most
        assert engine.traces == 2, number


@COMPILES
def test_a_stream_has_compiled_everything_before_its_first_token():
    """Otherwise the second one would come seconds after it."""
    from bert4x.generation.batch import Prompt
    from bert4x.generation.options import GenerationOptions

    engine = engine_of(writer("gpt2", num_hidden_layers=1))
    prompt = Prompt(np.arange(5, 10, dtype="int32"), np.zeros(5, "int32"))
    stream = engine.stream(prompt, GenerationOptions(max_new_tokens=5))
    first = next(stream)
    assert engine.traces == 2
    rest = list(stream)
    assert engine.traces == 2
    whole = engine.decode([prompt], GenerationOptions(max_new_tokens=5))
    assert [first.id, *(token.id for token in rest)] == whole.ids[0].tolist()


# Beam search against every sequence there is.


def every_sequence(model, prompt, most, stops, penalty):
    """All ended sequences of at most so many tokens, with their scores, best first."""
    vocabulary, found = model.config.vocab_size, []

    def extend(ids, total):
        logs = log_softmax(logits_after(model, [*prompt, *ids], [0] * (len(prompt) + len(ids))))
        for token in range(vocabulary):
            longer, score = (*ids, token), total + logs[token]
            if token in stops or len(longer) == most:
                found.append((score / len(longer) ** penalty, longer))
            else:
                extend(longer, score)

    extend((), 0.0)
    return sorted(found, reverse=True)


@pytest.mark.parametrize(("vocabulary", "most"), [(2, 4), (3, 3)] if EAGER else [(2, 4)])
def test_beams_wide_enough_find_the_best(vocabulary, most):
    """As many beams as there can be prefixes lose none, so the ranking is that of all sequences."""
    model = writer("gpt2", num_hidden_layers=1, vocab_size=vocabulary, max_position=16)
    for seed, penalty in itertools.product(range(2), (0.0, 1.0, -1.0)):
        weights = writer("gpt2", num_hidden_layers=1, vocab_size=vocabulary, max_position=16, seed=seed).get_weights()
        model.set_weights(weights)
        for stops in ([1],):
            expected = every_sequence(model, [0, 1, 0], most, stops, penalty)
            options = {"num_beams": vocabulary**most, "length_penalty": penalty, "early_stopping": "never"}
            options |= {"stop_ids": stops, "num_return_sequences": min(len(expected), vocabulary**most)}
            ids, scores = model.generate_ids([[0, 1, 0]], max_new_tokens=most, return_scores=True, **options)
            np.testing.assert_allclose(scores, [score for score, _ in expected], rtol=0, atol=1e-4)
            padded = [[*sequence, *[1] * (most - len(sequence))] for _, sequence in expected]
            np.testing.assert_array_equal(ids, padded)


def test_beams_of_one_batch_are_those_of_each_prompt(gpt2):
    rows = prompts(3, (9, 1))
    options = {"max_new_tokens": NEW, "num_beams": 3, "stop_ids": [9, 20], "num_return_sequences": 3, "pad_id": 0}
    ids, scores = gpt2.generate_ids(rows, return_scores=True, **options)
    assert ids.shape[0] == 6
    for number, row in enumerate(rows):
        alone, score = gpt2.generate_ids([row], return_scores=True, **options)
        together = ids[3 * number : 3 * number + 3]
        np.testing.assert_array_equal(together[:, : alone.shape[1]], alone)
        assert (together[:, alone.shape[1] :] == 0).all()
        np.testing.assert_allclose(scores[3 * number : 3 * number + 3], score, atol=1e-5)
        assert (np.diff(score) <= 0).all()


@pytest.mark.parametrize("family", ["bert", "albert"] if EAGER else ["bert"])
def test_scores_of_beams(family):
    """On UniLMs: the scores are the log-probabilities of what is returned, by one pass over the whole text."""
    model = writer(family, "unilm")
    row = prompts()[0]
    ids, scores = model.generate_ids(
        [row], max_new_tokens=NEW, num_beams=4, num_return_sequences=4, length_penalty=0.6, return_scores=True
    )
    assert len({found.tobytes() for found in ids}) == 4
    for found, score in zip(ids, scores, strict=True):
        assert abs(score - log_probability(model, row, found.tolist()) / NEW**0.6) < 1e-4


# The window.


def test_sliding_window_is_stepping_by_hand():
    """When the positions are used up, the model goes on from the last half of what it saw."""
    model = writer("gpt2", num_hidden_layers=1, max_position=12)
    for prompt in (list(range(5, 11)), list(range(5, 17)), list(range(5, 40))):
        seen, new = list(prompt), []
        while len(new) < 20:
            seen = seen[-6:] if len(seen) >= 12 else seen
            (token,), _ = uncached(model, seen, 1)
            new.append(token)
            seen.append(token)
        ids = model.generate_ids([prompt], max_new_tokens=20, sliding_window=True)
        assert ids.tolist() == [new]
    both = model.generate_ids([prompt, prompt[:3]], max_new_tokens=20, sliding_window=True)
    assert both[0].tolist() == new
    fits = model.generate_ids([[5, 6, 7]], max_new_tokens=9, sliding_window=True)
    np.testing.assert_array_equal(fits, model.generate_ids([[5, 6, 7]], max_new_tokens=9))


@ON_PYTORCH
def test_sliding_window_samples_as_its_seed_says():
    model = writer("gpt2", num_hidden_layers=1, max_position=12)
    options = {"sliding_window": True, "seed": 4, "temperature": 1.2}
    first = model.generate_ids([[5, 6, 7]], max_new_tokens=20, num_return_sequences=2, **options)
    again = model.generate_ids([[8] * 30, [5, 6, 7]], max_new_tokens=20, **options)
    np.testing.assert_array_equal(again[1], first[0])
    assert (first[0] != first[1]).any()
    short = model.generate_ids([[5, 6, 7]], max_new_tokens=9, **options)
    np.testing.assert_array_equal(first[:1, :9], short)


# Models as they are made, saved and changed.


def test_saved_and_loaded(gpt2, tmp_path):
    gpt2.save(tmp_path / "model.keras")
    loaded = bert4x.load(tmp_path / "model.keras")
    rows = prompts()
    np.testing.assert_array_equal(
        loaded.generate_ids(rows, max_new_tokens=NEW), gpt2.generate_ids(rows, max_new_tokens=NEW)
    )


def test_probabilities_as_outputs(gpt2):
    """bert4keras' builder makes models that end in a softmax; they write the same."""
    sizes = {name: value for name, value in gpt2.config.to_dict().items() if name not in ("model", "extra")}
    built = bert4x.build_transformer_model(model="gpt2", application="lm", **sizes)
    built.set_weights(gpt2.get_weights())
    ids, scores = gpt2.generate_ids(prompts(), max_new_tokens=NEW, return_scores=True)
    found, total = built.generate_ids(prompts(), max_new_tokens=NEW, return_scores=True)
    np.testing.assert_array_equal(found, ids)
    np.testing.assert_allclose(total, scores, atol=1e-4)


def test_new_weights_are_seen():
    model, other = (writer("gpt2", num_hidden_layers=1, seed=seed) for seed in (0, 1))
    row = prompts()[:1]
    before = model.generate_ids(row, max_new_tokens=NEW)
    model.set_weights(other.get_weights())
    after = model.generate_ids(row, max_new_tokens=NEW)
    assert (before != after).any()
    np.testing.assert_array_equal(after, [uncached(model, row[0], NEW)[0]])


def test_new_variables_make_a_new_engine():
    """LoRA adds variables to a layer: what was compiled without them is of no use."""
    model = writer("gpt2", num_hidden_layers=1)
    row = prompts()[:1]
    before, engine = model.generate_ids(row, max_new_tokens=NEW), engine_of(model)
    layer = model.get_layer("Embedding-Token")
    layer.enable_lora(2)
    np.testing.assert_array_equal(model.generate_ids(row, max_new_tokens=NEW), before)  # LoRA starts at zero
    assert engine_of(model) is not engine
    layer.lora_embeddings_b.assign(np.random.default_rng(0).standard_normal(layer.lora_embeddings_b.shape))
    after = model.generate_ids(row, max_new_tokens=NEW)
    np.testing.assert_array_equal(after, [uncached(model, row[0], NEW)[0]])


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16", "mixed_float16"] if EAGER else ["mixed_bfloat16"])
def test_precision_policies(gpt2, policy):
    """They run; the first tokens of prompts whose best token is clearly best are those of float32."""
    model = writer("gpt2", policy=policy)
    rows = prompts(4, (7, 3, 5, 9, 2, 4, 6, 8))
    ids, scores = model.generate_ids(rows, max_new_tokens=NEW, return_scores=True)
    assert np.isfinite(scores).all() and ids.shape == (8, NEW)
    expected, totals = gpt2.generate_ids(rows, max_new_tokens=NEW, return_scores=True)
    clear = [np.ptp(np.sort(logits_after(gpt2, row, [0] * len(row)))[-2:]) > 0.5 for row in rows]
    assert sum(clear) > 3
    np.testing.assert_array_equal(ids[clear, 0], expected[clear, 0])
    assert (ids == expected).mean() > 0.5
    same = (ids == expected).all(axis=1)
    assert np.abs(scores - totals)[same].max() < 1.5
