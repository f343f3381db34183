"""BLEU: by hand, and as sacrebleu has it."""

import math
import random

import pytest

from bert4x.errors import InputError
from bert4x.metrics import bleu, characters


def test_by_hand():
    """4 of 5 characters match, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples; as long as the reference."""
    expected = 100 * math.exp(sum(map(math.log, (4 / 5, 3 / 4, 2 / 3, 1 / 2))) / 4)
    assert bleu(["我 爱北京人"], ["我爱北京城"]) == pytest.approx(expected)


def test_brevity_and_clipping():
    """Too short a text pays for it; a character counts no more often than some reference has it."""
    assert bleu(["我爱北京"], ["我爱北京的秋"]) == pytest.approx(100 * math.exp(1 - 6 / 4))
    several = bleu(["看看看看看"], [["看看你看看", "看着"]])
    expected = 100 * math.exp(sum(map(math.log, (4 / 5, 2 / 4, 1 / (2 * 3), 1 / (4 * 2)))) / 4)
    assert several == pytest.approx(expected)


def test_extremes():
    assert bleu(["北京"], ["上海"]) == 0.0
    assert bleu([""], ["上海"]) == 0.0
    assert bleu(["今天天气很好"], [["今天天气很好", "天气不错"]]) == pytest.approx(100.0)


def test_bad_input():
    for texts, references in ((["a"], []), ([], []), (["a"], [[]])):
        with pytest.raises(InputError, match="expected one or more"):
            bleu(texts, references)


@pytest.mark.parametrize("seed", range(8))
def test_as_sacrebleu(seed):
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    draw = random.Random(seed)

    def text():
        return "".join(draw.choices("我你他爱看 是不abc。", k=draw.randint(1, 14)))

    count = draw.randint(1, 40)
    texts = [text() for _ in range(count)]
    references = [[text() for _ in range(draw.randint(1, 3))] for _ in range(count)]
    for row in range(0, count, 3):  # some that are nearly right
        texts[row] = references[row][0][:-1] + "你"
    columns = [[group[i] if i < len(group) else None for group in references] for i in range(3)]
    theirs = sacrebleu.corpus_bleu(texts, columns, tokenize="char").score
    assert bleu(texts, references) == pytest.approx(theirs, abs=1e-9)
    assert characters("a b\n我") == ["a", "b", "我"]
