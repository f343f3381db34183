"""Tasks by name, to be called on text."""

import importlib
import os

from bert4x.errors import CheckpointNotFoundError, UnknownOptionError, nearest
from bert4x.hub.names import local
from bert4x.tasks.heads import read_task

TASKS = {
    "text-classification": "text_classification.TextClassification",
    "token-classification": "token_classification.TokenClassification",
    "triple-extraction": "triple_extraction.TripleExtraction",
    "gplinker": "gplinker.GPLinker",
    "reading-comprehension": "reading_comprehension.ReadingComprehension",
    "seq2seq": "seq2seq.Seq2Seq",
}
# What pretraining is enough for: name -> class, and how its model is loaded.
PRETRAINED = {
    "fill-mask": ("fill_mask.FillMask", {"with_mlm": True}),
    "text-generation": ("text_generation.TextGeneration", {"application": "lm"}),
}
# Two ways to the same answers: a folder says which of them it holds.
ALIASES = {"triple-extraction": ("gplinker",)}
# The names that transformers gives them.
OTHER_NAMES = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "question-answering": "reading-comprehension",
    "text2text-generation": "seq2seq",
    "summarization": "seq2seq",
}


def pipeline(task: str, folder: str | os.PathLike | None = None, **options):
    """A task, to be called on a text or a list of texts: `pipeline("triple-extraction", "runs/ske")(text)`.

    Args:
        task: its name here, or that in transformers, such as "ner" or "sentiment-analysis".
        folder: what a recipe, or a task's `save`, wrote; or a checkpoint of another program with the head of such a
            task, such as transformers' BertForSequenceClassification. Also the name of one (`bert4x.hub`).
            "fill-mask" and "text-generation" take any checkpoint with that head; by default the small model inside the
            package.
        options: of `bert4x.load`, such as `dtype`, and settings of the task, such as `maxlen`.

    Raises: UnknownOptionError for a task that is not known; CheckpointNotFoundError; ConfigError when the folder is of
    another task; the errors of `load`.
    """
    task = OTHER_NAMES.get(task, task)
    if task in PRETRAINED:
        from bert4x.models.build import load

        home, defaults = PRETRAINED[task]
        return named_class(home)(load(folder, **defaults | options))
    if task not in TASKS:
        raise UnknownOptionError(f"no task {task!r}; {nearest(str(task), [*TASKS, *PRETRAINED, *OTHER_NAMES])}")
    if folder is None:
        raise CheckpointNotFoundError(f"{task} needs the folder of a trained one: pipeline({task!r}, folder)")
    folder = local(folder)
    found, _ = read_task(folder, options.get("config"))
    return task_class(found if found in ALIASES.get(task, ()) else task).load(folder, **options)


def task_class(name: str) -> type:
    """The class of a task."""
    return named_class(TASKS[name])


def named_class(home: str) -> type:
    """A class of this package, given as module.Class."""
    module, _, cls = home.partition(".")
    return getattr(importlib.import_module(f"bert4x.tasks.{module}"), cls)
