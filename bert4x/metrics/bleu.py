"""BLEU of a corpus (Papineni et al. 2002), as sacrebleu defines it (Post 2018, arXiv 1804.08771)."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from bert4x.errors import InputError

ORDER = 4  # the longest n-grams


def characters(text: str) -> list[str]:
    """The characters of a text, without spaces: sacrebleu's tokenization "char"."""
    return [character for character in text if not character.isspace()]


def bleu(
    texts: Sequence[str],
    references: Sequence[str | Iterable[str]],
    tokenize: Callable[[str], list[str]] = characters,
) -> float:
    """BLEU from 0 to 100 of texts against one or several references each.

    N-grams up to 4; an order without any match counts as half, a quarter ... of a match (sacrebleu's smoothing "exp");
    the length is compared to that of the reference that is closest, the shorter of two.

    Raises: InputError when a text has no references, or there are other numbers of one than of the other.
    """
    groups = [[one] if isinstance(one, str) else list(one) for one in references]
    if len(texts) != len(groups) or not texts or not all(groups):
        raise InputError(f"got {len(texts)} texts and {len(groups)} references; expected one or more for each text")
    matches, totals, length, wanted = [0] * ORDER, [0] * ORDER, 0, 0
    for text, group in zip(texts, groups, strict=True):
        tokens, others = tokenize(text), [tokenize(one) for one in group]
        length += len(tokens)
        wanted += min((abs(len(one) - len(tokens)), len(one)) for one in others)[1]
        for n in range(1, ORDER + 1):
            counts, allowed = ngrams(tokens, n), Counter[tuple[str, ...]]()
            for one in others:
                allowed |= ngrams(one, n)
            matches[n - 1] += (counts & allowed).total()
            totals[n - 1] += counts.total()
    if not matches[0]:
        return 0.0
    precisions, smoothing = [], 1.0
    for match, total in zip(matches, totals, strict=True):
        if total and not match:
            smoothing *= 2
        precisions.append((match or 1 / smoothing) / total if total else 0.0)
    if not all(precisions):
        return 0.0
    brevity = min(0.0, 1 - wanted / length)
    return 100 * math.exp(brevity + sum(map(math.log, precisions)) / ORDER)


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
