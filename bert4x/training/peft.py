"""LoRA adapters as PEFT keeps them: read into a model of ours as adapters, and written from it.

Their names are those of transformers, by the family's own table. Where that has one matrix for several of ours (GPT2's
query, key and value), theirs has one pair for it: read, it becomes a pair for each of ours with the same A; written,
the pairs are put together, at a multiple of the rank. `bert4x.load(folder)` opens a folder merged into its base.
"""

import json
import os
from pathlib import Path

import numpy as np

from bert4x.checkpoints.adapters import CONFIG, FILES, counterpart, read_adapters
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.spec import Entry
from bert4x.checkpoints.tables import most_layers, table_for, variables
from bert4x.checkpoints.tensors import atomic_write, from_array
from bert4x.checkpoints.weights import check_finite
from bert4x.errors import ConfigError, TensorMismatchError
from bert4x.training.lora import adapt, adaptable, adapted, adapters, matrix, values


def load_peft(model, folder: str | os.PathLike) -> None:
    """Gives a model without adapters those of a folder of PEFT, and freezes all else in it.

    Raises: CorruptFileError, UnknownFormatError for what is not LoRA; TensorMismatchError for modules that the model
    lacks; ConfigError for a model with adapters, and for modules of several ranks or scales, which can only be merged.
    """
    if adapted(model):
        raise ConfigError("this model has adapters already; merge_lora(model) first, or load it anew")
    held, entries, layers = read_adapters(Path(folder).expanduser()), of_layout(model), adaptable(model)
    by_name = {entry.theirs: entry for entry in entries}
    found, numbers = {}, set()
    for module, (a, b) in held.pairs.items():
        entry = by_name.get(counterpart(f"{module}.weight", by_name))
        paths = [path.rpartition("/")[0] for path in entry.ours] if entry else []
        if not paths or any(path not in layers for path in paths):
            raise TensorMismatchError(f"{folder} has adapters of {module}, which this {model.config.model} lacks")
        rank, outputs = a.shape[0], [matrix(layers[path]).shape[-1] for path in paths]
        if (b.shape[0], a.shape[1]) != (sum(outputs), matrix(layers[paths[0]]).shape[0]):
            expected = (matrix(layers[paths[0]]).shape[0], sum(outputs))
            raise TensorMismatchError(
                f"{folder}: the adapters of {module} are for a matrix "
                f"{(a.shape[1], b.shape[0])}, but the model has {expected}"
            )
        numbers.add((rank, round(held.scale(module) * rank, 6)))
        parts = np.split(b.read().astype("f4").T, np.cumsum(outputs)[:-1], axis=1)
        found |= {path: (a.read().astype("f4").T, part) for path, part in zip(paths, parts, strict=True)}
    if held.whole or len(numbers) > 1:
        reason = f"whole tensors beside ({', '.join(list(held.whole)[:4])})" if held.whole else f"several {numbers}"
        raise ConfigError(f"{folder} has {reason}; such adapters can only be merged: bert4x.load(folder)")
    for path, pair in found.items():
        for part in pair:
            check_finite(f"the adapters of {path}", part)
    ((rank, alpha),) = numbers
    adapt(model, {path: layers[path] for path in found}, rank, alpha)
    for path, pair in found.items():
        for variable, part in zip(adapters(layers[path]), pair, strict=True):
            variable.assign(part)


def save_peft(model, folder: str | os.PathLike, base: str) -> Path:
    """Writes the adapters of a model as a folder of PEFT: `PeftModel.from_pretrained(base model, folder)`.

    Args:
        base: the path or the name of the model in transformers' layout, by which PEFT finds it.
    Raises: ConfigError when there are no adapters, or some of embeddings; ConversionError for a family without that
        layout.
    """
    layers, tensors, modules, several, turned = adapted(model), {}, [], {}, False
    if not layers:
        raise ConfigError("this model has no adapters to save; add_lora(model) or load_lora(model, path) gives it some")
    if table := next((path for path in layers if path.startswith("Embedding-")), None):
        raise ConfigError(
            f"{table} has adapters, and is the output layer, too, which PEFT would leave as it was; train without "
            "embeddings=True, or write the merged model with bert4x.save"
        )
    first = next(iter(layers.values()))
    for entry in of_layout(model):
        paths = [path.rpartition("/")[0] for path in entry.ours]
        pairs = [[values(v) for v in adapters(layers[path])] if path in layers else None for path in paths]
        if not any(pairs):
            continue
        module = entry.theirs.removesuffix(".weight")
        outputs = [matrix(layer).shape[-1] for layer in (adaptable(model)[path] for path in paths)]
        a = np.concatenate([pair[0] for pair in pairs if pair], axis=1)
        b, row, column = np.zeros((a.shape[1], sum(outputs)), "f4"), 0, 0
        for pair, width in zip(pairs, outputs, strict=True):
            if pair:
                b[row : row + pair[1].shape[0], column : column + width] = pair[1]
                row += pair[1].shape[0]
            column += width
        tensors |= {f"base_model.model.{module}.lora_{part}.weight": x.T for part, x in (("A", a), ("B", b))}
        modules.append(module)
        turned |= not entry.layout.transpose
        if a.shape[1] != first.lora_rank:
            several[module] = a.shape[1]
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    held = [from_array(name, np.ascontiguousarray(array)) for name, array in tensors.items()]
    write_safetensors(folder / FILES[0], held, {"format": "pt"})
    scale = first.lora_alpha / first.lora_rank
    said = {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": str(base), "bias": "none"}
    said |= {"r": first.lora_rank, "lora_alpha": first.lora_alpha, "lora_dropout": 0.0, "target_modules": modules}
    said |= {"rank_pattern": several, "alpha_pattern": {name: scale * rank for name, rank in several.items()}}
    said |= {"fan_in_fan_out": turned, "inference_mode": True, "modules_to_save": None}
    with atomic_write(folder / CONFIG) as path:
        path.write_text(json.dumps(said, indent=2), encoding="utf-8")
    return folder


def of_layout(model) -> list[Entry]:
    """The matrices of a model in transformers' layout."""
    known = variables(model.config)
    entries = table_for("hf", model.config).sized(model.config).entries(most_layers(model.config))
    return [e for e in entries if all(path in known and path.endswith("/kernel") for path in e.ours)]
