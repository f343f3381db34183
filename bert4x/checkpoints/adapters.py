"""Adapters of PEFT (LoRA): a folder of small matrices, opened as the model that they change, with them added to it.

A matrix W (out, in) of the base is used as W + scale * B A, by the names of transformers; so the base is a checkpoint
in that layout. What else a folder holds (a head, biases) takes the place of the base's, or stands beside it.
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.files import Files, locate
from bert4x.checkpoints.tensors import LazyTensor, Tensors
from bert4x.errors import CheckpointNotFoundError, CorruptFileError, HubError, TensorMismatchError, UnknownFormatError
from bert4x.hub.names import local
from bert4x.json_files import check_kinds, read_json, shown

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
MAX_PART = 255  # characters of a name in a path
PART = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?")
HF = ("safetensors", "torch", "hdf5", "flax")  # containers of the layout of transformers
KINDS = {"rank_pattern": (dict,), "alpha_pattern": (dict,), "task_type": (str,)}
KINDS |= {"fan_in_fan_out": (bool,), "use_rslora": (bool,)}
TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
}
# What a config may ask for and is not computed here -> the values that ask for nothing.
PLAIN = {"peft_type": ("LORA",), "use_dora": (False, None), "lora_bias": (False, None), "layer_replication": (None,)}
PLAIN |= {"alora_invocation_tokens": (None,), "use_qalora": (False, None), "use_bdlora": (False, None)}
PLAIN |= dict.fromkeys(("kasa_config", "monteclora_config", "arrow_config"), (None,))
# Others (pissa, olora, loftq ...) take their start out of the base's matrices.
PLAIN |= {"init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva")}


@dataclass(frozen=True)
class Adapters:
    """What an adapter folder holds: matrices A (rank, in) and B (out, rank) by module, and whole tensors by name."""

    about: dict[str, Any]
    pairs: dict[str, tuple[LazyTensor, LazyTensor]]
    whole: Tensors

    def alpha(self, module: str) -> float:
        """The numerator of the scale of a module."""
        patterns = self.about.get("alpha_pattern") or {}
        found = (value for name, value in patterns.items() if f".{module}".endswith(f".{name}"))
        return next(found, self.about.get("lora_alpha", 8))

    def scale(self, module: str) -> float:
        """What the product of a module is multiplied by."""
        rank = self.pairs[module][0].shape[0]
        return self.alpha(module) / (math.sqrt(rank) if self.about.get("use_rslora") else rank)


def read_adapters(folder: Path) -> Adapters:
    """The adapters of a folder, or of the folder of a file.

    Raises: CheckpointNotFoundError, CorruptFileError, TensorMismatchError; UnknownFormatError for what is not LoRA.
    """
    from bert4x.checkpoints.formats.safetensors_file import read_safetensors
    from bert4x.checkpoints.formats.torch_pickle import read_torch

    about = read_json(folder / CONFIG)
    check_kinds(about, KINDS, str(folder / CONFIG))
    for key, plain in PLAIN.items():
        if about.get(key, plain[0]) not in plain:
            raise UnknownFormatError(
                f"{folder}: the adapters say {key} = {shown(about[key])}; expected plain LoRA. Save them merged: "
                "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(target)"
            )
    patterns = [name for key in ("rank_pattern", "alpha_pattern") for name in about.get(key) or {}]
    if not all(re.fullmatch(r"[\w.]+", name) for name in patterns):
        raise UnknownFormatError(f"{folder / CONFIG} has patterns {shown(patterns)}; expected names of modules")
    alphas = [about.get("lora_alpha", 8), *(about.get("alpha_pattern") or {}).values()]
    if any(isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e9 for alpha in alphas):
        raise CorruptFileError(f"{folder / CONFIG}: lora_alpha is {shown(alphas)}; expected positive numbers")
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointNotFoundError(f"{folder} has {CONFIG}, but none of {', '.join(FILES)}")
    tensors = read_safetensors(file) if file.suffix == ".safetensors" else read_torch(file)
    parts, whole = {}, {}
    for name, tensor in tensors.items():
        if match := PART.fullmatch(name):
            module, embedding, letter = match.groups()
            if embedding:
                raise UnknownFormatError(
                    f"{file} adapts {module}, a table of embeddings: PEFT changes what it gives, not the output layer "
                    "that is the same table in most models; expected adapters of matrices"
                )
            parts.setdefault(module, {})[letter] = tensor
        else:
            whole[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
    for module, held in parts.items():
        shapes = {letter: tensor.shape for letter, tensor in held.items()}
        if len(held) < 2 or any(len(s) != 2 for s in shapes.values()) or shapes["A"][0] != shapes["B"][1]:
            raise TensorMismatchError(f"{file}: {module} has {shapes}; expected A (rank, in) and B (out, rank)")
    if not parts:
        raise UnknownFormatError(f"{file} holds no matrices lora_A and lora_B: {', '.join(list(tensors)[:4])}")
    return Adapters(about, {module: (held["A"], held["B"]) for module, held in parts.items()}, whole)


def base_of(folder: Path, about: dict[str, Any]) -> Files:
    """The files of the model that adapters name: a path, one beside them, or the name of a published checkpoint.

    Raises: CheckpointNotFoundError, CorruptFileError, HubError; UnknownFormatError for one that is not in the layout of
    transformers.
    """
    said = about.get("base_model_name_or_path")
    usable = isinstance(said, str) and said.isprintable() and all(len(part) <= MAX_PART for part in said.split("/"))
    if not said or not usable:
        raise CorruptFileError(f"{folder / CONFIG} says base_model_name_or_path = {shown(said)}; expected a model")
    beside = (folder / said, folder.parent / Path(said).name)
    near = [] if Path(said).expanduser().exists() else [path for path in beside if path.exists()]
    try:
        place = near[0] if near else local(said)
    except HubError as error:
        raise type(error)(f"{folder / FILES[0]} holds adapters of {said!r}, which must be here too: {error}") from error
    if Path(place).expanduser().resolve() == folder.resolve():
        raise CheckpointNotFoundError(f"{folder / CONFIG} names its own folder as the base model; expected another")
    try:
        files = locate(place)
    except CheckpointNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{folder} holds adapters of {said!r}, which is not here ({error}); put that model where {CONFIG} says, "
            "beside the adapters' folder, or correct base_model_name_or_path"
        ) from error
    if files.container not in HF:
        raise UnknownFormatError(
            f"{folder} holds adapters of {said!r}, a {files.container} checkpoint here; expected transformers' layout: "
            f"convert it with `bert4x convert {said} TARGET --to hf`, and correct base_model_name_or_path"
        )
    return files


def merged(files: Files) -> tuple[Files, Tensors, str | None]:
    """The files of the base, its tensors with the adapters added, and how the name of the whole model's class ends.

    Raises: those of `read_adapters` and `base_of`; TensorMismatchError for adapters that do not fit.
    """
    adapters = read_adapters(files.folder)
    base = base_of(files.folder, adapters.about)
    tensors = dict(base.read())
    for module, (a, b) in adapters.pairs.items():
        name = counterpart(f"{module}.weight", tensors)
        if name is None:
            raise TensorMismatchError(f"{files.path}: the base model {base.path} has no {module}.weight to be adapted")
        tensors[name] = added(tensors[name], a, b, adapters, module, files.path)
    for name, tensor in adapters.whole.items():
        name = counterpart(name, tensors) or name
        tensors[name] = replace(tensor, name=name)
    return replace(base, path=files.path), tensors, TASKS.get(adapters.about.get("task_type"))


def counterpart(name: str, tensors: Tensors) -> str | None:
    """The tensor that a name means, where one of both may have a prefix that the other lacks; None for none."""
    if name in tensors:
        return name
    found = [other for other in tensors if other.endswith(f".{name}") or name.endswith(f".{other}")]
    return found[0] if len(found) == 1 else None


def added(base: LazyTensor, a: LazyTensor, b: LazyTensor, adapters: Adapters, module: str, path: Path) -> LazyTensor:
    """A matrix with the product of an adapter added in float32, in its own dtype. Raises: TensorMismatchError"""
    shape, scale = (b.shape[0], a.shape[1]), np.float32(adapters.scale(module))
    said = bool(adapters.about.get("fan_in_fan_out"))
    turned = said if shape[0] == shape[1] else base.shape != shape  # a square says nothing
    if base.shape != (shape[::-1] if turned else shape):
        raise TensorMismatchError(f"{path}: {module} adapts a matrix {shape}, but the base has {base.shape}")

    def read() -> np.ndarray:
        product = b.read().astype("f4") @ a.read().astype("f4")
        values = base.read().astype("f4") + scale * (product.T if turned else product)
        return values.astype(base.dtype)

    return replace(base, read=read, rows=None)
