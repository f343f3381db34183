"""The head of a task as a checkpoint, or a task, holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bert4x.checkpoints.tensors import LazyTensor
from bert4x.errors import TensorMismatchError


@dataclass(frozen=True)
class HeldHead:
    """The head of a task that a checkpoint, or a task, holds.

    `settings` are those of the task's class in `bert4x.tasks`; `tensors` are its variables by path, in our layout;
    `names` what the file calls them. `problem` says why it cannot be used, if so.
    """

    task: str
    settings: dict[str, Any]
    tensors: dict[str, LazyTensor]
    names: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def labels(self) -> list[str]:
        """The labels that it gives; for tags of tokens, the tags. None for a task without."""
        given = {name: self.settings.get(name) for name in ("labels", "tags")}
        labels, tags = ([str(x) for x in value] if isinstance(value, list) else [] for value in given.values())
        return (tags or bio_tags(labels)) if self.settings.get("method") == "softmax" else labels

    def __str__(self) -> str:
        labels = ", ".join(self.labels[:5]) + (" ..." if len(self.labels) > 5 else "")
        names = ", ".join(self.names[:4]) + (" ..." if len(self.names) > 4 else "")
        return f"head for {self.task}{f' ({labels})' if labels else ''}: {names}"

    def check(self, where) -> None:
        """Raises: TensorMismatchError for a head that cannot be used."""
        if self.problem:
            raise TensorMismatchError(f"{where}: the {self}: {self.problem}")


def bio_tags(labels: Sequence[str]) -> list[str]:
    """The tags of tokens by which entities of these labels are told: O, and B- and I- of each."""
    return ["O", *(f"{place}-{label}" for label in labels for place in "BI")]
