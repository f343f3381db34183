"""Greedy and beam search against `transformers.generate`: the same weights, the same ids, the same scores.

All settings are tried on PyTorch, where nothing is compiled (tests/test_generation_backends.py runs this file there);
on the other backends a few of each kind.
"""

import itertools

import numpy as np
import pytest
import transformers_models
from battery import build, variables_of
from generation_models import EAGER, ON_PYTORCH
from random_models import tiny_config
from reference.foreign import from_hf_gpt2

from bert4x.errors import GenerationError

pytestmark = pytest.mark.compiled

PAD, STOP, OTHER_STOPS = 3, 5, (7, 30)
PENALTIES = (0.0, 0.6, 1.0, 2.0, -1.0)
NAMES = {"suppress_ids": "suppress_tokens", "stop_ids": "eos_token_id"}


class Pair:
    """One model of ours and one of theirs, of the same sizes, and of the same weights after `draw`."""

    def __init__(self, **sizes):
        self.config = tiny_config("gpt2", max_position=48, **sizes)
        self.theirs = transformers_models.random_model(self.config)
        self.ours = build(self.config, self.weights(), "lm", with_mlm="linear")

    def weights(self):
        return from_hf_gpt2(transformers_models.tensors(self.theirs), self.config["num_hidden_layers"])

    def draw(self, seed, likely=(), by=0.0):
        """New random weights, with which the logits of some ids are higher by about so much."""
        state = transformers_models.random_model(self.config, seed).state_dict()
        direction = state["transformer.ln_f.bias"]
        for token in likely:
            state["transformer.wte.weight"][token] += by * direction / (direction**2).sum()
        self.theirs.load_state_dict(state)
        weights = self.weights()
        for path, variable in variables_of(self.ours).items():
            variable.assign(weights[path])

    def generate(self, rows, **options):
        """What theirs gives for rows of ids: lists up to the stop token, and scores."""
        import torch

        length = max(map(len, rows))
        ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        given = {NAMES.get(name, name): value for name, value in options.items()}
        forced = given.pop("forced_ids", {})
        given |= {f"forced_{'bos' if at == 0 else 'eos'}_token_id": token for at, token in forced.items()}
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        with torch.no_grad():
            whole = self.theirs.generate(
                ids,
                attention_mask=mask,
                pad_token_id=PAD,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                output_logits=True,
                **given,
            )
        texts = [cut(row, options["stop_ids"]) for row in whole.sequences[:, length:].numpy()]
        if options.get("num_beams", 1) > 1:
            return texts, whole.sequences_scores.numpy()
        logs = torch.log_softmax(torch.stack(whole.logits, 1), -1).numpy()
        return texts, np.array(
            [sum(log[t, i] for t, i in enumerate(ids)) for log, ids in zip(logs, texts, strict=True)]
        )

    def check(self, rows, **options):
        """Ours against theirs; returns the lists of new ids."""
        expected, scores = self.generate(rows, **options)
        ids, found = self.ours.generate_ids(rows, return_scores=True, pad_id=PAD, **options)
        assert ids.dtype == np.int32 and ids.shape == (len(expected), max(map(len, expected)))
        texts = [cut(row, options["stop_ids"]) for row in ids]
        assert texts == expected
        np.testing.assert_allclose(found, scores, rtol=0, atol=1e-4)
        assert all((row[len(text) :] == PAD).all() for row, text in zip(ids, texts, strict=True))
        return texts


def cut(row, stops):
    """The ids up to and with the first stop token."""
    ends = np.flatnonzero(np.isin(row, stops))
    return row[: ends[0] + 1].tolist() if len(ends) else row.tolist()


def prompts(seed, lengths=(9, 1, 4, 7, 2)):
    """Rows of ids that are neither padding nor stops."""
    random = np.random.default_rng(seed)
    return [random.integers(8, 29, length).tolist() for length in lengths]


@pytest.fixture(scope="module")
def pair():
    return Pair(vocab_size=31, num_hidden_layers=2, num_attention_heads=3)


def ends(texts, most):
    """How many ended before the limit, and how many lengths there are."""
    lengths = [len(text) for text in texts]
    return sum(length < most for length in lengths), len(set(lengths))


def test_greedy(pair):
    texts = []
    for seed in range(8):
        pair.draw(seed, [STOP], by=2)
        texts += pair.check(prompts(seed), max_new_tokens=14, stop_ids=(STOP,))
    early, lengths = ends(texts, 14)
    assert 0.2 * len(texts) < early < len(texts) and lengths > 5  # or the test would prove little


def searches():
    """(width, early_stopping): all on PyTorch; elsewhere each is compiled, so each width once."""
    if EAGER:
        return list(itertools.product((2, 3, 4, 5), (False, True, "never")))
    return [(2, "never"), (3, True), (4, False)]


@pytest.mark.parametrize(("beams", "early_stopping"), searches())
def test_beams(pair, beams, early_stopping):
    texts = []
    for seed, penalty in enumerate(PENALTIES):
        pair.draw(seed, [STOP], by=2)
        settings = {"num_beams": beams, "early_stopping": early_stopping, "length_penalty": penalty}
        texts += pair.check(prompts(seed), max_new_tokens=14, stop_ids=(STOP,), num_return_sequences=beams, **settings)
    early, lengths = ends(texts, 14)
    assert 0.2 * len(texts) < early and lengths > 5


@ON_PYTORCH
def test_settings_of_beams_make_a_difference(pair):
    """The tests above do not all test the same."""
    pair.draw(0, [STOP], by=2)
    options = {"max_new_tokens": 14, "stop_ids": (STOP,), "num_beams": 3, "length_penalty": 2.0}
    found = [pair.ours.generate_ids(prompts(0), early_stopping=early, **options) for early in (True, False, "never")]
    found += [pair.ours.generate_ids(prompts(0), **options | {"length_penalty": p}) for p in (-1.0, 0.0)]
    assert len({ids.tobytes() for ids in found}) >= 3


@pytest.mark.parametrize("beams", [1, 3])
def test_forced_length(pair, beams):
    for seed in range(2):
        pair.draw(seed, [STOP], by=4)
        for most in (1, 2, 14):
            texts = pair.check(
                prompts(seed), max_new_tokens=most, min_new_tokens=most, stop_ids=(STOP,), num_beams=beams
            )
            assert {len(text) for text in texts} == {most} and not any(STOP in text for text in texts)


RULES = {
    "repetition penalty": {"repetition_penalty": 1.7},
    "repetition reward": {"repetition_penalty": 0.6},
    "bigrams": {"no_repeat_ngram_size": 2},
    "unigrams": {"no_repeat_ngram_size": 1},
    "four-grams": {"no_repeat_ngram_size": 4},
    "suppressed": {"suppress_ids": (8, 9, 10, 11, PAD)},
    "minimum": {"min_new_tokens": 5},
    "forced end": {"forced_ids": {-1: STOP}},
    "several stops": {"stop_ids": (STOP, *OTHER_STOPS)},
}
RULES["all"] = {key: value for name in ("suppressed", "minimum", "forced end") for key, value in RULES[name].items()}
RULES["all"] |= {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "stop_ids": (STOP, *OTHER_STOPS)}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("rule", RULES if EAGER else ["repetition penalty", "all"])
def test_rules(pair, rule, beams):
    """Padding is suppressed too: to transformers it is a token that has been seen, to us it is not."""
    suppressed = tuple({PAD, *RULES[rule].get("suppress_ids", ())})
    options = {"max_new_tokens": 14, "stop_ids": (STOP,), "num_beams": beams} | RULES[rule]
    options |= {"suppress_ids": suppressed, "early_stopping": True}
    differ = False
    for seed in range(2):
        pair.draw(seed, options["stop_ids"], by=3)
        texts = pair.check(prompts(seed), **options)
        if beams == 1:
            plain = pair.generate(prompts(seed), max_new_tokens=14, stop_ids=(STOP,))[0]
            differ = differ or texts != plain
    assert differ or beams > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_forced_first_token(pair, beams):
    """transformers forces it after one token of prompt only."""
    pair.draw(0, [STOP], by=2)
    rows = prompts(0, (1, 1, 1, 1, 1))
    texts = pair.check(rows, max_new_tokens=14, stop_ids=(STOP,), num_beams=beams, forced_ids={0: 4, -1: STOP})
    assert all(text[0] == 4 for text in texts)


@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab_size": 43, "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 13},
        {"vocab_size": 101, "num_hidden_layers": 3, "num_attention_heads": 7, "hidden_act": "relu"},
    ],
    ids=["1 layer", "3 layers"],
)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_sizes(sizes, batch):
    """Models of other sizes, batches of other sizes."""
    if not EAGER and (batch != 3 or sizes["num_hidden_layers"] != 1):
        pytest.skip("needs compilations of its own: on PyTorch only")
    pair = Pair(**sizes)
    for seed in range(3):
        pair.draw(seed, [STOP], by=3)
        rows = prompts(seed, (17, 2, 5, 16, 1, 1, 12, 3)[:batch])
        for beams in (1, 4) if EAGER else (4,):
            pair.check(
                rows, max_new_tokens=19, stop_ids=(STOP,), num_beams=beams, num_return_sequences=(beams + 1) // 2
            )


@ON_PYTORCH
@pytest.mark.parametrize("vocabulary", [2, 3])
def test_vocabulary_smaller_than_the_beam(vocabulary):
    """Sequences that exist are the same; transformers then fills up with copies that have no chance, so do we."""
    pair = Pair(vocab_size=vocabulary, num_hidden_layers=1, num_attention_heads=2)
    for seed in range(8):
        pair.draw(seed)
        for most in (1, 2, 6):
            options = {"max_new_tokens": most, "num_beams": 5, "stop_ids": (1,)}
            expected, scores = pair.generate([[0, 0, 0]], num_return_sequences=5, **options)
            ids, found = pair.ours.generate_ids([[0, 0, 0]], num_return_sequences=5, return_scores=True, **options)
            real = scores > -1e6
            assert (real == (found > -1e6)).all() and real[0]
            np.testing.assert_allclose(found[real], scores[real], rtol=0, atol=1e-4)
            assert [cut(row, [1]) for row in ids[real]] == [
                text for text, is_real in zip(expected, real, strict=True) if is_real
            ]


def test_more_beams_returned_than_searched(pair):
    with pytest.raises(GenerationError, match=r"num_return_sequences 3 is above num_beams 2"):
        pair.ours.generate_ids(prompts(0), num_beams=2, num_return_sequences=3)
