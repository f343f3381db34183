"""Spans as BIO tags of tokens, and the best spans by scores of tags: NumPy only."""

from collections.abc import Sequence

import numpy as np

from bert4x.layers.crf import best_path, log_softmax
from bert4x.metrics.spans import find_entities

NEVER = -1e12  # the score of tags that cannot follow each other: finite, so that sums of it are

Span = tuple[str, int, int]  # label, first and last token


class Bio:
    """The tags of some labels: O, and B- and I- of each."""

    def __init__(self, labels: Sequence[str]):
        self.tags = ["O", *(f"{place}-{label}" for label in labels for place in "BI")]
        self.numbers = {tag: i for i, tag in enumerate(self.tags)}
        # I- begins nothing, and goes on only with what is of the same label: not so for O, and for any other one.
        inside = np.arange(len(self.tags)) % 2 == 0
        inside[0] = False
        same = (np.arange(len(self.tags)) + 1) // 2
        self.first = np.where(inside, NEVER, 0.0)
        self.steps = np.where(inside[None] & (same[:, None] != same[None]), NEVER, 0.0)

    def encode(self, spans: Sequence[Span], length: int) -> tuple[np.ndarray, int]:
        """The tags of tokens, and how many spans they leave out since these overlap with earlier ones.

        Shape: -> (T,) int32
        """
        tags, left_out = np.zeros(length, "int32"), 0
        for label, first, last in spans:
            if tags[first : last + 1].any():
                left_out += 1
                continue
            tags[first : last + 1] = self.numbers[f"I-{label}"]
            tags[first] = self.numbers[f"B-{label}"]
        return tags, left_out

    def decode(self, places: np.ndarray, steps: np.ndarray, scored: bool = True) -> list[tuple[Span, float]]:
        """The spans of the best path, and the probability of each: that its tokens have these tags, of all paths that
        spans can have. Without `scored`, that is 1.

        Shape: the scores of tags (T, L), and of each after each other (T - 1, L, L)
        """
        places, steps = places.astype("float64"), steps + self.steps
        places[0] += self.first
        path = best_path(places, steps)
        spans = [(label, first, end - 1) for label, first, end in find_entities([self.tags[tag] for tag in path])]
        if not scored or not spans:
            return [(span, 1.0) for span in spans]
        before, after = log_sums(places, steps)
        said = np.take_along_axis(places, path[:, None], 1)[:, 0]
        through = np.cumsum([0, *(steps[range(len(steps)), path[:-1], path[1:]] + said[1:])])
        total = np.logaddexp.reduce(before[-1])
        logs = [
            before[first, path[first]] + through[last] - through[first] + after[last, path[last]] - total
            for _, first, last in spans
        ]
        return [(span, min(float(np.exp(log)), 1.0)) for span, log in zip(spans, logs, strict=True)]


def log_sums(places: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of the sum of e^score over all paths to each tag, itself included, and from it on, without it.

    Shape: (T, L), (T - 1, L, L) -> 2 x (T, L)
    """
    before, after = places.copy(), np.zeros_like(places)
    for t in range(1, len(places)):
        before[t] += np.logaddexp.reduce(before[t - 1][:, None] + steps[t - 1], axis=0)
    for t in range(len(places) - 2, -1, -1):
        after[t] = np.logaddexp.reduce(steps[t] + places[t + 1] + after[t + 1], axis=1)
    return before, after


def independent(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `Bio.decode` takes of tags that do not know of each other.

    Shape: (T, L) -> (T, L), (T - 1, 1, 1)
    """
    return log_softmax(scores.astype("float64"), -1), np.zeros((len(scores) - 1, 1, 1))
