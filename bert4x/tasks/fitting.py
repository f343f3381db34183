"""`Task.fit`: what a recipe does between its data and its answers, called from Python."""

import contextlib
import hashlib
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.errors import ConfigError, DataError, UnknownOptionError, nearest
from bert4x.training.batches import as_rows
from bert4x.training.command_line import alternatives, check

# Of the recipes' arguments, those about files, about loading a model, and about the command itself.
OTHERS = (
    *("model", "train", "valid", "output", "resume", "max_length", "precision", "recompute", "backend", "devices"),
    *("model_parallel", "json", "smoke"),
)
OPTIONS = tuple(field.name for field in fields(recipe.Arguments) if field.name not in OTHERS)


@dataclass
class Arguments(recipe.Arguments):
    """Those of a recipe, and what tells the same run from another: a file is not there to do so."""

    model: str | None = recipe.option("a model in memory", "where the task came from")
    task: str = recipe.option("", "its name")
    settings: str = recipe.option("", "its settings, and the sizes of its model")
    rows: str = recipe.option("", "a digest of what it learns from")
    scored: str = recipe.option("", "a digest of what it is scored on")
    verbose: bool = recipe.option(True, "whether lines are printed")

    @property
    def command(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name in OPTIONS}
        options = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"task.fit(rows, valid, output={str(self.output)!r}{options})"


class FromPython(recipe.Run):
    """A run that a call started, of which a notebook may know no command line."""

    def say(self, text: str) -> None:
        if self.args.verbose:
            print(text, flush=True)


class InFolder(FromPython):
    """A run in a folder, as a recipe's."""

    def __exit__(self, kind, error, traceback):
        self.held.close()
        if kind is KeyboardInterrupt and self.state.exists():
            self.say(f"interrupted; the same call goes on from update {self.updates_saved()}")


class InMemory(FromPython):
    """A run without a folder, so that none of it is written: the best weights are kept in memory."""

    def __init__(self, args):
        self.args, self.folder, self.records, self.best = args, None, [], []

    def __exit__(self, kind, error, traceback):
        if kind is KeyboardInterrupt:
            self.say("interrupted; the task has the weights of the last update")

    def observed(self, record: dict) -> None:
        self.records.append(record)

    def keep(self, task) -> None:
        self.best = [np.array(ops.convert_to_numpy(variable.value)) for variable in task.model.variables]

    def restore(self, task) -> None:
        for variable, values in zip(task.model.variables, self.best, strict=True):
            variable.assign(values)

    def metrics(self) -> list[dict]:
        return self.records

    def summarize(self, task, report, trained: int, scored: int) -> None:
        self.say(self.summary(report))


def fit(task, rows: Sequence, valid: Sequence = (), output=None, verbose: bool = True, **options) -> recipe.Report:
    """See `Task.fit`. Raises: DataError, ConfigError"""
    rows, valid = as_rows(rows), as_rows(valid)
    if not rows:
        raise DataError("no rows to learn from")
    if options.get("patience") is not None and not valid:
        raise ConfigError(f"patience = {options['patience']!r} needs scores: give valid rows to score on, valid=...")
    args = Arguments(**checked(options), precision=precision(task), verbose=verbose)
    check(args, spell=lambda name: f"{name} =")
    if output is None:
        kind = InMemory
    else:
        kind = InFolder
        args.output, args.resume = Path(output), "auto"
        settings = {name: getattr(task, name) for name in ("maxlen", *task.settings)}
        args.task, args.settings = task.name, digest([settings, task.config.to_dict()])
        args.rows, args.scored = digest(rows), digest(valid)
    with kind(args) as run, whole_again(task):
        return run.fit(task, rows, valid)


@contextlib.contextmanager
def whole_again(task):
    """After the block, however it ends, adapters are added to their matrices, and what they froze learns again."""
    from bert4x.training.lora import adapted, merge_lora

    before = [(variable, variable.trainable) for variable in [*task.backbone.variables, *task.model.variables]]
    try:
        yield
    finally:
        if adapted(task.backbone):
            merge_lora(task.backbone)
        for variable, trainable in before:
            variable.trainable = trainable


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options, each of which is known and of its kind. Raises: UnknownOptionError, ConfigError."""
    hints = typing.get_type_hints(recipe.Arguments)
    for name, value in options.items():
        if name not in OPTIONS:
            raise UnknownOptionError(f"fit has no option {name!r}; {nearest(name, OPTIONS)}")
        if not any(fits(value, kind) for kind in alternatives(hints[name])):
            raise ConfigError(f"{name} = {value!r}; expected {str(hints[name]).replace('typing.', '')}")
    return options


def fits(value, kind) -> bool:
    """Whether a value is of a kind: a number is no bool, and every whole number a float."""
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind in (int, float):
        return isinstance(value, int | np.integer if kind is int else int | float | np.number) and value is not True
    return isinstance(value, kind)


def precision(task) -> str:
    """That of the task's model, as a recipe calls it: what the loss is scaled for."""
    name = task.backbone.builder.policy.name
    return name if name in typing.get_args(recipe.PRECISIONS) else "float32"


def digest(data) -> str:
    """A name of some data that other data do not have."""
    text = json.dumps(data, ensure_ascii=False, default=str, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
