"""Training of synchronous bidirectional decoding (Zhou, Zhang, Zong, TACL 2019, arXiv 1905.04847)."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

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
    """What a decoder reads, what it should say, and where that counts.

    The stop token is in the last place whatever the length of the target, as published: both directions end at once.

    Shape: three of (length,), int32, int32, float32
    """
    inputs, labels = np.full((2, length), symbols.pad, "int32")
    inputs[0], inputs[1 : len(target) + 1] = marker, target
    labels[: len(target)], labels[-1] = target, symbols.stop
    weights = np.zeros(length, "float32")
    weights[: len(target)] = weights[-1] = 1
    return inputs, labels, weights


def target_batch(triples: Sequence[Triple], symbols: Symbols, directions: Sequence[str] = DIRECTIONS):
    """The targets of a batch: first all from left to right, then all from right to left, each pair of one length.

    Shape: R = B rows for each direction -> three of R lists: inputs, labels, weights, each as long as its target and 1
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
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A batch for an encoder-decoder, lengths padded to a multiple of a number.

    Shape: R rows -> {"token_ids" (R, S), "target_ids" (R, T)}, labels (R, T), weights (R, T)
    """
    inputs, labels, weights = (
        padded(rows, symbols.pad, multiple) for rows in target_batch(triples, symbols, directions)
    )
    sources = padded([triple.source for triple in triples] * len(directions), symbols.pad, multiple)
    return {"token_ids": sources.astype("int32"), "target_ids": inputs}, labels, weights


def make_unilm_batch(
    triples: Sequence[Triple], symbols: Symbols, directions: Sequence[str] = DIRECTIONS, multiple: int = 4
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A batch for a UniLM, which reads a source and its target as one text; the sources have their special tokens.

    Shape: R rows -> {"token_ids" (R, T), "segment_ids" (R, T)}, labels (R, T), weights (R, T)
    """
    rows = {"token_ids": [], "segment_ids": [], "labels": [], "weights": []}
    sources = [triple.source for triple in triples] * len(directions)
    for source, *target in zip(sources, *target_batch(triples, symbols, directions), strict=True):
        for name, before, after in zip(
            rows, (source, 0, 0, 0), (target[0], np.ones_like(target[0]), *target[1:]), strict=True
        ):
            rows[name].append(np.concatenate([before if name == "token_ids" else np.zeros(len(source)), after]))
    token_ids, segment_ids, labels, weights = (padded(rows[name], symbols.pad, multiple) for name in rows)
    inputs = {"token_ids": token_ids.astype("int32"), "segment_ids": segment_ids.astype("int32")}
    return inputs, labels.astype("int32"), weights.astype("float32")


def padded(rows: Sequence, value: int, multiple: int) -> np.ndarray:
    """Rows as one array whose length is a multiple of a number: few lengths are few shapes to compile for."""
    longest = -(-max(map(len, rows)) // multiple) * multiple
    return np.stack([np.pad(row, (0, longest - len(row)), constant_values=value) for row in rows])


class Triples:
    """Batches of triples of about the same length, in another order every epoch.

    `rows` is the number of rows of a batch: as many triples where one direction is wanted, half as many for both.
    """

    def __init__(
        self,
        triples: Sequence[Triple],
        symbols: Symbols,
        rows: int = 128,
        directions: Sequence[str] = DIRECTIONS,
        seed: int = 0,
        batch=make_batch,
    ):
        self.triples, self.symbols, self.directions, self.batch = triples, symbols, tuple(directions), batch
        self.size = max(1, rows // len(self.directions))
        self.seed, self.lengths = seed, np.array([[max(len(t.l2r), len(t.r2l)) + 1, len(t.source)] for t in triples])
        self.start_epoch(0)

    def __len__(self):
        return -(-len(self.triples) // self.size)

    def __getitem__(self, index):
        start = self.order[index] * self.size
        chosen = [self.triples[i] for i in self.by_length[start : start + self.size]]
        return self.batch(chosen, self.symbols, self.directions)

    def start_epoch(self, epoch: int) -> None:
        """Puts the batches of an epoch together: they depend on its number and the seed alone."""
        draw = np.random.default_rng([self.seed, epoch])
        blurred = -(-self.lengths // 4) + 0.9 * draw.random(len(self.lengths))[:, None]
        self.by_length = np.lexsort((blurred[:, 1], np.floor(blurred[:, 0])))
        self.order = draw.permutation(len(self))


@keras.saving.register_keras_serializable("bert4x")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of logits with smoothed labels (Szegedy et al. 2015, arXiv 1512.00567), summed over both
    directions: the mean over all rows and places that count.

    Shape: (R, T), (R, T, V) -> (R, T)
    """

    def __init__(self, smoothing: float = 0.1, name: str = "smoothed_cross_entropy", **kwargs):
        super().__init__(name=name, **({"reduction": "mean_with_sample_weight"} | kwargs))
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        logits = ops.cast(y_pred, "float32")
        right = ops.take_along_axis(logits, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]
        said = (1 - self.smoothing) * right + self.smoothing * ops.mean(logits, axis=-1)
        return ops.logsumexp(logits, axis=-1) - said

    def get_config(self):
        return super().get_config() | {"smoothing": self.smoothing}


def decode_one_way(
    model, sources: Sequence[Ids], direction: str, symbols: Symbols, batch: int = 256, **options
) -> list[list[int]]:
    """What a plain model writes in one direction, in reading order, without special tokens: pseudo targets, and the
    baselines. The options are those of `model.generate_ids`.
    """
    marker, unilm = getattr(symbols, direction), model.backbone.application == "unilm"

    def decode(rows):
        if not unilm:
            return model.generate_ids(rows, start_id=marker, stop_ids=symbols.stop, pad_id=symbols.pad, **options)
        segments = [[0] * len(row) + [1] for row in rows]
        rows = [[*row, marker] for row in rows]
        return model.generate_ids(rows, segments, stop_ids=symbols.stop, pad_id=symbols.pad, **options)

    return [ids[:: STEPS[direction]] for ids in decode_batches(decode, sources, symbols, batch)]


def decode_both_ways(decoder, sources: Sequence[Ids], symbols: Symbols, batch: int = 256, **options) -> list[list[int]]:
    """What a `BidirectionalDecoder` writes, in the same form."""

    def decode(rows):
        return decoder.generate_ids(rows, stop_ids=symbols.stop, pad_id=symbols.pad, **options)

    return decode_batches(decode, sources, symbols, batch)


def decode_batches(decode, sources: Sequence[Ids], symbols: Symbols, batch: int) -> list[list[int]]:
    """The decoded rows of sources, which are decoded with others of their length."""
    found: list[list[int]] = [[]] * len(sources)
    by_length = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in range(0, len(sources), batch):
        rows = by_length[start : start + batch]
        for i, ids in zip(rows, decode([list(sources[i]) for i in rows]), strict=True):
            found[i] = [int(token) for token in ids if token not in (symbols.stop, symbols.pad)]
    return found
