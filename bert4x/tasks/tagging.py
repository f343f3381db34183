"""Spans as BIO tags of tokens, and the best spans by scores of tags: NumPy only."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bert4x.checkpoints.heads import bio_tags
from bert4x.errors import ConfigError
from bert4x.layers.transitions import best_paths
from bert4x.metrics.spans import find_entities
from bert4x.numpy_ops import log_softmax, logsumexp

NEVER = -1e12  # the score of tags that cannot follow each other: finite, so that sums of it are
PLACES = "BIMESLUW"  # before the - of a tag: in BIO, BIOES, BMES, BILOU and BMEWO

Span = tuple[str, int, int]  # label, first and last token


class Bio:
    """The tags of some labels: O, and B- and I- of each."""

    def __init__(self, labels: Sequence[str]):
        self.tags = bio_tags(labels)
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
        return self.decode_all([(places, steps)], scored)[0]

    def decode_all(
        self, potentials: Sequence[tuple[np.ndarray, np.ndarray]], scored: bool = True
    ) -> list[list[tuple[Span, float]]]:
        """`decode` for several texts at once, which is many times faster: NumPy takes a step of all of them together.

        Shape: for each text (T, L), and (T - 1, L, L) or (T - 1, 1, 1)
        """
        places, steps, lengths = padded(potentials)
        places[:, 0] += self.first
        steps += self.steps
        paths, _ = best_paths(places, steps, lengths)
        sums = log_sums(places, steps, lengths) if scored else None
        found = []
        for row, length in enumerate(lengths):
            tags = [self.tags[tag] for tag in paths[row, :length]]
            spans = [(label, first, end - 1) for label, first, end in find_entities(tags)]
            if not scored or not spans:
                found.append([(span, 1.0) for span in spans])
                continue
            path, before, after = paths[row, :length], sums[0][row], sums[1][row]
            said = np.take_along_axis(places[row, :length], path[:, None], 1)[:, 0]
            through = np.cumsum([0, *(steps[row, range(length - 1), path[:-1], path[1:]] + said[1:])])
            total = logsumexp(before[length - 1], axis=0)
            logs = [
                before[first, path[first]] + through[last] - through[first] + after[last, path[last]] - total
                for _, first, last in spans
            ]
            found.append([(span, min(float(np.exp(log)), 1.0)) for span, log in zip(spans, logs, strict=True)])
        return found


class Grouped:
    """Tags of any scheme, each token's the likeliest on its own, and neighbours that belong together as one entity.

    With tags that are labels alone, or labels after B- and I-, entities are those of transformers' pipeline with the
    aggregation strategy "simple": B- begins one; any other tag goes on with one of the same label. Where there are
    other places (BIOES, BMES, BILOU), they are those of `find_entities`, for which a tag that is a label alone, such as
    X or [SEP], is I- of it. O is no entity.
    """

    def __init__(self, tags: Sequence[str]):
        self.tags = list(tags)
        self.numbers = {tag: i for i, tag in enumerate(self.tags)}
        self.labels = [tag[2:] if tag[1:2] == "-" and tag[0] in PLACES else tag for tag in self.tags]
        places = {tag[0] for tag, label in zip(self.tags, self.labels, strict=True) if tag != label}
        self.simple = places <= {"B", "I"}
        pairs = zip(self.tags, self.labels, strict=True)
        self.placed = [f"I-{tag}" if tag == label != "O" else tag for tag, label in pairs]

    @property
    def entity_labels(self) -> list[str]:
        """The labels of entities: those of the tags but O."""
        return list(dict.fromkeys(label for tag, label in zip(self.tags, self.labels, strict=True) if tag != "O"))

    def encode(self, spans: Sequence[Span], length: int) -> tuple[np.ndarray, int]:
        """As `Bio.encode`. Raises: ConfigError without O, which most tokens have."""
        if "O" not in self.numbers:
            raise ConfigError(f"tags {self.tags} have no O for tokens of no entity, so they cannot be trained")
        tags, left_out = np.full(length, self.numbers["O"], "int32"), 0
        for label, first, last in spans:
            if (tags[first : last + 1] != self.numbers["O"]).any():
                left_out += 1
                continue
            tags[first : last + 1] = self.number(label, "IM")
            tags[last] = self.number(label, "ELIM")
            tags[first] = self.number(label, "SUWBI" if first == last else "BI")
        return tags, left_out

    def number(self, label: str, places: str) -> int:
        """The number of a label's tag: at the first of these places that there is, or of the label alone."""
        tags = [*(f"{place}-{label}" for place in places), label, *(f"{place}-{label}" for place in PLACES)]
        return next(self.numbers[tag] for tag in tags if tag in self.numbers)

    def decode(self, places: np.ndarray, steps: np.ndarray, scored: bool = True) -> list[tuple[Span, float]]:
        """The spans, and of each the mean of its tokens' probabilities; `steps` say nothing here.

        Shape: the logarithms of probabilities of tags (T, L)
        """
        best = places.argmax(-1)
        likely = np.exp(places[range(len(best)), best])
        spans = self.group(best) if self.simple else find_entities([self.placed[tag] for tag in best])
        return [((label, first, end - 1), float(likely[first:end].mean())) for label, first, end in spans]

    def decode_all(
        self, potentials: Sequence[tuple[np.ndarray, np.ndarray]], scored: bool = True
    ) -> list[list[tuple[Span, float]]]:
        """`decode` for several texts. Shape: of each (T, tags)"""
        return [self.decode(*one, scored) for one in potentials]

    def group(self, best: Sequence[int]) -> list[tuple[str, int, int]]:
        """Runs of one label, from their first token to before the next run's, but those of O."""
        starts = [
            i
            for i, tag in enumerate(best)
            if i == 0 or self.labels[tag] != self.labels[best[i - 1]] or self.tags[tag].startswith("B-")
        ]
        runs = [(self.labels[best[start]], start, end) for start, end in pairwise([*starts, len(best)])]
        return [run for run in runs if run[0] != "O"]


def padded(potentials: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores of several texts as arrays, and their lengths; what is beyond a text does not matter.

    Shape: for each text (T, L) and (T - 1, L, L) or (T - 1, 1, 1) -> (B, T, L), (B, T - 1, L, L), (B,)
    """
    lengths = np.array([len(places) for places, _ in potentials])
    size, tags = lengths.max(initial=1), potentials[0][0].shape[1]
    places = np.zeros((len(potentials), size, tags))
    steps = np.zeros((len(potentials), size - 1, tags, tags))
    for row, (own, between) in enumerate(potentials):
        places[row, : len(own)], steps[row, : len(between)] = own, between
    return places, steps, lengths


def log_sums(places: np.ndarray, steps: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of the sum of e^score over all paths to each tag, itself included, and from it on, without it; for
    several texts.

    Shape: (B, T, L), (B, T - 1, L, L), (B,) -> 2 x (B, T, L); what is beyond a text does not matter
    """
    before, after = places.copy(), np.zeros_like(places)
    for t in range(1, places.shape[1]):
        before[:, t] += logsumexp(before[:, t - 1, :, None] + steps[:, t - 1], axis=1)
    for t in range(places.shape[1] - 2, -1, -1):
        onward = logsumexp(steps[:, t] + (places[:, t + 1] + after[:, t + 1])[:, None], axis=2)
        after[:, t] = np.where(t + 1 < lengths[:, None], onward, 0.0)
    return before, after


def independent(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `Bio.decode` takes of tags that do not know of each other.

    Shape: (T, L) -> (T, L), (T - 1, 1, 1)
    """
    return log_softmax(scores.astype("float64"), -1), np.zeros((len(scores) - 1, 1, 1))
