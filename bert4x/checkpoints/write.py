"""Our variables as the weights and the config file of any format."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bert4x.checkpoints.checkpoint import bits
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.tables import OWN_FORMATS, family_of, style_for, table_for, variables
from bert4x.checkpoints.tensors import LazyTensor, atomic_write
from bert4x.config import TransformerConfig, to_json
from bert4x.errors import ConversionError

CONFIG_FILES = {
    ("tf1", "bert"): "bert_config.json",
    ("tf1", "albert"): "albert_config.json",
    ("tf1", "gpt2"): "hparams.json",
}
ITERATION = "1"
Progress = Callable[[int, int], None]  # bytes done, bytes in all


def write(
    folder: Path,
    format: str,
    config: TransformerConfig,
    ours: dict[str, LazyTensor],
    shards=None,
    progress=None,
    others: Sequence[LazyTensor] = (),
) -> None:
    """Writes variables of ours as the weights of a format; our own format may hold others beside them."""
    from bert4x.checkpoints.formats import keras_h5, safetensors_file, tf1_bundle, torch_write

    if config.model == "albert_unshared" and format not in OWN_FORMATS:
        config, ours = shared(config, ours)
    table = table_for(format, config)
    ranks = shards or 1 if table.sharded else 1
    if config.num_attention_heads % ranks:
        raise ConversionError(f"{config.num_attention_heads} attention heads cannot be divided over {ranks} ranks")
    total = sum(tensor.nbytes for tensor in ours.values())
    per_rank = [list(counted(theirs(table, config, ours, rank, ranks), total, progress)) for rank in range(ranks)]
    folder.mkdir(parents=True, exist_ok=True)
    if format in ("hf", "bert4x"):
        safetensors_file.write_safetensors_sharded(folder, [*per_rank[0], *others], shards=shards)
    elif format == "tf1":
        tf1_bundle.write_tf1(folder / ("model.ckpt" if table.family == "gpt2" else "bert_model.ckpt"), per_rank[0])
    elif format == "keras":
        keras_h5.write_keras_h5(folder / "model.weights.h5", per_rank[0])
    else:
        names = [folder / ITERATION / f"mp_rank_{rank:02d}_model_states.pt" for rank in range(ranks)]
        for path, tensors in zip(names, per_rank, strict=True):
            torch_write.write_torch(path, tensors, root="module")
        with atomic_write(folder / "latest_checkpointed_iteration.txt") as path:
            path.write_text(ITERATION, encoding="utf-8")


def theirs(
    table: Table, config: TransformerConfig, ours: dict[str, LazyTensor], rank: int, ranks: int
) -> Iterator[LazyTensor]:
    """The tensors of a layout, made from our variables when they are read.

    Raises: ConversionError when the variables cannot be divided over the ranks.
    """
    known = variables(config)
    for entry in table.entries(config.num_hidden_layers):
        if not all(path in ours for path in entry.ours):
            continue
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


def shared(config: TransformerConfig, ours: dict[str, LazyTensor]) -> tuple[TransformerConfig, dict[str, LazyTensor]]:
    """An unshared ALBERT as an ordinary one.

    Raises: ConversionError when its layers are no longer the same.
    """
    config = config.replace(model="albert")
    result = {}
    for path in variables(config):
        if not path.startswith("Transformer-"):
            copies = [ours[path]] if path in ours else []
        else:
            name = path.removeprefix("Transformer-")
            copies = [ours[f"Transformer-{i}-{name}"] for i in range(config.num_hidden_layers)]
        first = bits(copies[0].read()) if len(copies) > 1 else None
        for i, copy in enumerate(copies[1:], start=1):
            if not np.array_equal(first, bits(copy.read())):
                raise ConversionError(
                    f"this unshared ALBERT was trained: {path} of layer {i} differs from layer 0, and a shared layout "
                    "holds one of them. Convert to 'bert4x' or 'keras', which keep all layers"
                )
        if copies:
            result[path] = replace(copies[0], name=path)
    return config, result


def write_config(folder: Path, format: str, config: TransformerConfig, ours: dict[str, LazyTensor]) -> None:
    """Writes the config file of a format."""
    data = to_json(config, style_for(format, config.model))
    if format in OWN_FORMATS:
        data["model"] = config.model
    if format == "hf":
        data["torch_dtype"] = str(ours["Embedding-Token/embeddings"].dtype)
    write_json(
        folder / CONFIG_FILES.get((format, family_of(config.model).written_as or config.model), "config.json"), data
    )


def write_json(path: Path, data: dict) -> None:
    """Writes a JSON object, all or nothing."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
