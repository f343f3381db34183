"""How a task learns from packed rows: another graph over its layers, and other arrays of the same examples."""

from collections.abc import Sequence

import numpy as np

from bert4x.training.batches import padded_length
from bert4x.training.packing import PackedBatches, in_rows, packed_rows

TIMES = 2  # the longest text: rows with little room left, in which attention computes little for padding
STEP = 16  # the places that are predicted from, in a row, are filled up to a multiple of it: few shapes


class Packed:
    """A task as a learner of packed rows.

    Args:
        task: one with `packed_model` and `parts`.
        examples: what it is to learn from.
        batch_size: examples of a batch, on average.
    """

    def __init__(self, task, examples: Sequence, batch_size: int, seed: int = 0):
        self.task, self.model, self.loss = task, task.packed_model(), task.loss
        lengths = [example.length for example in examples]
        self.batches = PackedBatches(lengths, batch_size, seed, padded_length(TIMES * max(lengths, default=1)))

    def batch(self, examples: Sequence, length: int, draw=None) -> tuple:
        """Shape: token ids, segment ids, numbers of texts (B, T), the places that are predicted from (B, K), -1 after
        them; the labels of these places (B, K), -1 after them.
        """
        ids, segments, where, labels = zip(*map(self.task.parts, examples), strict=True)
        spots, shape = in_rows(map(len, ids), length), (self.batches.rows, length)
        of_rows = [np.arange(len(spots))[[row == r for row, _ in spots]] for r in range(shape[0])]
        numbers = {text: number for texts in of_rows for number, text in enumerate(texts.tolist(), 1)}
        tokens = packed_rows(ids, spots, shape, self.task.pad_id)
        texts = packed_rows([[numbers[i]] * len(row) for i, row in enumerate(ids)], spots, shape)
        inputs = [tokens, packed_rows(segments, spots, shape), texts]
        if not self.task.backbone.builder.needs_segments:
            del inputs[1]
        places = [[spots[i][1] + place for i in row for place in where[i]] for row in of_rows]
        targets = [[label for i in row for label in labels[i]] for row in of_rows]
        most = -(-max(map(len, places)) // STEP) * STEP
        return [*inputs, self.task.padded(places, most, -1)], (self.task.padded(targets, most, -1),)
