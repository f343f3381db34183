"""Several texts in a row of a batch, so that almost nothing of it is padding.

Models built with `packed=True` keep the texts of a row apart (`bert4x.masks`): what they compute of a text is what they
would compute of it alone (Krell et al. 2021, arXiv 2107.02027).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from bert4x.errors import DataError
from bert4x.training.batches import Batches


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which texts to put in a row: the longest first, each where it leaves the least room.

    Returns: for each row the numbers of its texts. How many rows there are depends on the lengths alone.
    Raises: DataError for a text longer than a row.
    """
    lengths = np.asarray(lengths)
    if len(lengths) and lengths.max() > capacity:
        raise DataError(f"a text of {lengths.max()} tokens does not fit a row of {capacity}; make it shorter")
    rooms: list[list[list[int]]] = [[] for _ in range(capacity + 1)]  # by the room that is left in them
    rows = []
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        room = next((room for room in range(length, capacity) if rooms[room]), capacity)
        if room < capacity:
            row = rooms[room].pop()
        else:
            row = []
            rows.append(row)
        row.append(text)
        rooms[room - length].append(row)
    return rows


def in_rows(lengths: Iterable[int], capacity: int) -> list[tuple[int, int]]:
    """Where texts stand that are put into rows one after the other, a new row where one does not fit.

    Returns: for each text (row, first place). Texts in the order of `best_fit` take no more rows than there.
    """
    found, row, start = [], 0, 0
    for length in lengths:
        if start + length > capacity:
            row, start = row + 1, 0
        found.append((row, start))
        start += length
    return found


def packed_rows(
    texts: Sequence[Sequence[int]], places: Sequence[tuple[int, int]], shape: tuple[int, int], value: int = 0
) -> np.ndarray:
    """Numbers of texts, put where `in_rows` says; `value` is what there is after them. Shape: -> `shape`, int32"""
    rows = np.full(shape, value, "int32")
    for numbers, (row, start) in zip(texts, places, strict=True):
        rows[row, start : start + len(numbers)] = numbers
    return rows


class PackedBatches(Batches):
    """Which examples are in which batch of packed rows: as many in each as fill `rows` rows of `capacity` tokens.

    An epoch has each example once; what its last batch lacks in rows is drawn a second time. Which texts share a row,
    and the order of rows, are drawn anew every epoch.

    Args:
        lengths: of the examples, in tokens.
        size: examples of a batch on average; it decides how many rows there are.
        capacity: tokens of a row.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int = 0, capacity: int = 512):
        super().__init__(lengths, size, seed, capacity)
        packed = best_fit(self.lengths, capacity)
        self.capacity = capacity
        self.rows = max(1, round(len(packed) * size / len(self.lengths)))
        self.count = -(-len(packed) // self.rows)
        self.real = float(self.lengths.sum()) / (len(packed) * capacity)  # share of the tokens that is no padding

    def __len__(self):
        return self.count

    def plan(self, draw):
        order = draw.permutation(len(self.lengths))
        packed = best_fit(self.lengths[order], self.capacity)
        packed = [packed[i] for i in np.resize(draw.permutation(len(packed)), len(self) * self.rows)]
        batches = [packed[start : start + self.rows] for start in range(0, len(packed), self.rows)]
        return [(order[np.concatenate(rows)], self.capacity) for rows in batches]
