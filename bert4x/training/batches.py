"""Batches of texts of similar length: of few shapes, drawn anew every epoch, found again at any step."""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bert4x.errors import ConfigError, DataError

# Lengths that batches are padded to. JAX compiles anew for each, so there they are few, yet close; elsewhere the next
# multiple of STEP costs nothing but the padding.
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
STEP = 8
POOL = 64  # batches that are sorted by length together: more pad less, and mix less


def as_rows(rows: Iterable) -> list:
    """Rows as a list. Raises: DataError for what has none, such as the name of a file, or a dict of columns."""
    if isinstance(rows, str | bytes | os.PathLike | Mapping) or not isinstance(rows, Iterable):
        raise DataError(f"found {rows!r:.60} as rows; expected a list of them, as bert4x.tasks.readers give it")
    return list(rows)


def padded_length(length: int, longest: int | None = None) -> int:
    """A multiple of STEP that holds so many tokens, but no more than `longest`; on JAX the smallest of LENGTHS, beyond
    the last of them a multiple of it.
    """
    import keras

    padded = -(-length // STEP) * STEP
    if keras.backend.backend() == "jax":
        padded = next((n for n in LENGTHS if n >= length), -(-length // LENGTHS[-1]) * LENGTHS[-1])
    return padded if longest is None else max(length, min(padded, longest))


class Batches:
    """Which examples are in which batch of which epoch: a function of (seed, epoch, number), so a run finds its place
    again at once.

    Every batch has `size` rows. An epoch has each example once; what its last batch lacks is drawn a second time.

    Args:
        lengths: of the examples, in tokens.
        longest: what the model can take; no batch is padded beyond it.
    Raises: DataError without examples, ConfigError for a size below 1.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int = 0, longest: int | None = None):
        if not len(lengths):
            raise DataError("no examples to train on")
        if size < 1:
            raise ConfigError(f"batches of {size} rows; expected at least 1")
        self.lengths, self.size, self.seed, self.longest = np.asarray(lengths), size, seed, longest
        self.planned: tuple[int, list] | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.lengths) // self.size)

    def epoch(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        """The numbers of the examples of every batch, and the length to pad them to."""
        if self.planned is None or self.planned[0] != epoch:
            self.planned = epoch, self.plan(np.random.default_rng([self.seed, epoch]))
        return self.planned[1]

    def plan(self, draw: np.random.Generator):
        """The batches of one epoch."""
        order = draw.permutation(len(self.lengths))
        missing = len(self) * self.size - len(order)
        order = np.concatenate([order, np.resize(order, missing)])
        batches = []
        for start in range(0, len(order), POOL * self.size):
            pool = order[start : start + POOL * self.size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self.size)
        batches = [batches[i] for i in draw.permutation(len(batches))]
        return [(rows, padded_length(int(self.lengths[rows].max()), self.longest)) for rows in batches]

    def draw(self, epoch: int, number: int) -> np.random.Generator:
        """What a batch draws its random choices from."""
        return np.random.default_rng([self.seed, epoch, number])
