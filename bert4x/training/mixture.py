"""The order in which rows are dealt out: batches of one length, a mixture of files, resumable from a step number."""

import numpy as np

from bert4x.errors import InputError
from bert4x.training.corpus import BUCKETS, Rows


class Mixture:
    """Rows of several files, each file seen `weight` times an epoch.

    Rows of about the same length are batched together, with `batch_tokens` tokens a batch whatever their length; what
    is left over of an epoch, less than a batch of each length, is dropped.

    The order is a function of (seed, epoch) alone, so `rows(step)` needs no state to resume from.

    Args:
        batch_tokens: tokens a batch, padding included; a multiple of the longest bucket.
    Raises: InputError for batches that hold no row, and for files that hold no batch.
    """

    def __init__(self, files: list[Rows], batch_tokens: int, seed: int = 0):
        if batch_tokens < BUCKETS[-1]:
            raise InputError(f"batches of {batch_tokens} tokens cannot hold a row; give at least {BUCKETS[-1]}")
        self.files, self.batch_tokens, self.seed = files, batch_tokens, seed
        self._epoch = -1
        self._plan: list[tuple[int, np.ndarray]] = []
        self.batches_per_epoch = 0
        self.batches_per_epoch = len(self._epoch_plan(0))
        if not self.batches_per_epoch:
            raise InputError(f"the files hold less than one batch of {batch_tokens} tokens; give more or a smaller one")

    def rows(self, step: int) -> tuple[int, list[np.ndarray]]:
        """Padded length, and the rows, of batch `step`. Shape: B rows (T,)"""
        epoch, i = divmod(step, self.batches_per_epoch)
        length, picks = self._epoch_plan(epoch)[i]
        return length, [self.files[file][row] for file, row in picks]

    def token_counts(self, vocab_size: int) -> np.ndarray:
        """How often an epoch holds each token. Shape: (V,) float64"""
        counts = np.zeros(vocab_size)
        for file in self.files:
            for start in range(0, len(file.ids), 1 << 24):
                counts += file.weight * np.bincount(file.ids[start : start + (1 << 24)], minlength=vocab_size)
        return counts

    def _epoch_plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """All batches of an epoch: (length, (rows, 2) array of file and row numbers)."""
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            picks, lengths = self._pick(rng)
            plan = []
            for low, high in zip((0, *BUCKETS), BUCKETS, strict=False):
                group = rng.permutation(picks[(lengths > low) & (lengths <= high)])
                size = self.batch_tokens // high
                plan += [(high, group[i : i + size]) for i in range(0, len(group) - size + 1, size)]
            # Which rows of a file with a fractional weight an epoch sees, and so its number of batches, differ a
            # little from epoch to epoch. Epoch 0 sets the number, so that a step number alone says where we are.
            order = np.resize(rng.permutation(len(plan)), self.batches_per_epoch or len(plan))
            self._epoch, self._plan = epoch, [plan[i] for i in order]
        return self._plan

    def _pick(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an epoch, each file's as often as its weight says: (rows, 2) file and row, (rows,) length."""
        picks, lengths = [], []
        for number, file in enumerate(self.files):
            count = round(len(file) * file.weight)
            times = -(-count // max(len(file), 1))
            order = np.concatenate([np.zeros(0, np.int64), *(rng.permutation(len(file)) for _ in range(times))])
            order = order[:count].astype(np.int64)
            picks.append(np.stack([np.full(count, number), order], axis=1))
            lengths.append(file.lengths[order])
        return np.concatenate(picks), np.concatenate(lengths) + 3
