"""The head of a task in a checkpoint: whether it is there, its settings, its values."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.heads import HeldHead
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.sentence_vectors import are_sentence_vectors, read_settings
from bert4x.checkpoints.task_file import FILE, read_task_file
from bert4x.checkpoints.weights import check_finite
from bert4x.errors import Bert4xError, CheckpointNotFoundError, CorruptFileError, TensorMismatchError
from bert4x.runtimes.exported import is_export


def read_task(folder: str | os.PathLike, config=None) -> tuple[str, dict]:
    """The name of the task whose head a checkpoint holds, and its settings. `config` is that of `open_checkpoint`.

    Raises: CheckpointNotFoundError where it holds none; CorruptFileError, TensorMismatchError; those of opening it.
    """
    path = Path(folder).expanduser()
    if (path / FILE).is_file():
        return read_task_file(path / FILE)
    if are_sentence_vectors(path):
        return "sentence-embedding", read_settings(path)
    if path.is_dir() and not any(path.iterdir()):
        raise CheckpointNotFoundError(f"{path / FILE} does not exist; expected the folder of a trained task")
    if is_export(path):
        raise CheckpointNotFoundError(
            f"{path} is the export of a model without the head of a task; export the folder of a trained task"
        )
    checkpoint = open_checkpoint(folder, config)
    head = checkpoint.head
    if head is None:
        raise CheckpointNotFoundError(
            f"{path / FILE} does not exist, and the weights have no head of a task that is known here"
            f"{unknown_head(checkpoint)}; expected the folder of a trained task"
        )
    head.check(folder)
    return head.task, dict(head.settings)


def unknown_head(checkpoint: Checkpoint) -> str:
    """What a checkpoint without a known head has beside its model, and what to do if it is one all the same."""
    if not checkpoint.report.unknown:
        return ""
    named = ", ".join(checkpoint.architectures) or "no class"
    known = dict.fromkeys(head.architecture for head in checkpoint.table.heads if "For" in (head.architecture or ""))
    hint = f'. If it computes as {" or ".join(known)}, let "architectures" there name that' if known else ""
    return f" (there are {', '.join(checkpoint.report.unknown[:4])}, and the config names {named}{hint})"


def known_settings(cls, settings: dict[str, Any], folder: str | os.PathLike) -> dict[str, Any]:
    """The settings that a task's class takes. Raises: CorruptFileError for others, and for labels that are no list."""
    unknown = sorted(set(settings) - {"maxlen", *cls.settings})
    lists = {name: settings[name] for name in ("labels", "tags") if settings.get(name) is not None}
    odd = [name for name, value in lists.items() if not isinstance(value, list | tuple)]
    odd += [name for name in ("maxlen",) if type(settings.get(name, 8)) is not int]
    if unknown or odd:
        found = ", ".join(f"{name} = {settings[name]!r:.40}" for name in [*unknown, *odd])
        raise CorruptFileError(f"{Path(folder) / FILE} has settings that no {cls.name} has: {found}")
    return settings


@contextlib.contextmanager
def naming_settings(file: Path) -> Iterator[None]:
    """Errors about settings name the file that they came from, if there is one."""
    try:
        yield
    except (Bert4xError, TypeError, ValueError, KeyError, AttributeError) as error:
        if not file.is_file() or str(file) in str(error):
            raise
        kind = type(error) if isinstance(error, Bert4xError) else CorruptFileError
        raise kind(f"{file} says what cannot be: {str(error)[:1000]}") from error


def assign_head(variables: dict, head: HeldHead | None, folder: str | os.PathLike) -> None:
    """Gives the variables of a head their values. Raises: TensorMismatchError; the errors of reading."""
    found = set(head.tensors) if head else set()
    if found != set(variables):
        raise TensorMismatchError(
            f"{folder} has the head {sorted(found - set(variables))} too much, and lacks "
            f"{sorted(set(variables) - found)}"
        )
    for name, variable in variables.items():
        tensor = head.tensors[name]
        if tuple(variable.shape) != tensor.shape:
            raise TensorMismatchError(f"{folder}: {name} has shape {tensor.shape}, expected {tuple(variable.shape)}")
        values = np.ascontiguousarray(tensor.read())
        check_finite(name, values)
        variable.assign(values)


def warn_of_head(backbone) -> None:
    """Warns, once, of a head that the model's checkpoint has, when another is put on the model."""
    report = getattr(backbone, "load_report", None)
    head = report.head if report is not None and report.head and report.head.tensors else None
    if report is None or report.head_in_use or not (head or report.unknown):
        return
    report.head_in_use = True
    unused = head or f"head that is not known here: {', '.join(report.unknown[:4])}"
    warnings.warn(
        f"the checkpoint has a {unused}. It is not used: the task that is put on the model begins with a head that "
        "knows nothing. To use it, open the checkpoint with bert4x.pipeline, or with the load of the task's class",
        stacklevel=4,
    )


def rebuilt(cls: type, backbone, settings: dict, head: dict[str, np.ndarray]):
    """The task that `Task.__reduce__` took apart."""
    task = cls(backbone, **{name: value for name, value in settings.items() if name != "transform"})
    for path, variable in task.head.items():
        variable.assign(head[path])
    return task
