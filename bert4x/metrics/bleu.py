"""BLEU of a corpus (Papineni et al. 2002), with sacrebleu's tokenization and smoothing (Post 2018)."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bert4x.errors import InputError, nearest
from bert4x.metrics.rouge import ngrams
from bert4x.metrics.tokens import Tokenize, check_texts, tokenizer

SMOOTHING = {"exp": None, "floor": 0.1, "add-k": 1.0, "none": None}  # with sacrebleu's defaults


class Bleu(NamedTuple):
    """`score` and the precision of each order are between 0 and 100, `brevity_penalty` between 0 and 1."""

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    predicted_length: int
    reference_length: int


def bleu(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    tokenize: str | Tokenize = "zh",
    smooth: str = "exp",
    smooth_value: float | None = None,
    max_order: int = 4,
    effective_order: bool = False,
    lowercase: bool = False,
) -> Bleu:
    """BLEU over all predictions together, the number that sacrebleu gives; its default for Chinese is "zh".

    Args:
        references: one for each prediction, or several, and not the same number for each. sacrebleu wants the first of
            every text, then the second of every text, and so on.
        tokenize: "char", "zh", "13a", "none" (split at white space) or a function from a text to its tokens.
        smooth: what an order without any match counts as: "exp" half of a match, then a quarter ..., "floor"
            `smooth_value` (0.1) matches, "none" nothing, which makes the score 0. "add-k" adds `smooth_value` (1) to
            matches and totals of the orders from 2 on. Source: Chen and Cherry 2014.
        effective_order: leaves out the orders for which predictions are too short; for single sentences.

    Raises: InputError for nothing to score, a prediction without references, or an unknown name.
    """
    check_texts(predictions, references)
    if smooth not in SMOOTHING:
        raise InputError(f"no smoothing {smooth!r}; {nearest(str(smooth), SMOOTHING)}")
    if not isinstance(max_order, int) or max_order < 1:
        raise InputError(f"max_order is {max_order!r}; expected a positive whole number")
    split, lower = tokenizer(tokenize), str.lower if lowercase else str
    matches, totals, lengths = [0] * max_order, [0] * max_order, [0, 0]
    for index, (prediction, texts) in enumerate(zip(predictions, references, strict=True)):
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"references[{index}] is {texts!r}; expected a string or several")
        found, true = split(lower(prediction)), [split(lower(text)) for text in texts]
        lengths[0] += len(found)
        lengths[1] += min((len(tokens) for tokens in true), key=lambda n: (abs(n - len(found)), n))
        for n in range(1, max_order + 1):
            counts, allowed = Counter(ngrams(found, n)), Counter()
            for tokens in true:
                allowed |= Counter(ngrams(tokens, n))
            matches[n - 1] += (counts & allowed).total()
            totals[n - 1] += counts.total()
    value = SMOOTHING[smooth] if smooth_value is None else smooth_value
    return _score(matches, totals, *lengths, smooth, value, effective_order)


def _score(
    matches: list[float],
    totals: list[float],
    found: int,
    true: int,
    smooth: str,
    value: float | None,
    effective_order: bool,
) -> Bleu:
    penalty = min(1.0, math.exp(1 - true / found)) if found else float(not true)
    precisions, halves = [0.0] * len(totals), 1
    if not any(matches):
        return Bleu(0.0, tuple(precisions), penalty, found, true)
    if smooth == "add-k":
        matches = [count + value * (n > 0) for n, count in enumerate(matches)]
        totals = [total + value * (n > 0) for n, total in enumerate(totals)]
    for n, (count, total) in enumerate(zip(matches, totals, strict=True)):
        if not total:
            break
        if not count and smooth == "exp":
            halves *= 2
            count = 1 / halves
        elif not count and smooth == "floor":
            count = value
        precisions[n] = 100 * count / total
    orders = sum(total > 0 for total in totals) if effective_order else len(totals)
    logarithms = [math.log(p) if p else -math.inf for p in precisions[:orders]]
    return Bleu(penalty * math.exp(sum(logarithms) / orders), tuple(precisions), penalty, found, true)
