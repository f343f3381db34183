"""Tasks by name, to be called on text."""

import importlib
import os
from collections.abc import Callable
from importlib import metadata

from bert4x.errors import CheckpointNotFoundError, ConfigError, UnknownOptionError, nearest
from bert4x.hub.names import local
from bert4x.tasks.heads import read_task

TASKS = {
    "text-classification": "text_classification.TextClassification",
    "token-classification": "token_classification.TokenClassification",
    "triple-extraction": "triple_extraction.TripleExtraction",
    "gplinker": "gplinker.GPLinker",
    "reading-comprehension": "reading_comprehension.ReadingComprehension",
    "seq2seq": "seq2seq.Seq2Seq",
    "sentence-embedding": "sentence_embedding.SentenceEmbedding",
    "universal-extraction": "universal_extraction.UniversalExtraction",
}
# What pretraining is enough for: name -> class, and how its model is loaded.
PRETRAINED = {
    "fill-mask": ("fill_mask.FillMask", {"application": "encoder", "with_mlm": True}),
    "text-generation": ("text_generation.TextGeneration", {"application": "lm"}),
}
# Two ways to the same answers: a folder says which of them it holds.
ALIASES = {"triple-extraction": ("gplinker",)}
# The names that transformers, and PaddleNLP, give them.
OTHER_NAMES = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "question-answering": "reading-comprehension",
    "text2text-generation": "seq2seq",
    "summarization": "seq2seq",
    "information_extraction": "universal-extraction",
}


GROUP = "bert4x.tasks"  # the entry points by which packages of users name their tasks
_REGISTERED: dict[str, type] = {}  # tasks of users


def task(name: str):
    """Class decorator: gives a subclass of `bert4x.tasks.task.Task` a name by which `pipeline`, the folders that it
    saves and the command know it. A package of yours names it as an entry point of the group "bert4x.tasks" instead,
    `sentiment = "package.module:Class"`, and is then imported when the task is asked for.

    Raises: ConfigError for the name of a task of this package.
    """
    if name in (*TASKS, *PRETRAINED, *OTHER_NAMES):
        raise ConfigError(f"{name!r} is the name of a task of bert4x; expected another")

    def decorate(cls: type) -> type:
        cls.name = name
        _REGISTERED[name] = cls
        return cls

    return decorate


def users_tasks() -> dict[str, Callable[[], type]]:
    """Names of users' tasks -> what gives their class."""
    points = {point.name: point.load for point in metadata.entry_points(group=GROUP)}
    return points | {name: lambda cls=cls: cls for name, cls in _REGISTERED.items()}


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
    if not isinstance(task, str):
        raise UnknownOptionError(f"found {task!r:.60} as the task; expected its name, such as 'ner'")
    task = OTHER_NAMES.get(task, task)
    if task in PRETRAINED:
        from bert4x.models.build import load

        home, defaults = PRETRAINED[task]
        return named_class(home)(load(folder, **defaults | options))
    cls = None if task in ALIASES else task_class(task)
    if folder is None:
        raise CheckpointNotFoundError(f"{task} needs the folder of a trained one: pipeline({task!r}, folder)")
    folder = local(folder)
    found, _ = read_task(folder, options.get("config"))
    cls = cls or task_class(found if found in ALIASES[task] else task)
    return cls.load(folder, **options)


def task_class(name: str) -> type:
    """The class of a task. Raises: UnknownOptionError"""
    if name in TASKS:
        return named_class(TASKS[name])
    users = users_tasks()
    if name not in users:
        known = [*TASKS, *users, *PRETRAINED, *OTHER_NAMES]
        raise UnknownOptionError(f"no task {name!r}; {nearest(str(name), known)}")
    cls = users[name]()
    cls.name = name
    return cls


def named_class(home: str) -> type:
    """A class of this package, given as module.Class."""
    module, _, cls = home.partition(".")
    return getattr(importlib.import_module(f"bert4x.tasks.{module}"), cls)
