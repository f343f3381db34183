"""Scores of classes: precision, recall and F1 of each label, and which is taken for which."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bert4x.errors import InputError
from bert4x.metrics.spans import Counts, count_by_label


@dataclass(frozen=True)
class ClassScores:
    """How well texts were given their labels.

    `by_label` has the counts of every label; `confusion`, where each text has one label, how many texts of a label
    (row) were given each label (column), in the order of `labels`. `exact` is the share of texts whose labels are all
    right: with one label each that is the accuracy.
    """

    labels: tuple[str, ...]
    by_label: dict[str, Counts]
    exact: float
    confusion: tuple[tuple[int, ...], ...] | None = None

    @property
    def macro_f1(self) -> float:
        """The mean of the labels' F1; labels that neither are there nor were found are left out, as in scikit-learn."""
        some = [counts.f1 for counts in self.by_label.values() if counts.gold or counts.predicted]
        return sum(some) / len(some) if some else 0.0

    @property
    def micro(self) -> Counts:
        """The counts of all labels together."""
        return sum(self.by_label.values(), Counts())

    @property
    def scores(self) -> dict[str, float]:
        """What sums it up: accuracy with one label each, else F1 and the share of texts that are all right."""
        one = {"accuracy": self.exact} if self.confusion else {"f1": self.micro.f1, "exact": self.exact}
        return one | {"macro_f1": self.macro_f1}

    def to_dict(self) -> dict:
        """For JSON: the scores, each label's, and the matrix."""
        each = {
            label: {"precision": c.precision, "recall": c.recall, "f1": c.f1, "predicted": c.predicted, "gold": c.gold}
            for label, c in self.by_label.items()
        }
        matrix = (
            {"labels": list(self.labels), "confusion": [list(row) for row in self.confusion]} if self.confusion else {}
        )
        return {"scores": self.scores, "by_label": each} | matrix


def score_classes(
    predicted: Sequence[str | Iterable[str]], gold: Sequence[str | Iterable[str]], labels: Collection[str]
) -> ClassScores:
    """Compares the labels given to texts with those that they have: a str each, or several each.

    Raises: InputError for a label that is none of `labels`, and where there are not as many texts on either side.
    """
    labels = tuple(labels)
    one = all(isinstance(found, str) for found in [*predicted, *gold])
    predicted, gold = ([{x} if isinstance(x, str) else set(x) for x in some] for some in (predicted, gold))
    if unknown := sorted(set().union(*predicted, *gold) - set(labels)):
        raise InputError(f"label {unknown[0]!r}; expected one of {', '.join(labels)}")
    counts = count_by_label(predicted, gold, label=str)
    by_label = {label: counts.get(label, Counts()) for label in labels}
    exact = sum(p == g for p, g in zip(predicted, gold, strict=True)) / max(1, len(gold))
    if not one:
        return ClassScores(labels, by_label, exact)
    place = {label: i for i, label in enumerate(labels)}
    matrix = [[0] * len(labels) for _ in labels]
    for (found,), (true,) in zip(predicted, gold, strict=True):
        matrix[place[true]][place[found]] += 1
    return ClassScores(labels, by_label, exact, tuple(map(tuple, matrix)))
