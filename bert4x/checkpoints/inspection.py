"""What is in a checkpoint, and whether all of it can be read."""

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.heads import HeldHead
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.vocabulary import find_tokenizer
from bert4x.hub.names import family_by_name, local


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found, as plain values ready for JSON."""

    path: str
    format: str
    family: str
    config: dict[str, Any]
    tensors: list[dict[str, Any]]  # name, shape, dtype
    parameters: int
    bytes: int
    memory: dict[str, int]  # dtype of the model -> bytes its weights take
    absent_heads: list[str]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    duplicate: list[str]
    stray: list[str]
    head: dict[str, Any] | None  # of a task: task, labels, problem_type, tensors
    ignored: list[str]
    vocabulary: str | None


def inspect(source: str | os.PathLike, config=None, model: str | None = None) -> Inspection:
    """Format, family, config and tensors of a checkpoint, and what in it is missing or unexpected; reads no values.
    `config` and `model` are those of `open_checkpoint`.

    Raises: the errors of opening a checkpoint; what is wrong with its tensors is in the result instead.
    """
    checkpoint = open_checkpoint(local(source), config, model or family_by_name(source))
    parameters = sum(math.prod(shape) for shape, _ in checkpoint.variables.values())
    report = checkpoint.report
    return Inspection(
        path=str(checkpoint.files.path),
        format=checkpoint.format,
        family=checkpoint.config.model,
        config=checkpoint.config.to_dict(),
        tensors=[{"name": t.name, "shape": list(t.shape), "dtype": str(t.dtype)} for t in checkpoint.tensors.values()],
        parameters=parameters,
        bytes=sum(tensor.nbytes for tensor in checkpoint.tensors.values()),
        memory={"float32": 4 * parameters, "bfloat16": 2 * parameters},
        absent_heads=report.absent_heads,
        missing=report.missing,
        unexpected=report.unexpected,
        misshapen=report.misshapen,
        duplicate=report.duplicate,
        stray=report.stray,
        head=about_head(report.head),
        ignored=report.ignored,
        vocabulary=vocabulary_of(checkpoint),
    )


def about_head(head: HeldHead | None) -> dict[str, Any] | None:
    """What task a head is for, its labels and tensors, as plain values."""
    if head is None:
        return None
    found = {"task": head.task, "labels": head.labels, "tensors": list(head.names)}
    kept = {key: head.settings[key] for key in ("problem_type", "method") if head.settings.get(key)}
    return found | kept | ({"problem": head.problem} if head.problem else {})


def vocabulary_of(checkpoint: Checkpoint) -> str | None:
    """A word about the tokenizer beside the weights."""
    tokenizer = find_tokenizer(checkpoint)
    return f"{type(tokenizer).__name__}, {tokenizer.vocab_size} tokens" if tokenizer else None


def check(source: str | os.PathLike) -> int:
    """Reads all of a checkpoint: checksums where the format has them, and that every weight is finite.

    Returns the number of tensors that had a checksum.
    Raises: CorruptFileError, NotFiniteError, TensorMismatchError.
    """
    from bert4x.checkpoints.weights import check_finite

    checkpoint = open_checkpoint(local(source))
    checkpoint.report.raise_for_problems(checkpoint.files.path)
    checked = checkpoint.verify()
    for path in checkpoint.variables:
        check_finite(path, np.ascontiguousarray(checkpoint.read(path)))
    if checkpoint.head is not None:
        checkpoint.head.check(checkpoint.files.path)
        for path, tensor in checkpoint.head.tensors.items():
            check_finite(path, np.ascontiguousarray(tensor.read()))
    checkpoint.check_tied()
    return checked
