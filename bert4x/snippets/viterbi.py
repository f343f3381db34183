"""The best path through scores of labels and of their transitions."""

from collections.abc import Collection
from typing import Any

import numpy as np

from bert4x.errors import InputError


class ViterbiDecoder:
    """Finds the labels whose scores and transitions have the largest sum. Subclass it, or call `decode`.

    Shape: `trans` (L, L), from the label of the row to that of the column; it may be assigned anew at any time.

    `starts` and `ends` are the labels that a path may begin and end with; None allows all.
    """

    def __init__(self, trans: Any, starts: Collection[int] | None = None, ends: Collection[int] | None = None):
        self.trans = trans
        self.num_labels = len(trans)
        self.non_starts = self._others("starts", starts)
        self.non_ends = self._others("ends", ends)

    def decode(self, nodes: Any) -> np.ndarray:
        """The best path; of several as good, the one with the smaller labels at its end. `nodes` stays as it is.

        Shape: (T, L) -> (T,), int

        Raises: InputError for other shapes, NaN, or when `starts`, `ends` and scores of -inf leave no path.
        """
        trans, nodes = np.asarray(self.trans), np.array(nodes, "float64")
        size = self.num_labels
        if trans.shape != (size, size) or nodes.ndim != 2 or nodes.shape[1] != size:
            raise InputError(f"nodes {nodes.shape}, trans {trans.shape}; expected (T, {size}) and ({size}, {size})")
        if not len(nodes):
            return np.zeros(0, int)
        nodes[0, self.non_starts] = -np.inf
        nodes[-1, self.non_ends] = -np.inf
        best = np.zeros(nodes.shape, int)  # of each place and label, the label before it
        scores = nodes[0]
        for place in range(1, len(nodes)):
            through = scores[:, None] + trans + nodes[place]
            best[place] = through.argmax(0)
            scores = through.max(0)
        path = [scores.argmax()]
        if not np.isfinite(scores[path[0]]):
            raise InputError(f"the best score is {scores[path[0]]}; expected a path from starts to ends, and no NaN")
        for before in best[:0:-1]:
            path.append(before[path[-1]])
        return np.array(path[::-1])

    def _others(self, name: str, allowed: Collection[int] | None) -> list[int]:
        labels = range(self.num_labels)
        if allowed is None:
            return []
        allowed = list(allowed)
        if not allowed or not all(label in labels for label in allowed):
            raise InputError(f"{name} is {allowed}; expected labels from 0 to {self.num_labels - 1}, or None for all")
        return [label for label in labels if label not in allowed]
