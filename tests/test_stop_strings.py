"""Stop strings and beams: a beam that has written one has ended, as transformers' StoppingCriteria have it; here
against a plain beam search over the NumPy model that decodes each text anew.
"""

import numpy as np
import pytest
from battery import build
from generation_models import EAGER, log_softmax
from random_models import random_weights, tiny_config
from reference import gpt2

import bert4x
from bert4x.generation import continuations
from bert4x.generation.detokenize import Detokenizer, byte_characters
from bert4x.tokenizers import BpeTokenizer, Tokenizer

NEW = 8
PIECES = [
    *["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    *"床前明月光，。",
    "a",
    "b",
    "##a",
    "##b",
    "1",
    ".",
    "##1",
    "'",
    "s",
]
STOPS = {
    "word pieces": [("月",), ("a b", "aa", "月光"), ("1.1", "ab", "。"), ("'s", "1")],
    "bytes": [("月",), ("a", "光", "月b")],
}


def tokenizer(kind):
    if kind == "word pieces":
        return Tokenizer({piece: i for i, piece in enumerate(PIECES)}, do_lower_case=True)
    letters = {byte: char for char, byte in byte_characters().items()}
    tokens = [*sorted({letters[byte] for byte in "月光ab".encode()}), letters[0xE6] + letters[0x9C]]
    return BpeTokenizer({token: i for i, token in enumerate(tokens)}, [(letters[0xE6], letters[0x9C])])


def model(kind, seed):
    """A model that writes all sorts of things, and its weights."""
    words = tokenizer(kind)
    size = len(PIECES) if kind == "word pieces" else len(words.token_dict)
    config = tiny_config("gpt2", num_hidden_layers=1, vocab_size=size, max_position=32)
    weights = random_weights(config, heads=False, seed=seed)
    for path, values in weights.items():
        values *= 4 if "Position" in path else 1.7 if path.endswith("/kernel") else 1
    lm = build(config, weights, "lm", with_mlm="linear")
    lm.tokenizer = words
    return lm, weights, config


def searched(weights, config, decode, prompt, stops, beams, stop_ids, penalty, least=0):
    """What beam search finds: (ids, score), best first, as transformers 5 defines it with early_stopping=False."""
    running, ended = [((), 0.0)], []
    for length in range(1, NEW + 1):
        texts = np.array([[*prompt, *ids] for ids, _ in running])
        logs = gpt2.forward(weights, config, texts)["lm_logits"][:, -1]
        found = [
            ((*ids, token), total + log)
            for (ids, total), row in zip(running, logs, strict=True)
            for token, log in enumerate(log_softmax(row.astype("float64")))
            if not (token in stop_ids and length <= least)
        ]
        found = sorted(found, key=lambda one: -one[1])[: max(2, 1 + len(stop_ids)) * beams]
        going = []
        for place, (ids, total) in enumerate(found):
            wrote = length > least and any(stop in decode(ids) for stop in stops)
            if ids[-1] in stop_ids or wrote or length == NEW:
                ended += [(ids, total / length**penalty)] if place < beams else []
            else:
                going.append((ids, total))
        running, ended = going[:beams], sorted(ended, key=lambda one: -one[1])[:beams]
        if not running or (len(ended) == beams and running[0][1] / length**penalty <= ended[-1][1]):
            break
    return ended


@pytest.mark.parametrize("kind", STOPS)
def test_stop_strings_end_beams(kind):
    """Texts and scores, with and without stop tokens; and some searches find others than those that are only cut."""
    ends = others = 0
    for seed, beams, penalty in ((1, 2, 0.0), (0, 3, 1.0), (2, 3, 2.0))[: 3 if EAGER else 1]:
        lm, weights, config = model(kind, seed)
        for number, stops in enumerate(STOPS[kind]):
            stop_ids = (3,) if number % 2 else ()
            options = {"max_new_tokens": NEW, "num_beams": beams, "num_return_sequences": 2, "stop_ids": stop_ids}
            options["length_penalty"] = penalty
            prompts = ["月光", "ab"]
            found = continuations(lm, prompts, stop=stops, **options)
            plain = continuations(lm, prompts, **options)
            for prompt, ours, cut in zip(prompts, found, plain, strict=True):
                ids = lm.tokenizer.encode(prompt)[0]
                ids = ids[1:-1] if kind == "word pieces" else ids
                expected = searched(weights, config, lm.tokenizer.decode, ids, stops, beams, stop_ids, penalty)[:2]
                assert [one.token_ids for one in ours] == [list(ids) for ids, _ in expected]
                assert [one.score for one in ours] == pytest.approx([score for _, score in expected], abs=2e-4)
                for one in ours:
                    assert one.score == pytest.approx(
                        sum(one.log_probabilities) / len(one.token_ids) ** penalty, abs=1e-4
                    )
                    assert not any(stop in one.text for stop in stops)
                ends += any(one.finish_reason == "stop" and one.token_ids[-1] not in stop_ids for one in ours)
                others += [one.token_ids for one in ours] != [one.token_ids for one in cut]
    assert ends > 1 and others > 1, "or the test would prove little"


def test_stop_strings_in_the_first_tokens():
    """`min_new_tokens` holds for strings as for tokens: whole texts, streams and beams."""
    lm, weights, config = model("word pieces", 0)
    ids = lm.tokenizer.encode("月光")[0][1:-1]
    stops = tuple(piece for piece in PIECES[5:] if not piece.startswith("##"))
    for least in (0, 3):
        options = {"max_new_tokens": NEW, "stop": stops, "stop_ids": (), "min_new_tokens": least}
        (one,) = continuations(lm, ["月光"], **options)[0]
        assert one.finish_reason == "stop" and len(one.token_ids) > least
        assert "".join(piece.text for piece in lm.stream("月光", **options)) == one.text
        (beam,) = continuations(lm, ["月光"], num_beams=2, **options)[0]
        expected = searched(weights, config, lm.tokenizer.decode, ids, stops, 2, (), 1.0, least)
        assert beam.token_ids == list(expected[0][0])


def test_few_shot_with_beams():
    lm, weights, config = model("word pieces", 1)
    few = bert4x.FewShot(lm, "{text}，{label}", [{"text": "a", "label": "b"}], separator="。", stop="月")
    ids = lm.tokenizer.encode(few.prompt("光"))[0][1:-1]
    expected = searched(weights, config, lm.tokenizer.decode, ids, ("月",), 3, (3,), 1.0)[0][0]
    text = lm.tokenizer.decode([i for i in expected if i != 3]).partition("月")[0]
    assert few.generate("光", max_new_tokens=NEW, num_beams=3) == text.strip()


@pytest.mark.parametrize("kind", STOPS)
def test_copies_go_on_otherwise(kind):
    words, draw = tokenizer(kind), np.random.default_rng(0)
    for _ in range(40):
        ids, others = draw.integers(0, len(words.token_dict), (2, 12)).tolist()
        writer, begun = Detokenizer(words, ("月光", "ab")), 0
        text = "".join(writer.add(i) for i in ids[:6])
        copy, begun = writer.copy(), text
        text += "".join(writer.add(i) for i in ids[6:]) + writer.finish()
        again = Detokenizer(words, ("月光", "ab"))
        assert text == "".join(again.add(i) for i in ids) + again.finish()
        begun += "".join(copy.add(i) for i in others) + copy.finish()
        again = Detokenizer(words, ("月光", "ab"))
        assert begun == "".join(again.add(i) for i in [*ids[:6], *others]) + again.finish()
