"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries")."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bert4x.errors import InputError
from bert4x.metrics.tokens import Tokenize, check_texts, tokenizer


class Rouge(NamedTuple):
    """Between 0 and 1: the share of the reference that is found, of the prediction that is right, and their F1."""

    recall: float
    precision: float
    f1: float


def rouge(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    tokenize: str | Tokenize = "char",
    exclusive: bool = True,
) -> dict[str, Rouge]:
    """Means over the texts of {"rouge-1": Rouge, "rouge-2": Rouge, "rouge-l": Rouge}, as rouge-chinese computes them.

    A prediction or reference without tokens scores 0, and counts.

    Args:
        tokenize: "char", "zh", "13a", "none" (split at white space) or a function from a text to its tokens.
        exclusive: an n-gram that is repeated counts once, rouge-chinese's default; False counts each time, as in Lin's
            paper. ROUGE-L, the longest common subsequence, is the same with either.

    Raises: InputError for nothing to score, or not one reference for each prediction.
    """
    check_texts(predictions, references)
    split, sums = tokenizer(tokenize), {"rouge-1": [0.0] * 3, "rouge-2": [0.0] * 3, "rouge-l": [0.0] * 3}
    for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        if not isinstance(reference, str):
            raise InputError(f"references[{index}] is {reference!r}; expected a string")
        found, true = split(prediction), split(reference)
        scores = [_of_ngrams(found, true, n, exclusive) for n in (1, 2)]
        scores.append(_rouge(lcs_length(found, true), len(found), len(true)))
        for total, score in zip(sums.values(), scores, strict=True):
            total[:] = (a + b for a, b in zip(total, score, strict=True))
    return {name: Rouge(*(value / len(predictions) for value in total)) for name, total in sums.items()}


def ngrams(tokens: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    """All runs of n tokens."""
    return zip(*(tokens[offset:] for offset in range(n)), strict=False)


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time as the bits of one number.

    Source: Hyyrö 2004, "Bit-Parallel LCS-length Computation Revisited".
    """
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    full = row = (1 << len(first)) - 1
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()


def _of_ngrams(found: Sequence[str], true: Sequence[str], n: int, exclusive: bool) -> Rouge:
    collect = set if exclusive else Counter
    found, true = collect(ngrams(found, n)), collect(ngrams(true, n))
    return _rouge(*(len(x) if exclusive else x.total() for x in (found & true, found, true)))


def _rouge(common: int, found: int, true: int) -> Rouge:
    recall, precision = common / true if true else 0.0, common / found if found else 0.0
    f1 = 2 * recall * precision / (recall + precision) if common else 0.0
    return Rouge(recall, precision, f1)
