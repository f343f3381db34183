"""Our variables as the weights and the config file of any format."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bert4x.checkpoints import keras_names
from bert4x.checkpoints.checkpoint import bits
from bert4x.checkpoints.classes import class_of, without_root
from bert4x.checkpoints.config_spelling import as_remembered
from bert4x.checkpoints.gguf_metadata import as_llama_cpp, metadata_of
from bert4x.checkpoints.heads import PREFIX, HeldHead, Written, room_for, unwritten_settings, written
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.staging import Progress
from bert4x.checkpoints.tables import OWN_FORMATS, most_layers, style_for, table_for, variables, writer
from bert4x.checkpoints.task_file import FILE
from bert4x.checkpoints.tensors import LazyTensor, atomic_write
from bert4x.config import TransformerConfig, to_json
from bert4x.errors import ConversionError
from bert4x.families import family_of

ITERATION = "1"


def write(
    folder: Path,
    format: str,
    config: TransformerConfig,
    ours: dict[str, LazyTensor],
    shards=None,
    progress=None,
    head: HeldHead | None = None,
    tokenizer=None,
    dtype: str | None = None,
) -> Written:
    """Writes variables of ours, and the head of a task, as the weights of a format. Returns what the config file is to
    say. A GGUF has the vocabulary of a `tokenizer` in it; `dtype` is that of its matrices, of which
    "q8_0" has 8 bits.

    Raises: ConversionError when the format cannot express the model, or has no room for the head.
    """
    from bert4x.checkpoints.formats import gguf_file, keras_h5, safetensors_file, tf1_bundle, torch_write

    if dtype is not None and format != "gguf":
        raise ConversionError(f"dtype={dtype!r} is of format 'gguf' alone; load the model in the dtype that is meant")
    if family_of(config.model).written_as and format not in OWN_FORMATS:
        config, ours = as_written(config, ours)
    table = table_for(format, config).sized(config)
    table = table.holding(room_for(head, table, config) if head is not None and head.tensors else None)
    whole = with_head(format, table, head, config, ours)
    config, ours, others = whole.config, whole.ours, whole.tensors
    if format == "hf" and not others:
        table = without_root(table, config, ours)
    ranks = shards or 1 if table.sharded else 1
    if config.num_attention_heads % ranks:
        raise ConversionError(f"{config.num_attention_heads} attention heads cannot be divided over {ranks} ranks")
    total = sum(tensor.nbytes for tensor in ours.values())
    per_rank = [list(counted(theirs(table, config, ours, rank, ranks), total, progress)) for rank in range(ranks)]
    folder.mkdir(parents=True, exist_ok=True)
    if format in ("hf", "bert4x"):
        safetensors_file.write_safetensors_sharded(folder, [*per_rank[0], *others], shards=shards)
    elif format == "tf1":
        tf1_bundle.write_tf1(folder / family_of(table.family).weights_file, [*per_rank[0], *others])
    elif format == "uer":
        torch_write.write_torch(folder / "pytorch_model.bin", [*per_rank[0], *others])
    elif format == "gguf":
        metadata = metadata_of(config, ours, tokenizer, dtype)
        gguf_file.write_gguf(folder / "model.gguf", as_llama_cpp(per_rank[0], dtype), metadata)
    elif format == "keras":
        tensors, class_of = keras_names.numbered(per_rank[0]), partial(keras_names.class_of, model=config.model)
        keras_h5.write_keras_h5(folder / "model.weights.h5", tensors, class_of, keras_names.attribute_of)
    else:
        names = [folder / ITERATION / f"mp_rank_{rank:02d}_model_states.pt" for rank in range(ranks)]
        for path, tensors in zip(names, per_rank, strict=True):
            torch_write.write_torch(path, tensors, root="module")
        with atomic_write(folder / "latest_checkpointed_iteration.txt") as path:
            path.write_text(ITERATION, encoding="utf-8")
    if head is not None and format == "bert4x":
        write_json(folder / FILE, {"task": head.task, "settings": head.settings})
    return whole


def with_head(
    format: str, table: Table, head: HeldHead | None, config: TransformerConfig, ours: dict[str, LazyTensor]
) -> Written:
    """A model and the head of a task, if there is one, as a format holds them.

    Raises: ConversionError when it has no room for the head.
    """
    if head is None or (not head.tensors and format != "bert4x"):  # of a task whose head is the model's own
        if head is not None:
            unwritten_settings(head, format, None, config)
        return Written(config, ours, (), class_of(table, config, ours, None))
    if format == "bert4x":
        return Written(config, ours, tuple(replace(t, name=PREFIX + path) for path, t in head.tensors.items()), None)
    room = room_for(head, table, config)
    if room is None:
        method = f", method {head.settings['method']!r}" if "method" in head.settings else ""
        raise ConversionError(
            f"{format} has no room for the head of this {config.model} for {head.task}{method}, which would stay "
            f"behind: {', '.join(head.tensors)}. The format 'bert4x' holds it; or pass drop_head=True (--drop-head) to "
            "write the model without"
        )
    whole = written(room, head, config, ours)
    unwritten_settings(head, format, room, whole.config)
    return whole


def theirs(
    table: Table, config: TransformerConfig, ours: dict[str, LazyTensor], rank: int, ranks: int
) -> Iterator[LazyTensor]:
    """The tensors of a layout, made from our variables when they are read.

    Raises: ConversionError when the variables cannot be divided over the ranks, or the table lacks one.
    """
    known, written = variables(config), set()
    for entry in table.entries(most_layers(config)):
        if not all(path in ours for path in entry.ours):
            continue
        written.update(entry.ours)
        shapes = [known[path][0] for path in entry.ours]
        if not entry.layout.divides(shapes, ranks):
            raise ConversionError(f"{entry.theirs}: {shapes} cannot be divided over {ranks} ranks")
        parts = [ours[path] for path in entry.ours]
        if len({part.dtype for part in parts}) > 1:
            raise ConversionError(
                f"{entry.theirs} is one tensor of {[str(part.dtype) for part in parts]}; pass a dtype"
            )

        def read(entry=entry, parts=parts) -> np.ndarray:
            return entry.layout.save([part.read() for part in parts], rank, ranks)

        yield LazyTensor(entry.theirs, entry.layout.shape(shapes, ranks), parts[0].dtype, read)
    if lost := [path for path in ours if path not in written]:
        of_heads = all(known[path][1] in table.lacks for path in lost)
        more = "; pass drop_head=True (--drop-head) to write the model without" if of_heads else ""
        raise ConversionError(f"{table.format} has no room for {', '.join(lost[:6])} of this {config.model}{more}")


def counted(tensors: Iterator[LazyTensor], total: int, progress: Progress | None) -> Iterator[LazyTensor]:
    """The same tensors, telling `progress` as each has been read."""
    done = 0

    def reading(tensor: LazyTensor) -> Callable[[], np.ndarray]:
        def read():
            nonlocal done
            values = tensor.read()
            done += tensor.nbytes
            progress(min(done, total), total)
            return values

        return read

    for tensor in tensors:
        yield replace(tensor, read=reading(tensor)) if progress else tensor


def as_written(
    config: TransformerConfig, ours: dict[str, LazyTensor]
) -> tuple[TransformerConfig, dict[str, LazyTensor]]:
    """A model as one of the family in whose layouts it is written: an unshared ALBERT as an ordinary one.

    Raises: ConversionError when layers that are one there are no longer the same.
    """
    family, copies = family_of(config.model), {}
    for path, tensor in ours.items():
        copies.setdefault(family.as_written(path), []).append(tensor)
    for tensors in copies.values():
        first = bits(tensors[0].read()) if len(tensors) > 1 else None
        for tensor in tensors[1:]:
            if not np.array_equal(first, bits(tensor.read())):
                raise ConversionError(
                    f"this {config.model} was trained: {tensor.name} differs from {tensors[0].name}, and a layout of "
                    f"{family.written_as} holds one of them. Convert to 'bert4x' or 'keras', which keep all layers"
                )
    return config.replace(model=family.written_as), {p: replace(t[0], name=p) for p, t in copies.items()}


def write_config(
    folder: Path, format: str, config: TransformerConfig, ours: dict[str, LazyTensor], architecture: str | None = None
) -> None:
    """Writes the config file of a format; `architecture` is the class of the model, where the format says it."""
    if format == "gguf":  # it is in the file
        return
    style = style_for(format, config.model)
    data = to_json(config, style)
    if architecture:
        data["architectures"] = [architecture]
    if "dtype" in data or format == "hf":  # the key of transformers 5, if the file had it that the model is from
        data["dtype" if "dtype" in data else "torch_dtype"] = str(ours["Embedding-Token/embeddings"].dtype)
    if format == "hf":
        data = as_remembered(data, config, style)
    if format in OWN_FORMATS:
        data["model"] = config.model
    write_json(folder / writer(config.model).config_files.get(format, "config.json"), data)


def write_json(path: Path, data: dict | list) -> None:
    """Writes JSON, all or nothing."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
