"""How well a classifier tells each class from the others."""

from collections.abc import Callable, Sequence

from bert4x.errors import ConfigError, DataError
from bert4x.metrics.classes import ClassScores, score_classes


def class_scores(
    task, rows: Sequence[tuple], batch_size: int = 32, observe: Callable[[int], None] = lambda count: None
) -> ClassScores:
    """Precision, recall and F1 of each label of a text classification on rows, and the confusion matrix.

    Raises: DataError without rows; ConfigError for a regression, which has no classes.
    """
    if getattr(task, "problem_type", None) == "regression":
        raise ConfigError("a regression has no classes")
    if not rows:
        raise DataError("no rows to score")
    answers, part = [], 4 * batch_size
    for start in range(0, len(rows), part):
        texts = [row[0] if len(row) == 2 else tuple(row[:-1]) for row in rows[start : start + part]]
        answers += task(texts, batch_size=batch_size)
        observe(len(texts))
    if not task.multi_label:
        return score_classes([one.label for one in answers], [str(row[-1]) for row in rows], task.labels)
    gold = [[row[-1]] if isinstance(row[-1], str | int) else row[-1] for row in rows]
    return score_classes(
        [[one.label for one in some] for some in answers],
        [[str(label) for label in some] for some in gold],
        task.labels,
    )
