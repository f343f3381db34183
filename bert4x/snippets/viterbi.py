"""The best path through scores of labels and of their transitions."""

from collections.abc import Collection
from typing import Any

import numpy as np

from bert4x.errors import InputError
from bert4x.layers.transitions import best_paths


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
        steps = np.broadcast_to(trans, (1, len(nodes) - 1, size, size))
        (path,), (score,) = best_paths(nodes[None], steps, np.array([len(nodes)]))
        if not np.isfinite(score):
            raise InputError(f"the best score is {score}; expected a path from starts to ends, and no NaN")
        return path

    def _others(self, name: str, allowed: Collection[int] | None) -> list[int]:
        labels = range(self.num_labels)
        if allowed is None:
            return []
        allowed = list(allowed)
        if not allowed or not all(label in labels for label in allowed):
            raise InputError(f"{name} is {allowed}; expected labels from 0 to {self.num_labels - 1}, or None for all")
        return [label for label in labels if label not in allowed]
