"""Heads of tasks: as a checkpoint holds one, and as another layout has room for it."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.spec import Head, Table
from bert4x.checkpoints.tables import SIZES, variables
from bert4x.checkpoints.task_file import FILE, read_task_file
from bert4x.checkpoints.tensors import LazyTensor, from_array
from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError, ConversionError, TensorMismatchError

PREFIX = "task/"  # before the names of a head's tensors in our own format, beside the model's
LONGEST = 512  # tokens of a text, where the model has more positions and nobody says
DECLARED = ("id2label", "label2id", "problem_type", "num_labels", "_num_labels")  # what configs say of a head
DECLARED_AS = ("labels", "tags", "multi_label", "pooler", "method")  # settings that the head itself tells
# The key of a config by which a head that has no pooler is told from one that has: see `on_pooler`.
IDENTITY = "pooler_is_identity"
POOLER = ("Pooler-Dense/kernel", "Pooler-Dense/bias")
# tanh(x) is x in float32 for all |x| below this power of 2.
LINEAR = -12


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


def own_head(folder: Path, tensors: dict[str, LazyTensor]) -> HeldHead | None:
    """The head beside a model in our own format. Raises: CorruptFileError for a task.json that says no task."""
    if not (folder / FILE).is_file():
        return None
    task, settings = read_task_file(folder / FILE)
    names = [name for name in tensors if name.startswith(PREFIX)]
    held = {name.removeprefix(PREFIX): tensors[name] for name in names}
    return HeldHead(task, settings, {path: replace(t, name=path) for path, t in held.items()}, tuple(names))


def published_head(
    table: Table,
    tensors: dict[str, LazyTensor],
    config: TransformerConfig,
    architectures: Sequence[str],
    pooler: dict[str, LazyTensor],
) -> HeldHead | None:
    """The head among the tensors that are no part of the model itself: that of the class which the config file names,
    or one whose names no other has; where it names no class, the one that goes with the pooler, or does without.

    Args:
        pooler: the tensors of the pooler, empty where there is none.
    """
    possible = [head for head in table.heads if all(entry.theirs in tensors for entry in head.entries())]
    if any(head.architecture for head in table.heads) and architectures:
        shared = Counter(entry.theirs for head in table.heads for entry in head.entries())
        alone = [head for head in possible if all(shared[entry.theirs] == 1 for entry in head.entries())]
        possible = [head for head in possible if head.architecture in architectures] or alone
    else:
        possible = [head for head in possible if bool(pooler) or not head.settings.get("pooler")]
    if not possible:
        return None
    head = next((head for head in possible if bool(pooler) == bool(head.settings.get("pooler"))), possible[0])
    return without_identity(bound(head, tensors, config), config, pooler)


def bound(head: Head, tensors: dict[str, LazyTensor], config: TransformerConfig) -> HeldHead:
    """A head with its tensors, in our layout."""
    entries = {entry.ours[0]: entry for entry in head.entries()}
    sizes = {letter: size_of(config) for letter, size_of in SIZES.items()}
    counted = min(head.variables, key=lambda row: len(row[1]))[0]  # the bias, or (labels, H) of a head without
    sizes["L"] = count = (*tensors[entries[counted].theirs].shape, 1)[0]
    settings = read_settings(head, config, count)
    problems, ours = [], {}
    for path, letters in head.variables:
        shape, entry = tuple(sizes[letter] for letter in letters), entries[path]
        tensor = tensors[entry.theirs]
        if tensor.shape != entry.layout.shape([shape]):
            problems.append(f"{tensor.name} has shape {tensor.shape}, expected {entry.layout.shape([shape])}")

        def read(tensor=tensor, layout=entry.layout, shape=shape) -> np.ndarray:
            return layout.load([tensor.read()], [shape])[0]

        ours[path] = LazyTensor(path, shape, tensor.dtype, read)
    named = settings.get(head.labels, []) if head.labels else []
    if head.labels and len(named) != count:
        problems.append(f"the config names {len(named)} labels, but there are scores of {count}")
    names = tuple(entry.theirs for entry in entries.values())
    return HeldHead(head.task, settings, ours, names, "; ".join(problems) or None)


def read_settings(head: Head, config: TransformerConfig, count: int) -> dict[str, Any]:
    """The settings of the task that a head of so many labels means in a config file. Raises: ConfigError."""
    key, rate = head.dropout
    rate = config.extra.get(key, rate) if key else rate
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1):
        raise ConfigError(f"config says {key} = {rate!r}; expected a number from 0 to below 1")
    settings = {"maxlen": min(config.max_position, LONGEST)} | head.settings
    settings["dropout"] = config.dropout_rate if rate is None else rate
    if head.labels:
        settings[head.labels] = read_labels(config.extra, count)
    if head.task == "text-classification":
        # Of a single label without a word about it, transformers' pipeline takes the sigmoid.
        alone = "multi_label_classification" if count == 1 else None
        settings["problem_type"] = config.extra.get("problem_type") or alone
    return settings


def read_labels(extra: dict[str, Any], count: int) -> list[str]:
    """The labels that a config file names, or transformers' own names of as many; none for what cannot be read."""
    named = extra.get("id2label")
    if not named:
        return [f"LABEL_{i}" for i in range(count)]
    if isinstance(named, list):
        return [str(label) for label in named]
    try:
        numbers = sorted((int(number), str(label)) for number, label in named.items())
    except (ValueError, AttributeError):
        return []
    return [label for _, label in numbers]


def room_for(held: HeldHead, table: Table) -> Head | None:
    """The head of a layout that can say what this one does, or None."""
    for head in table.heads:
        meant = {key: value for key, value in head.settings.items() if key != "pooler"}  # see `on_pooler`
        if head.task == held.task and all(held.settings.get(key) == value for key, value in meant.items()):
            return head
    return None


@dataclass(frozen=True)
class Written:
    """A model and its head as a layout holds them."""

    config: TransformerConfig
    ours: dict[str, LazyTensor]
    tensors: tuple[LazyTensor, ...]  # of the head, by their names there
    architecture: str | None


def written(head: Head, held: HeldHead, config: TransformerConfig, ours: dict[str, LazyTensor]) -> Written:
    """A model and its head in a layout that has room for it. Values are kept, or multiplied by powers of 2 where the
    layout computes otherwise; the answers are the same.

    Raises: ConversionError for numbers that a dtype cannot hold.
    """
    extra = {key: value for key, value in config.extra.items() if key != IDENTITY}
    if head.settings.get("pooler") and not held.settings.get("pooler"):
        held, ours, exponent = on_pooler(held, config, ours)
        extra |= {IDENTITY: exponent}
    if held.settings.get("multi_label") and not held.settings.get("problem_type"):
        # Our own loss makes probabilities of sigmoid(2 x); the others of sigmoid(x).
        settings = held.settings | {"problem_type": "multi_label_classification"}
        held = replace(held, settings=settings, tensors={p: scaled(t, 1) for p, t in held.tensors.items()})
    tensors = []
    for entry in head.entries():
        tensor = held.tensors[entry.ours[0]]

        def read(entry=entry, tensor=tensor) -> np.ndarray:
            return entry.layout.save([tensor.read()])

        tensors.append(LazyTensor(entry.theirs, entry.layout.shape([tensor.shape]), tensor.dtype, read))
    config = declared(head, held, config.replace(extra=extra))
    return Written(config, ours, tuple(tensors), head.architecture)


def declared(head: Head, held: HeldHead, config: TransformerConfig) -> TransformerConfig:
    """The config with what readers must know of a head; where it says so already, it stays as it is."""
    extra = dict(config.extra)
    count = len(held.labels) or 2
    read = read_settings(head, config, count)
    if head.labels:
        silent = not isinstance(extra.get("id2label"), dict) and count != 2
        if silent or read[head.labels] != held.labels:
            extra = {key: value for key, value in extra.items() if key not in DECLARED or key == "problem_type"}
            extra["id2label"] = {str(i): label for i, label in enumerate(held.labels)}
            extra["label2id"] = {label: i for i, label in enumerate(held.labels)}
    if "problem_type" in read and read["problem_type"] != held.settings.get("problem_type"):
        extra["problem_type"] = held.settings.get("problem_type") or "single_label_classification"
    key, rate = head.dropout[0], held.settings.get("dropout")
    if key and rate is not None and read["dropout"] != rate:
        extra[key] = rate
    return config.replace(extra=extra)


def unwritten_settings(held: HeldHead, format: str, head: Head | None, config: TransformerConfig) -> None:
    """Warns of a task's settings that a layout has no place for: whoever opens it gives them again."""
    read = {} if head is None else head.settings | read_settings(head, config, len(held.labels) or 2)
    lost = {k: v for k, v in held.settings.items() if v is not None and v != read.get(k) and k not in DECLARED_AS}
    if lost:
        warnings.warn(
            f"{format} has no place for these settings of the {held.task} task: "
            f"{', '.join(f'{key}={value!r}' for key, value in lost.items())}. Give them again where you open it, or "
            "keep the run in the format 'bert4x', which holds them",
            stacklevel=2,
        )


def without_head(config: TransformerConfig) -> TransformerConfig:
    """The config without what it says of a head."""
    left = {key: value for key, value in config.extra.items() if key not in (*DECLARED, IDENTITY)}
    return config.replace(extra=left)


def on_pooler(
    held: HeldHead, config: TransformerConfig, ours: dict[str, LazyTensor]
) -> tuple[HeldHead, dict[str, LazyTensor], int]:
    """A head on the first token's hidden state h as one on a pooler, tanh(h W + b), and the exponent of the identity.

    W is the identity times 2^-n, b is 0, and the head's kernel is multiplied by 2^n. As h comes from a norm, n can be
    chosen such that the tanh of h W is h W in float32, so that the scores are the same.

    Raises: ConversionError for a pooler that is none such, and for a dtype that cannot hold 2^-n or the kernel.
    """
    bent = getattr(config, "pooler_hidden_act", "tanh") not in ("tanh", "linear")  # such as gelu: halves small numbers
    if bent or not all(path in variables(config) for path in POOLER):
        raise ConversionError(
            f"the head for {held.task} of a {config.model} lies on its pooler in this layout, this one on the first "
            "token: load the model with with_pool=True for the task, or write it as 'bert4x'"
        )
    gamma, beta = (
        next(t for path, t in reversed(ours.items()) if path.endswith(f"-FeedForward-Norm/{name}"))
        for name in ("gamma", "beta")
    )
    largest = np.abs(gamma.read().astype("float64")) * math.sqrt(config.hidden_size) + np.abs(beta.read())
    exponent = max(0, math.ceil(math.log2(float(largest.max()) or 1.0)) - LINEAR)
    kernel, dtype = held.tensors["Label-Scores/kernel"], ours["Embedding-Token/embeddings"].dtype
    identity = np.eye(config.hidden_size).astype(dtype) * np.asarray(2.0**-exponent, dtype)
    if identity[0, 0] != 2.0**-exponent:
        raise ConversionError(f"{dtype} cannot hold 2^-{exponent}, which a head without pooler needs; use float32")
    pooler = dict(zip(POOLER, (identity, np.zeros(config.hidden_size, dtype)), strict=True))
    ours = ours | {path: from_array(path, array) for path, array in pooler.items()}
    tensors = held.tensors | {"Label-Scores/kernel": scaled(kernel, exponent)}
    return replace(held, tensors=tensors, settings=held.settings | {"pooler": True}), ours, exponent


def without_identity(held: HeldHead, config: TransformerConfig, pooler: dict[str, LazyTensor]) -> HeldHead:
    """What `on_pooler` was given, if the pooler is still what it made."""
    exponent = config.extra.get(IDENTITY)
    if held.problem or not held.settings.get("pooler") or type(exponent) is not int or not 0 <= exponent < 128:
        return held
    kernel, bias = (pooler[path].read() for path in POOLER)
    if bias.any() or not np.array_equal(kernel, np.eye(config.hidden_size) * 2.0**-exponent):
        return held
    scores = held.tensors["Label-Scores/kernel"]
    tensors = held.tensors | {"Label-Scores/kernel": scaled(scores, -exponent)}
    return replace(held, tensors=tensors, settings=held.settings | {"pooler": False})


def scaled(tensor: LazyTensor, exponent: int) -> LazyTensor:
    """A tensor times 2^exponent. Reading raises ConversionError where its dtype cannot hold that."""

    def read() -> np.ndarray:
        values = tensor.read()
        with np.errstate(over="ignore", under="ignore"):
            result = values * np.asarray(2.0**exponent, values.dtype)
        wide = values.astype("float64") * 2.0**exponent
        if not np.array_equal(result.astype("float64"), wide):
            raise ConversionError(f"{tensor.name} times 2^{exponent} cannot be written as {values.dtype}; use float32")
        return result

    return replace(tensor, read=read, rows=None, verify=lambda: False)
