"""Trained tasks by name."""

import importlib
import os

from bert4x.errors import UnknownOptionError, nearest
from bert4x.tasks.task import read_task

TASKS = {
    "text-classification": "text_classification.TextClassification",
    "token-classification": "token_classification.TokenClassification",
    "triple-extraction": "triple_extraction.TripleExtraction",
    "gplinker": "gplinker.GPLinker",
    "reading-comprehension": "reading_comprehension.ReadingComprehension",
    "seq2seq": "seq2seq.Seq2Seq",
}
# Two ways to the same answers: a folder says which of them it holds.
ALIASES = {"triple-extraction": ("gplinker",)}


def pipeline(task: str, folder: str | os.PathLike, **options):
    """A trained task, to be called on text: `pipeline("triple-extraction", "runs/ske")(text)`.

    Args:
        folder: what a recipe, or a task's `save`, wrote; or a checkpoint of another program with the head of such a
            task, such as transformers' BertForSequenceClassification. Also the name of one (`bert4x.hub`).
        options: of `bert4x.load`, such as `dtype`, and settings of the task, such as `maxlen`.

    Raises: UnknownOptionError for a task that is not known; CheckpointNotFoundError; ConfigError when the folder is of
    another task; the errors of `load`.
    """
    if task not in TASKS:
        raise UnknownOptionError(f"no task {task!r}; {nearest(task, TASKS)}")
    found, _ = read_task(folder, options.get("config"))
    return task_class(found if found in ALIASES.get(task, ()) else task).load(folder, **options)


def task_class(name: str) -> type:
    """The class of a task."""
    module, _, cls = TASKS[name].partition(".")
    return getattr(importlib.import_module(f"bert4x.tasks.{module}"), cls)
