"""Heads of tasks: as a checkpoint holds one, and as another layout has room for it."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.held_head import HeldHead, bio_tags
from bert4x.checkpoints.identity_layers import IDENTITY, missing_layer, on_identity, scaled, without_identity
from bert4x.checkpoints.spec import Head, Table
from bert4x.checkpoints.tables import SIZES
from bert4x.checkpoints.task_file import FILE, read_task_file
from bert4x.checkpoints.tensors import LazyTensor
from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError
from bert4x.families import family_of

PREFIX = "task/"  # before the names of a head's tensors in our own format, beside the model's
LONGEST = 512  # tokens of a text, where the model has more positions; the default
DECLARED = ("id2label", "label2id", "problem_type", "num_labels", "_num_labels")  # what configs say of a head
DECLARED_AS = ("labels", "tags", "multi_label", "pooler", "method")  # settings that the head itself tells
OF_NO_TASK = "ForMultipleChoice"  # classes of transformers whose head has the names of another's
# A key of a config that only we write: of tags that are found such that they spell entities, unlike transformers'.
SPELLED = "tags_spell_entities"


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
    possible = [head for head in table.heads if is_whole(head, tensors)]
    if any(head.architecture for head in table.heads) and architectures:
        shared = Counter(entry.theirs for head in possible for entry in head.entries())
        alone = [head for head in possible if all(shared[entry.theirs] == 1 for entry in head.entries())]
        alone = [] if any(name.endswith(OF_NO_TASK) for name in architectures) else alone
        possible = [head for head in possible if head.architecture in architectures] or alone
    else:
        possible = [head for head in possible if bool(pooler) or not head.settings.get("pooler")]
    if not possible:
        return None
    head = next((head for head in possible if bool(pooler) == bool(head.settings.get("pooler"))), possible[0])
    held = without_identity(bound(head, tensors, config), config, pooler)
    return replace(held, problem=held.problem or unlike_ours(config))


def unlike_ours(config: TransformerConfig) -> str | None:
    """Why a head of such a model would give other answers here than where it was published, if it would."""
    if not (family := family_of(config.model)).is_decoder(config):
        return None
    return (
        f"the config says {family.decoder_key} = true, by which tokens see only those before them; tasks read texts as "
        f"a whole. If it was trained so, let the config say {family.decoder_key} = false"
    )


def is_whole(head: Head, tensors: dict[str, LazyTensor]) -> bool:
    """Whether all tensors of a head are there, and no others of its layers."""
    names = {entry.theirs for entry in head.entries()}
    layers = {name.rpartition(".")[0] for name in names} - {""}
    return names == {name for name in tensors if name in names or name.rpartition(".")[0] in layers}


def bound(head: Head, tensors: dict[str, LazyTensor], config: TransformerConfig) -> HeldHead:
    """A head with its tensors, in our layout."""
    entries = {entry.ours[0]: entry for entry in head.entries()}
    sizes = {letter: size_of(config) for letter, size_of in SIZES.items()}
    # The bias of the scores, or (labels, H) of a head without.
    counted = min(head.variables, key=lambda row: ("L" not in row[1], len(row[1])))[0]
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
    if head.labels == "tags" and config.extra.get(SPELLED) is True and (labels := entities_of(named)):
        settings |= {"labels": labels, "tags": None}
    names = tuple(entry.theirs for entry in entries.values())
    return HeldHead(head.task, settings, ours, names, "; ".join(problems) or None)


def entities_of(tags: Sequence[str]) -> list[str]:
    """The labels whose `bio_tags` these are; none if they are others."""
    labels = [tag[2:] for tag in tags[1::2]]
    return labels if list(tags) == bio_tags(labels) else []


def meant_by(head: Head, config: TransformerConfig) -> dict[str, Any]:
    """The settings that a head of a model always means."""
    return {key: value(config) if callable(value) else value for key, value in head.settings.items()}


def read_settings(head: Head, config: TransformerConfig, count: int) -> dict[str, Any]:
    """The settings of the task that a head of so many labels means in a config file. Raises: ConfigError."""
    key, rate = head.dropout
    rate = rate if config.extra.get(key) is None else config.extra[key]
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1):
        raise ConfigError(f"config says {key} = {rate!r}; expected a number from 0 to below 1")
    settings = {"maxlen": min(config.max_position, LONGEST)} | meant_by(head, config)
    settings["dropout"] = config.dropout_rate if rate is None else rate
    if head.labels:
        settings[head.labels] = read_labels(config.extra, count)
    if head.task == "text-classification":
        # Of a single label without a word about it, transformers' pipeline takes the sigmoid.
        alone = "multi_label_classification" if count == 1 else None
        settings["problem_type"] = config.extra.get("problem_type") or alone
    return settings


def read_labels(extra: dict[str, Any], count: int) -> list[str]:
    """The labels that a config file names, by its label2id where it has nothing else, or transformers' own names of as
    many; none for what cannot be read.
    """
    named, numbers = extra.get("id2label"), extra.get("label2id")
    if not named and isinstance(numbers, dict) and len(numbers) == count:
        named = {number: label for label, number in numbers.items()}
    if not named:
        return [f"LABEL_{i}" for i in range(count)]
    if isinstance(named, list):
        return [str(label) for label in named]
    try:
        numbers = sorted((int(number), str(label)) for number, label in named.items())
    except (ValueError, AttributeError):
        return []
    return [label for _, label in numbers]


def room_for(held: HeldHead, table: Table, config: TransformerConfig) -> Head | None:
    """The head of a layout that can say what this one does, or None."""
    layers = [held.settings.get(key) or None for key in ("pooler", "hidden_act")]
    for head in table.heads:
        meant = meant_by(head, config)
        own = [meant.pop(key, None) or None for key in ("pooler", "hidden_act")]
        fits = layers in (own, [None, None])  # without these layers: see `on_identity`
        if head.task == held.task and fits and all(held.settings.get(key) == value for key, value in meant.items()):
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
    extra = {key: value for key, value in config.extra.items() if key not in (IDENTITY, SPELLED)}
    if (family := family_of(config.model)).is_decoder(config):
        extra |= {family.decoder_key: False}  # tasks read texts as a whole
    if layer := missing_layer(head, held):
        held, ours, exponent = on_identity(layer, meant_by(head, config)[layer], held, config, ours)
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
    if head.labels == "tags" and not held.settings.get("tags"):
        extra[SPELLED] = True
    if "problem_type" in read and read["problem_type"] != held.settings.get("problem_type"):
        extra["problem_type"] = held.settings.get("problem_type") or "single_label_classification"
    key, rate = head.dropout[0], held.settings.get("dropout")
    if key and rate is not None and read["dropout"] != rate:
        extra[key] = rate
    return config.replace(extra=extra)


def unwritten_settings(held: HeldHead, format: str, head: Head | None, config: TransformerConfig) -> None:
    """Warns of a task's settings that a layout has no place for: whoever opens it gives them again."""
    read = {} if head is None else read_settings(head, config, len(held.labels) or 2)
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
    left = {key: value for key, value in config.extra.items() if key not in (*DECLARED, IDENTITY, SPELLED)}
    return config.replace(extra=left)
