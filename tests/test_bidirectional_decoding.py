"""Synchronous bidirectional decoding against a search in plain Python.

With one beam for each direction, every step is computed anew, without a cache. With more, beams change partners as they
are reordered, and what they have read keeps what it saw of the old ones: as published, and in the oracle, whose caches
are reordered by NumPy.
"""

import numpy as np
import pytest
from keras import ops

import bert4x
from bert4x.errors import GenerationError
from bert4x.generation.batch import read_prompts
from bert4x.generation.bidirectional import BidirectionalDecoder
from bert4x.generation.options import read_options
from bert4x.models.build import build_transformer_model
from bert4x.models.cache import new_cache
from tests.random_models import tiny_config

L2R, R2L, STOP = 3, 4, 2
STEPS, PENALTY = 6, 0.6
SEEDS = {"bert": 4, "transformer": 3}  # of models of which some sequences end early, from both sides
SOURCES = [[1, 6, 7, 8], [1, 9, 5, 10, 11, 7, 2], [1, 12]]


def model_of(family, seed, **options):
    """A random model of few tokens, the same on every backend, peaked enough that some sequences end early."""
    config = tiny_config(family if family != "transformer" else "bert", vocab_size=13, num_hidden_layers=2)
    if family == "transformer":
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        config = {name: config[name] for name in (*sizes, "max_position", "pad_token_id")}
    application = "seq2seq" if family == "transformer" else "unilm"
    model = build_transformer_model(config, model=family, application=application, with_mlm="linear", **options)
    random = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.path.endswith(("kernel", "embeddings")):
            variable.assign(0.35 * random.standard_normal(variable.shape))
    return model


class Anew:
    """Computes every step from the whole sequences: row i of one direction beside row i of the other."""

    def __init__(self, model, source, rows):
        self.model, self.source = model, source
        self.written = [[L2R]] * (rows // 2) + [[R2L]] * (rows // 2)

    def __call__(self, parents=None, tokens=None):
        """Log-probabilities of the next tokens, (R, V), after row r is row parents[r] and tokens[r]."""
        if parents is not None:
            self.written = [[*self.written[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        return normalized(ops.convert_to_numpy(self.model(inputs_of(self.model, self.source, self.written)))[:, -1])


class WithCache(Anew):
    """Computes the last tokens only; NumPy moves the rows of the cache."""

    def __init__(self, model, source, rows):
        super().__init__(model, source, rows)
        length = len(source) + 1 + STEPS
        self.cache, self.index = new_cache(model.builder.config, rows, length, "float32"), 0

    def __call__(self, parents=None, tokens=None):
        inputs = inputs_of(self.model, self.source, self.written)
        if parents is not None:
            self.cache = moved(self.cache, np.array(parents))
            target = np.array(tokens, "int32")[:, None]
            seq2seq = self.model.builder.application == "seq2seq"
            inputs = {"target_ids": target} if seq2seq else {"token_ids": target, "segment_ids": np.ones_like(target)}
        inputs = {name: ops.convert_to_tensor(np.asarray(values, "int32")) for name, values in inputs.items()}
        logits, self.cache = self.model.builder.forward(inputs, self.cache, self.index)
        self.index += next(reversed(inputs.values())).shape[1]
        return normalized(ops.convert_to_numpy(logits)[:, -1])


def moved(values, rows):
    """All arrays of a cache with other rows."""
    if isinstance(values, tuple):
        return (
            type(values)(*(moved(v, rows) for v in values))
            if hasattr(values, "_fields")
            else tuple(moved(v, rows) for v in values)
        )
    return ops.convert_to_tensor(ops.convert_to_numpy(values)[rows])


def inputs_of(model, source, written):
    """The model's inputs for targets of one source."""
    if model.builder.application == "seq2seq":
        return {"token_ids": np.array([source] * len(written)), "target_ids": np.array(written)}
    ids = np.array([[*source, *row] for row in written])
    return {"token_ids": ids, "segment_ids": (np.arange(ids.shape[1]) >= len(source)) * np.ones_like(ids)}


def normalized(logits):
    logits = logits.astype("float64")
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def penalty(length):
    return ((5 + length) / 6) ** PENALTY


def search(model, source, k, stepper):
    """Both directions: what ended, best first, as (score, direction, ids in reading order)."""
    compute = stepper(model, source, 2 * k)
    running = [[(0.0, [])] + [(-1e9, [])] * (k - 1) for _ in range(2)]
    pools, open_, parents, tokens = [[], []], [True, True], None, None
    for length in range(1, STEPS + 1):
        scores = compute(parents, tokens)
        parents, tokens = [], []
        for half in range(2):
            rows = scores[half * k : (half + 1) * k]
            found = [
                (total + rows[beam, token], [*ids, token], half * k + beam)
                for beam, (total, ids) in enumerate(running[half])
                for token in range(1, rows.shape[1])  # 0 is padding
            ]
            found.sort(key=lambda item: -item[0])
            ends = [ids[-1] == STOP or length == STEPS for _, ids, _ in found[: 2 * k]]
            if open_[half]:
                new = [(found[i][0] / penalty(length), half, found[i][1]) for i in range(k) if ends[i]]
                pools[half] = sorted(pools[half] + new, key=lambda item: -item[0])[:k]
            going_on = [item for item, end in zip(found, ends, strict=False) if not end][:k]
            running[half] = [(total, ids) for total, ids, _ in going_on]
            parents += [parent for _, _, parent in going_on]
            tokens += [ids[-1] for _, ids, _ in going_on]
        shared = sorted(pools[0] + pools[1], key=lambda item: -item[0])[:k]
        for half in range(2):
            best = running[half][0][0] / penalty(length) if running[half] else -np.inf
            open_[half] = open_[half] and (len(shared) < k or best > shared[-1][0])
        if not any(open_) or length == STEPS:
            break
    ended = sorted(pools[0] + pools[1], key=lambda item: -item[0])
    return [(score, "r2l" if half else "l2r", ids[::-1] if half else ids) for score, half, ids in ended]


@pytest.mark.parametrize(("k", "stepper"), [(1, Anew), pytest.param(2, WithCache, marks=pytest.mark.compiled)])
@pytest.mark.parametrize("family", ["bert", "transformer"])
def test_equals_a_search_in_python(family, k, stepper):
    model = model_of(family, SEEDS[family], bidirectional=True)
    decoder = BidirectionalDecoder(model, l2r=L2R, r2l=R2L)
    options = {"max_new_tokens": STEPS, "stop_ids": [STOP], "suppress_ids": [0]}
    settings = decoder.settings(read_options(decoder.defaults(2 * k, options)))
    found = decoder.decode(read_prompts(SOURCES), settings, {})
    directions, ends = set(), set()
    for source, paths in zip(SOURCES, found, strict=True):
        expected = search(model, source, k, stepper)
        assert [path.direction for path in paths] == [direction for _, direction, _ in expected]
        for path, (score, direction, ids) in zip(paths, expected, strict=True):
            assert path.ids.tolist() == ids
            assert abs(path.score - score) < 1e-4
            assert abs(path.log_probabilities.sum() / ((5 + len(ids)) / 6) ** PENALTY - score) < 1e-4
            directions.add(direction)
            ends.add(len(ids) < STEPS)
    assert directions == {"l2r", "r2l"} and ends == {True, False}, "too easy: one direction, or one length"

    ids, scores = decoder.generate_ids(SOURCES, num_beams=2 * k, return_scores=True, **options)
    for row, score, paths in zip(ids, scores, found, strict=True):
        assert [token for token in row.tolist() if token] == [t for t in paths[0].ids.tolist() if t not in (0, STOP)]
        assert score == pytest.approx(paths[0].score, abs=1e-5)
    if k == 2:
        check_reranking(decoder, model_of(family, SEEDS[family]), found, settings, options)


def score_from_the_other_end(model, source, path):
    """The log-probability of a path's tokens for the direction that did not write it, from one pass without a cache."""
    ids = [token for token in path.ids.tolist() if token != STOP]
    ids = (ids[::-1] if path.direction == "l2r" else ids) + [STOP] * (STOP in path.ids)
    marker = R2L if path.direction == "l2r" else L2R
    scores = normalized(ops.convert_to_numpy(model(inputs_of(model, source, [[marker, *ids]])))[0])
    return scores[-len(ids) - 1 : -1][np.arange(len(ids)), ids].sum()


def check_reranking(decoder, alone, found, settings, options):
    """Reranked paths have the mean of both directions' scores, and are in its order."""
    reranked = decoder.decode(read_prompts(SOURCES), settings, {}, rerank=True)
    for source, paths, better in zip(SOURCES, found, reranked, strict=True):
        expected = {}
        for path in paths:
            both = path.log_probabilities.sum() + score_from_the_other_end(alone, source, path)
            expected[path.direction, *path.ids] = both / penalty(len(path.ids)) / 2
        assert [(path.direction, *path.ids) for path in better] == sorted(expected, key=lambda key: -expected[key])
        assert [path.score for path in better] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-4)
    written = [path.ids.tolist() for paths in found for path in paths]
    assert any(len(ids) == STEPS and ids != ids[::-1] for ids in written), "too easy: every sequence is a palindrome"
    ids = decoder.generate_ids(SOURCES, rerank=True, **options).tolist()
    best = [paths[0].ids.tolist() for paths in reranked]
    assert [[t for t in row if t] for row in ids] == [[t for t in row if t not in (0, STOP)] for row in best]


def test_text_and_bad_input():
    model = bert4x.load(application="unilm")
    decoder = BidirectionalDecoder(model)
    text = decoder.generate("床前明月光", max_new_tokens=6)
    both = decoder.generate(["床前明月光", "白日依山尽"], max_new_tokens=6, num_return_sequences=2)
    assert isinstance(text, str) and [len(texts) for texts in both] == [2, 2] and both[0][0] == text
    paths = decoder.paths("床前明月光", max_new_tokens=6)[0]
    assert {path.direction for path in paths} == {"l2r", "r2l"} and decoder.text(paths[0]) == text
    scores = [path.score for path in paths]
    assert scores == sorted(scores, reverse=True)
    assert decoder.generate("床前明月光", rerank=True, max_new_tokens=6) in {decoder.text(path) for path in paths}
    stops = [int(i) for i in paths[0].ids[:2]]
    shorter = decoder.generate("床前明月光", max_new_tokens=6, stop_ids=stops)
    assert not {model.tokenizer.id_to_token(i) for i in stops} & set(shorter)
    assert decoder.generate([]) == []
    with pytest.raises(GenerationError, match="BidirectionalDecoder"):
        bert4x.load(application="unilm", bidirectional=True).generate("床前")
    for options, message in (
        ({"num_beams": 3}, "even"),
        ({"num_return_sequences": 5}, "num_beams"),
        ({"top_p": 0.9}, "samples"),
        ({"stop": "。"}, "stop"),
        ({"max_new_tokens": 10_000}, "positions"),
    ):
        with pytest.raises(GenerationError, match=message):
            decoder.generate("床前", **options)
    with pytest.raises(GenerationError, match="different"):
        BidirectionalDecoder(model, l2r=3, r2l=3)
    with pytest.raises(GenerationError, match="target"):
        BidirectionalDecoder(bert4x.load(application="lm"))
