"""Masked, left-to-right and UniLM batches for one model: they differ in their arrays alone, never in the graph.

Key k is visible to query q iff `rank[k] <= rank[q]` (`bert4x.masks`); rank is 0 (masked), the position (left-to-right)
or the cumulated segment ids (UniLM: the source sees itself, the target sees the source and its own past).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bert4x.errors import TokenizerError
from bert4x.training.corpus import ENDERS

OBJECTIVES = ("mlm", "lm", "unilm")
PADDING = 1 << 30  # rank of padding: above every real rank, so no token sees it


@dataclass(frozen=True)
class Specials:
    """Ids of the special tokens, and of those after which a UniLM source may end."""

    pad: int
    start: int
    end: int
    mask: int
    first_ordinary: int
    vocab_size: int
    enders: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer) -> "Specials":
        """Those of a tokenizer; every id above its special tokens counts as ordinary. Raises: TokenizerError"""
        ids = tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id, tokenizer.mask_id
        if None in ids:
            raise TokenizerError("pretraining needs a vocabulary with [PAD], [CLS], [SEP] and [MASK]")
        enders = (i for i in tokenizer.tokens_to_ids(ENDERS) if i != tokenizer.unk_id)
        first = max(*ids, tokenizer.unk_id) + 1
        return cls(*ids, first, tokenizer.vocab_size, tuple(enders))


@dataclass(frozen=True)
class Mix:
    """What is asked of the rows.

    Args:
        shares: probability of each of `OBJECTIVES` for a row.
        masked: fraction of a row's tokens that the masked objective predicts.
        predicted: predictions a batch, as a fraction of its tokens. The number is fixed, as a compiled step needs;
            left-to-right and UniLM predictions beyond it are dropped at random.
        unpunctuated: probability that a masked row loses its final punctuation: without such rows a model sees
            nothing but a full stop in a [MASK] at the end of a phrase.
        words: tells the words of a row of ids (`bert4x.training.words.Words`), which are then masked as a whole.
    """

    shares: tuple[float, float, float] = (0.6, 0.2, 0.2)
    masked: float = 0.25
    predicted: float = 0.42
    unpunctuated: float = 0.25
    words: Callable[[np.ndarray], np.ndarray] | None = None


def mask_tokens(
    ids: np.ndarray, allowed: np.ndarray, rate: float, s: Specials, rng, words: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses `rate` of the allowed tokens; 80% become [MASK], 10% a random token, 10% stay (Devlin et al. 2018). With
    the number of each token's word, whole words are chosen: one, or as many as do not exceed the rate.

    Shape: ids (T,), allowed (T,) bool, words (T,) -> corrupted ids (T,), chosen positions, in order
    """
    candidates = np.flatnonzero(allowed)
    count = min(len(candidates), max(1, round(rate * len(candidates))))
    if words is None or not len(candidates):
        chosen = np.sort(rng.choice(candidates, count, replace=False))
    else:
        numbers, sizes = np.unique(words[candidates], return_counts=True)
        order = rng.permutation(len(numbers))
        most = max(1, np.searchsorted(np.cumsum(sizes[order]), count, side="right"))
        chosen = candidates[np.isin(words[candidates], numbers[order[:most]])]
        count = len(chosen)
    corrupted, draw = ids.copy(), rng.random(count)
    corrupted[chosen[draw < 0.8]] = s.mask
    random = chosen[(draw >= 0.8) & (draw < 0.9)]
    corrupted[random] = rng.integers(s.first_ordinary, s.vocab_size, len(random))
    return corrupted, chosen


def split_point(row: np.ndarray, s: Specials, rng) -> int:
    """Where a UniLM source ends: at the pair's [SEP] or else a sentence's end, or somewhere when there is only one.

    Returns a number of tokens between 1 and len(row) - 1.
    """
    pair = np.flatnonzero(row == s.end)
    if len(pair):
        return int(pair[0])
    ends = np.flatnonzero(np.isin(row[:-1], s.enders)) + 1
    return int(rng.choice(ends)) if len(ends) else int(rng.integers(1, len(row)))


def make_batch(rows: list[np.ndarray], length: int, mix: Mix, s: Specials, rng: np.random.Generator) -> dict:
    """A batch of rows, each under an objective of its own.

    Rows are `[CLS] text [SEP]`, or `[CLS] first [SEP] second [SEP]`.

    Returns:
        token_ids, segment_ids, rank (B, T) int32: what the model sees; padding has rank PADDING, which nothing sees.
        positions (N,) int32: where in the flattened (B * T) hidden states a prediction is made;
        targets (N,) int32: the token to predict there; weights (N,) float32: 1, or 0 where N was not reached;
        objectives (N,) int8: index into OBJECTIVES, for reporting.
    """
    size = len(rows)
    token_ids = np.full((size, length), s.pad, np.int32)
    segment_ids, rank = np.zeros_like(token_ids), np.full_like(token_ids, PADDING)
    positions, targets, kinds = [], [], []
    for b, (row, kind) in enumerate(zip(rows, rng.choice(3, size, p=mix.shares), strict=True)):
        if kind == 2 and len(row) < 2:
            kind = 0
        if kind == 0 and len(row) > 2 and row[-1] in s.enders and rng.random() < mix.unpunctuated:
            row = row[:-1]
        if kind == 2:
            cut = split_point(row, s, rng)
            source, target = row[:cut], row[cut:]
            target = target[1:] if target[0] == s.end else target
            ids = np.concatenate([[s.start], source, [s.end], target, [s.end]]).astype(np.int32)
            first = len(source) + 1  # the [SEP] of the source predicts the target's first token
            segment = (np.arange(len(ids)) > first).astype(np.int32)
            where = np.arange(first, len(ids) - 1)
            order = np.cumsum(segment)
        else:
            ids = np.concatenate([[s.start], row, [s.end]]).astype(np.int32)
            segment = np.zeros_like(ids)
            if kind == 1:
                where, order = np.arange(len(ids) - 1), np.arange(len(ids))
            else:
                separators = np.flatnonzero(ids == s.end)
                segment[separators[0] + 1 :] = 1
                order = segment * 0
        if kind == 0:
            corrupted, where = mask_tokens(
                ids, ids >= s.first_ordinary, mix.masked, s, rng, mix.words(ids) if mix.words else None
            )
            target_ids, ids = ids[where], corrupted
        else:
            target_ids = ids[where + 1]
        token_ids[b, : len(ids)], segment_ids[b, : len(ids)], rank[b, : len(ids)] = ids, segment, order
        positions.append(where + b * length)
        targets.append(target_ids)
        kinds.append(np.full(len(where), kind, np.int8))
    chosen = _choose(np.concatenate(kinds), round(size * length * mix.predicted), rng)
    return {
        "token_ids": token_ids,
        "segment_ids": segment_ids,
        "rank": rank,
        "positions": _pad(np.concatenate(positions)[chosen].astype(np.int32), size * length, mix.predicted),
        "targets": _pad(np.concatenate(targets)[chosen].astype(np.int32), size * length, mix.predicted),
        "weights": _pad(np.ones(len(chosen), np.float32), size * length, mix.predicted),
        "objectives": _pad(np.concatenate(kinds)[chosen], size * length, mix.predicted),
    }


def _choose(kinds: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` predictions: all masked ones first, the others drawn at random."""
    if len(kinds) <= count:
        return np.arange(len(kinds))
    return np.sort(np.argsort((kinds != 0) + rng.random(len(kinds)))[:count])


def _pad(values: np.ndarray, tokens: int, fraction: float) -> np.ndarray:
    out = np.zeros(round(tokens * fraction), values.dtype)
    out[: len(values)] = values
    return out
