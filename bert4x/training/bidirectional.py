"""Training of synchronous bidirectional decoding (Zhou, Zhang, Zong, TACL 2019, arXiv 1905.04847)."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from keras import ops

from bert4x.generation.bidirectional import BidirectionalDecoder
from bert4x.tasks.task import Task
from bert4x.training.losses import masked_crossentropy

Ids = Sequence[int]
DIRECTIONS = ("l2r", "r2l")


class Symbols(NamedTuple):
    """Ids of the tokens that targets begin with, in either direction, of the one that ends them, and of padding."""

    l2r: int
    r2l: int
    stop: int
    pad: int = 0


class Triple(NamedTuple):
    """A source and its two targets, both in reading order, without special tokens."""

    source: Ids
    l2r: Ids
    r2l: Ids

    @property
    def length(self) -> int:
        return len(self.source) + max(len(self.l2r), len(self.r2l)) + 1


def gold_triples(sources: Sequence[Ids], targets: Sequence[Ids]) -> list[Triple]:
    """Every pair once, its target in both directions: for models that write in one, or in both without interaction."""
    return [Triple(source, target, target) for source, target in zip(sources, targets, strict=True)]


def pseudo_triples(
    sources: Sequence[Ids], targets: Sequence[Ids], l2r: Sequence[Ids], r2l: Sequence[Ids]
) -> list[Triple]:
    """The published training set: every pair twice, with what a plain model of the other direction made of its source.

    Were both targets the true one, each direction could read its future in the other's past.

    Args:
        l2r: what a plain left-to-right model decodes from the sources.
        r2l: the same from right to left, in reading order.
    """
    first = [Triple(*parts) for parts in zip(sources, targets, r2l, strict=True)]
    return first + [Triple(*parts) for parts in zip(sources, l2r, targets, strict=True)]


def target_rows(target: Ids, marker: int, symbols: Symbols, length: int) -> tuple[np.ndarray, ...]:
    """What a decoder reads, and what it should say, -1 where that does not count.

    The stop token is in the last place whatever the length of the target, as published: both directions end at once.

    Shape: two of (length,) int32
    """
    inputs, labels = np.full(length, symbols.pad, "int32"), np.full(length, -1, "int32")
    inputs[0], inputs[1 : len(target) + 1] = marker, target
    labels[: len(target)], labels[-1] = target, symbols.stop
    return inputs, labels


def target_batch(triples: Sequence[Triple], symbols: Symbols, directions: Sequence[str] = DIRECTIONS):
    """The targets of a batch: first all from left to right, then all from right to left, each pair of one length.

    Shape: R = B rows for each direction -> two of R lists: inputs and labels, each as long as its target and 1
    """
    lengths = [1 + max(len(getattr(triple, direction)) for direction in directions) for triple in triples]
    rows = [
        target_rows(list(getattr(triple, direction))[:: STEPS[direction]], getattr(symbols, direction), symbols, length)
        for direction in directions
        for triple, length in zip(triples, lengths, strict=True)
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


STEPS = {"l2r": 1, "r2l": -1}


def make_batch(
    triples: Sequence[Triple], symbols: Symbols, directions: Sequence[str] = DIRECTIONS, multiple: int = 4
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch for an encoder-decoder, lengths padded to a multiple of a number; labels are -1 where none counts, as
    `bert4x.training.losses.masked_crossentropy` wants them.

    Shape: R rows -> {"token_ids" (R, S), "target_ids" (R, T)}, labels (R, T)
    """
    inputs, labels = target_batch(triples, symbols, directions)
    sources = [triple.source for triple in triples] * len(directions)
    columns = {"token_ids": sources, "target_ids": inputs}
    return {name: padded(rows, symbols.pad, multiple) for name, rows in columns.items()}, padded(labels, -1, multiple)


def make_unilm_batch(
    triples: Sequence[Triple], symbols: Symbols, directions: Sequence[str] = DIRECTIONS, multiple: int = 4
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch for a UniLM, which reads a source and its target as one text; the sources have their special tokens.

    Shape: R rows -> {"token_ids" (R, T), "segment_ids" (R, T)}, labels (R, T)
    """
    rows = {"token_ids": [], "segment_ids": [], "labels": []}
    sources = [triple.source for triple in triples] * len(directions)
    for source, inputs, labels in zip(sources, *target_batch(triples, symbols, directions), strict=True):
        rows["token_ids"].append([*source, *inputs])
        rows["segment_ids"].append([0] * len(source) + [1] * len(inputs))
        rows["labels"].append([-1] * len(source) + [*labels])
    token_ids, segment_ids, labels = (
        padded(rows[name], fill, multiple) for name, fill in zip(rows, (symbols.pad, 0, -1), strict=True)
    )
    return {"token_ids": token_ids, "segment_ids": segment_ids}, labels


def padded(rows: Sequence, value: int, multiple: int) -> np.ndarray:
    """Rows as one array, its length a multiple of a number: few shapes are compiled then. Shape: -> (B, T)"""
    longest = -(-max(map(len, rows)) // multiple) * multiple
    return np.stack([np.pad(row, (0, longest - len(row)), constant_values=value) for row in rows]).astype("int32")


class Writer(Task):
    """What `bert4x.recipe.Run.train` trains on triples: a model that writes in one direction, or in both.

    The loss is the cross-entropy with smoothed labels (Szegedy et al. 2015, arXiv 1512.00567), the mean over all rows
    and places that count.
    """

    name, best = "bidirectional", ""

    def __init__(self, model, symbols: Symbols, directions: Sequence[str] = DIRECTIONS, smoothing: float = 0.1):
        self.model, self.backbone, self.config = model, model, model.config
        self.symbols, self.directions, self.smoothing = symbols, tuple(directions), smoothing

    def batch(self, triples, length=None, draw=None):
        make = make_unilm_batch if self.model.builder.application == "unilm" else make_batch
        inputs, labels = make(triples, self.symbols, self.directions)
        return list(inputs.values()), (labels,)

    def loss(self, outputs, targets):
        return ops.mean(masked_crossentropy(targets[0], outputs, smoothing=self.smoothing))

    def optimizer(self, learning_rate, **options):
        return super().optimizer(learning_rate, **{"beta_2": 0.98} | options)


class Decoder:
    """Decodes with the weights of one model after the other, and is compiled once: pseudo targets, baselines, and what
    both directions write together.

    Args:
        model: a plain one, or one with `bidirectional=True`.
        options: of `model.generate_ids`, or of `BidirectionalDecoder.generate_ids`.
    """

    def __init__(self, model, symbols: Symbols, batch: int = 256, **options):
        self.model, self.symbols, self.batch = model, symbols, batch
        self.options = {"stop_ids": symbols.stop, "pad_id": symbols.pad} | options

    @functools.cached_property
    def both(self) -> BidirectionalDecoder:
        """What decodes in both directions at once."""
        return BidirectionalDecoder(self.model, self.symbols.l2r, self.symbols.r2l)

    def __call__(self, weights: list, sources: Sequence[Ids], way: str, **options) -> list[list[int]]:
        """What a model writes from left to right (`l2r`), from right to left (`r2l`), or in `both` directions at once:
        in reading order, without special tokens.
        """
        self.model.set_weights(weights)
        options = self.options | options
        if way == "both":
            decode = functools.partial(self.both.generate_ids, **options)
        else:
            decode = functools.partial(self.one_way, getattr(self.symbols, way), **options)
        found = decode_batches(decode, sources, self.symbols, self.batch)
        return found if way == "both" else [ids[:: STEPS[way]] for ids in found]

    def one_way(self, marker: int, rows: list[list[int]], **options):
        """What a model writes after a marker."""
        if self.model.builder.application != "unilm":
            return self.model.generate_ids(rows, start_id=marker, **options)
        segments = [[0] * len(row) + [1] for row in rows]
        return self.model.generate_ids([[*row, marker] for row in rows], segments, **options)


def decode_batches(decode, sources: Sequence[Ids], symbols: Symbols, batch: int) -> list[list[int]]:
    """The decoded rows of sources, which are decoded with others of their length."""
    found: list[list[int]] = [[]] * len(sources)
    by_length = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in range(0, len(sources), batch):
        rows = by_length[start : start + batch]
        for i, ids in zip(rows, decode([list(sources[i]) for i in rows]), strict=True):
            found[i] = [int(token) for token in ids if token not in (symbols.stop, symbols.pad)]
    return found
