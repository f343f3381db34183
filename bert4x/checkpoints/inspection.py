"""What is in a checkpoint, and whether two are the same model."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.detect import find_tokenizer, open_checkpoint
from bert4x.checkpoints.heads import HeldHead
from bert4x.errors import ConfigError, NotFiniteError
from bert4x.hub.names import local

SENTENCES = (
    "床前明月光，疑是地上霜。",
    "今天天气很好，我们去公园散步吧。",
    "The quick brown fox jumps over the lazy dog.",
)


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


def inspect(source: str | os.PathLike, config=None) -> Inspection:
    """Format, family, config and tensors of a checkpoint, and what in it is missing or unexpected; reads no values.

    Raises: the errors of opening a checkpoint; what is wrong with its tensors is in the result instead.
    """
    checkpoint = open_checkpoint(local(source), config)
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


def verify(first: str | os.PathLike, second: str | os.PathLike, *, seed: int = 0) -> dict[str, float]:
    """Runs two checkpoints on the same inputs, real sentences and random ids; the largest difference of each output.
    The heads of tasks are compared, too: of labels, by their probabilities.

    Raises: ConfigError when they cannot be compared: other families, vocabularies, sizes or heads; NotFiniteError when
        one computes NaN or infinity.
    """
    from bert4x.models.build import load

    checkpoints = [open_checkpoint(path) for path in (first, second)]
    a, b = (checkpoint.config for checkpoint in checkpoints)
    families = {config.model.removesuffix("_unshared") for config in (a, b)}
    if len(families) > 1 or a.vocab_size != b.vocab_size:
        raise ConfigError(
            f"{first} is {a.model} with {a.vocab_size} tokens, {second} is {b.model} with {b.vocab_size}; "
            "only two layouts of one model can be compared"
        )
    heads = head_options(checkpoints)
    tasks = compared_heads(checkpoints, (first, second))
    models = [load(path, dtype="float32", **heads) for path in (first, second)]
    names = [name for name in ("with_nsp", "with_pool", "with_mlm") if name in heads] or ["hidden"]
    names = [name for name in names if name != "with_pool" or "with_nsp" not in heads]
    names += task_outputs(tasks[0]) if tasks else []
    worst = dict.fromkeys(names, 0.0)
    for inputs in sample_inputs(models[0], min(a.max_position, b.max_position), seed):
        outputs = [as_arrays(model(inputs)) for model in models]
        if tasks:
            outputs = [[*arrays, *scores_of(task, inputs)] for arrays, task in zip(outputs, tasks, strict=True)]
        for name, x, y in zip(worst, *outputs, strict=True):
            if x.shape != y.shape:
                raise ConfigError(
                    f"{name} of {first} has shape {x.shape}, of {second} {y.shape}; "
                    "only two layouts of one model can be compared"
                )
            for path, values in ((first, x), (second, y)):
                if not np.isfinite(values).all():
                    raise NotFiniteError(f"{path} computes NaN or infinity in {name}; its weights are damaged")
            worst[name] = max(worst[name], float(np.abs(x - y).max()))
    return worst


def compared_heads(checkpoints: list[Checkpoint], paths: Sequence[str | os.PathLike]) -> list:
    """The tasks whose heads two checkpoints have, none if neither has one.

    Raises: ConfigError when one has a head the other lacks, or heads are of other tasks or labels.
    """
    from bert4x.tasks.pipelines import pipeline

    for name in sorted(set(checkpoints[0].report.unknown) ^ set(checkpoints[1].report.unknown)):
        owner = checkpoints[0 if name in checkpoints[0].report.unknown else 1].files.path
        raise ConfigError(f"only {owner} has {name}, of a head that is not known here; the two are not the same model")
    heads = [checkpoint.head for checkpoint in checkpoints]
    if not any(heads):
        return []
    for checkpoint, head in zip(checkpoints, heads, strict=True):
        if head is None:
            other = next(c for c in checkpoints if c.head)
            raise ConfigError(f"only {other.files.path} has the {other.head}; {checkpoint.files.path} has none")
        head.check(checkpoint.files.path)
    a, b = heads
    if (a.task, a.labels) != (b.task, b.labels):
        first, second = (checkpoint.files.path for checkpoint in checkpoints)
        raise ConfigError(f"{first} has the {a}, {second} the {b}; the two are not the same model")
    if not a.tensors and not b.tensors:  # of a task whose head is the model's own
        return []
    return [pipeline(a.task, path, dtype="float32") for path in paths]


def task_outputs(task) -> list[str]:
    """The names of a task's outputs."""
    count = len(task.model.outputs)
    return [task.name] if count == 1 else [f"{task.name} {i}" for i in range(count)]


def scores_of(task, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a task's model computes; of labels, the probabilities. Padding is told by the padding id."""
    real = inputs.get("padding_mask", np.ones_like(inputs["token_ids"]))
    ids = np.where(real, inputs["token_ids"], task.pad_id).astype("int32")
    given = task.model_inputs(ids, inputs["segment_ids"])
    for tensor in task.model.inputs[len(given) :]:  # places, such as those of a subject
        given.append(np.zeros((len(ids), *(size or ids.shape[1] for size in tensor.shape[1:])), "int32"))
    outputs = as_arrays(task.model(given, training=False))
    return [task.probabilities(outputs[0])] if hasattr(task, "probabilities") else outputs


def head_options(checkpoints: list[Checkpoint]) -> dict[str, bool]:
    """The options that ask for every head both checkpoints have.

    Raises: ConfigError when one has a head the other lacks.
    """
    paths = {
        "with_mlm": "MLM-Bias/bias",
        "with_nsp": "NSP-Proba/kernel",
        "with_pool": "Pooler-Dense/kernel",
    }
    if checkpoints[0].config.model in ("gpt2", "transformer"):
        return {"with_mlm": True}
    held = [{name for name, path in paths.items() if path in checkpoint.entries} for checkpoint in checkpoints]
    for names, checkpoint in zip(held, checkpoints, strict=True):
        if checkpoint.head and checkpoint.head.settings.get("pooler") is False:  # it may be the identity: see `heads`
            names.discard("with_pool")
    for name in sorted(held[0] ^ held[1]):
        owner = checkpoints[0 if name in held[0] else 1].files.path
        raise ConfigError(f"only {owner} has the head {name}; the two are not the same model")
    return dict.fromkeys(sorted(held[0]), True)


def sample_inputs(model, max_position: int, seed: int):
    """Batches to compare on: sentences, if the model has a tokenizer, and random ids of two lengths."""
    if model.tokenizer is not None:
        for sentence in SENTENCES:
            ids, segments = model.tokenizer.encode(sentence, maxlen=max_position)
            if max(ids) < model.config.vocab_size:
                yield with_targets(model, {"token_ids": np.array([ids]), "segment_ids": np.array([segments])})
    random = np.random.default_rng(seed)
    for length in sorted({min(17, max_position), min(128, max_position)}):
        ids = random.integers(0, model.config.vocab_size, (3, length))
        segments = np.arange(length)[None, :] >= random.integers(0, length, (3, 1))
        segments = segments.astype("int32") * (model.config.segment_vocab_size > 1)
        padding_mask = np.arange(length) < [[length], [length - 1], [1]]
        yield with_targets(model, {"token_ids": ids, "segment_ids": segments, "padding_mask": padding_mask})


def with_targets(model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model takes: for an encoder-decoder the source, and the same backwards for a target."""
    if model.config.model != "transformer":
        return inputs
    source = {name: values for name, values in inputs.items() if name != "segment_ids"}
    return source | {"target_ids": inputs["token_ids"][:, ::-1]}


def as_arrays(outputs) -> list[np.ndarray]:
    """The outputs of a model as a list of NumPy arrays."""
    from keras import ops

    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [ops.convert_to_numpy(output) for output in outputs]
