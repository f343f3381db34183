"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on a model that is otherwise frozen.

A matrix W is used as W + alpha / rank * A B, and only A (in, rank) and B (rank, out) learn; B starts at zero. Keras'
layers compute it; here is which layers, and the adapters as a file of their own, which Keras does not write.
"""

import hashlib
import json
import math
import os
import re
from pathlib import Path

import keras
import numpy as np

from bert4x.checkpoints.formats.foreign import explained
from bert4x.checkpoints.formats.safetensors_file import (
    read_safetensors,
    read_safetensors_metadata,
    write_safetensors,
)
from bert4x.checkpoints.tensors import BFLOAT16, from_array
from bert4x.checkpoints.weights import check_finite
from bert4x.errors import ConfigError, CorruptFileError, TensorMismatchError, UnknownFormatError

LAYERS = r"Attention/(query|value)$"  # what the paper adapts
FORMAT = "bert4x_lora"  # in the metadata of a file


def add_lora(
    model: keras.Model, rank: int = 8, alpha: float = 16, layers: str = LAYERS, embeddings: bool = False, seed: int = 0
) -> list[str]:
    """Puts adapters on matrices of a model, and freezes all else in it; returns the paths of what is adapted.

    What the caller puts on top of the model stays as it is. Compile, and make optimizers, afterwards.

    Args:
        layers: a regular expression that is searched for in the paths of dense layers, such as
            "Transformer-0-MultiHeadSelfAttention/query" or "Transformer-0-FeedForward/intermediate".
        embeddings: adapt the token embeddings, too, which are also the output matrix of a language model.
        seed: of the random start of A.
    Raises: ConfigError when nothing matches, for numbers that cannot be, for a model with adapters or int8 matrices.
    """
    if adapted(model):
        raise ConfigError("this model has adapters already; merge_lora(model) first, or load it anew")
    try:
        wanted = re.compile(layers)
    except re.error as error:
        raise ConfigError(f"layers = {layers!r} is no regular expression: {error}") from error
    found = {
        path: layer
        for path, layer in adaptable(model).items()
        if (isinstance(layer, keras.layers.Dense) and wanted.search(path)) or (embeddings and is_table(path, layer))
    }
    if not found:
        paths = [path for path, layer in adaptable(model).items() if isinstance(layer, keras.layers.Dense)]
        raise ConfigError(f"no dense layer matches layers = {layers!r}; there are {', '.join(paths[:6])} ...")
    adapt(model, found, rank, alpha, seed)
    return list(found)


def adapt(model, layers: dict, rank: int, alpha: float, seed: int = 0) -> None:
    """Adapters on layers given by path; all else is frozen. Raises: ConfigError before anything is changed."""
    smallest = min(min(matrix(layer).shape) for layer in layers.values())
    if not isinstance(rank, int) or not 1 <= rank <= smallest or not 0 < alpha < math.inf:
        raise ConfigError(
            f"rank = {rank!r}, alpha = {alpha!r}; expected a rank from 1 to {smallest}, the smallest side of a matrix "
            "that is adapted, and a positive alpha"
        )
    for path, layer in layers.items():
        if layer.quantization_mode:
            raise ConfigError(f"{path} is {layer.quantization_mode}; load the model without quantize to adapt it")
    for variable in model.weights:
        variable.trainable = False
    for i, layer in enumerate(layers.values()):
        layer.enable_lora(rank, lora_alpha=alpha, a_initializer=keras.initializers.HeUniform(seed=seed + i))
    forget_compiled(model)


def save_lora(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the adapters alone, as safetensors under names such as peft's, with rank, alpha and a fingerprint of the
    matrices that they belong to.

    Raises: ConfigError when there are none.
    """
    layers = adapted(model)
    if not layers:
        raise ConfigError("this model has no adapters to save; add_lora(model) or load_lora(model, path) gives it some")
    first = next(iter(layers.values()))
    about = {"rank": first.lora_rank, "alpha": first.lora_alpha, "base": fingerprint(layers)}
    tensors = [
        from_array(name, np.ascontiguousarray(values(variable).T))
        for layer_path, layer in layers.items()
        for name, variable in zip(names(layer_path, layer), adapters(layer), strict=True)
    ]
    write_safetensors(path, tensors, {"format": "pt", FORMAT: json.dumps(about)})


def load_lora(model: keras.Model, path: str | os.PathLike, strict: bool = True) -> None:
    """Gives a model the adapters of a file; one without any gets them where the file has them, and is frozen.

    Args:
        strict: whether the matrices must be those that the adapters were trained on; a copy in another precision is.
    Raises: CorruptFileError; TensorMismatchError when layers or shapes differ; ConfigError when the model has other
        adapters, or other matrices. The model is then as before.
    """
    about, tensors = read_about(path), read_safetensors(path)
    by_name = {
        name: (layer_path, part)
        for layer_path, layer in adaptable(model).items()
        for part, name in enumerate(names(layer_path, layer))
    }
    unknown = [f"{name}: the model has no such layer" for name in tensors if name not in by_name]
    raise_for(path, unknown)
    layers = {p: layer for p, layer in adaptable(model).items() if any(by_name[name][0] == p for name in tensors)}
    problems, found = [], {}
    for layer_path, layer in layers.items():
        inputs, outputs = matrix(layer).shape
        for name, shape in zip(
            names(layer_path, layer), ((about["rank"], inputs), (outputs, about["rank"])), strict=True
        ):
            if name not in tensors:
                problems.append(f"{name}: missing; expected shape {shape}")
            elif tensors[name].shape != shape:
                problems.append(f"{name}: shape {tensors[name].shape}, but the model needs {shape}")
            else:
                found[name] = tensors[name].read().astype("float32").T
                check_finite(name, found[name])
    raise_for(path, problems)
    if strict and fingerprint(layers) != about["base"]:
        raise ConfigError(
            f"the adapters of {path} were trained on other weights than this model's; load the model they belong to, "
            "or pass strict=False"
        )
    held = adapted(model)
    if held and (set(held), ranks(held)) != (set(layers), {(about["rank"], about["alpha"])}):
        raise ConfigError(
            f"the model has adapters of (rank, alpha) {sorted(ranks(held))} on {len(held)} layers, {path} "
            f"({about['rank']}, {about['alpha']}) on {len(layers)}; load the file into a model without adapters"
        )
    if not held:
        adapt(model, layers, about["rank"], about["alpha"])
    for layer_path, layer in layers.items():
        for name, variable in zip(names(layer_path, layer), adapters(layer), strict=True):
            variable.assign(found[name])


def merge_lora(model: keras.Model) -> None:
    """Adds the adapters to their matrices, and takes them out of the model. All that was frozen stays so;
    `model.trainable = True` changes that.

    Raises: ConfigError when there are none.
    """
    layers = adapted(model)
    if not layers:
        raise ConfigError("this model has no adapters to merge")
    for layer in layers.values():
        matrix(layer).assign(merged(layer))
        for variable in adapters(layer):
            layer._untrack_variable(variable)
        layer.lora_enabled, layer.lora_rank = False, None
    forget_compiled(model)


def merged_tensors(model) -> dict:
    """What a checkpoint holds in place of the matrices that have adapters: path of the variable -> function that gives
    its values.
    """
    return {matrix(layer).path: lambda layer=layer: merged(layer) for layer in adapted(model).values()}


def clear_adapters(model) -> None:
    """Makes the adapters of a model add nothing, as when they were new: its matrices are now others."""
    for layer in adapted(model).values():
        b = adapters(layer)[1]
        b.assign(np.zeros(b.shape, "float32"))


def merged(layer) -> np.ndarray:
    """A layer's matrix with its adapters in it, added in float32.

    Shape: (in, out), of the matrix's dtype
    """
    a, b = map(values, adapters(layer))
    base = matrix(layer)
    total = values(base) + np.float32(layer.lora_alpha / layer.lora_rank) * (a @ b)
    return total.astype(BFLOAT16 if base.dtype == "bfloat16" else base.dtype)


def adaptable(model) -> dict:
    """Path -> layer, of all dense and embedding layers, in the order of the model's variables."""
    kinds = keras.layers.Dense, keras.layers.Embedding
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, kinds) and layer.built]
    of_matrix = {id(matrix(layer)): layer for layer in layers}
    return {v.path.rpartition("/")[0]: of_matrix[id(v)] for v in model.weights if id(v) in of_matrix}


def adapted(model) -> dict:
    """Path -> layer, of those with adapters."""
    return {path: layer for path, layer in adaptable(model).items() if layer.lora_enabled}


def matrix(layer) -> keras.Variable:
    """What a layer multiplies by, or looks up in, without its adapters."""
    return layer._kernel if isinstance(layer, keras.layers.Dense) else layer._embeddings


def adapters(layer) -> tuple[keras.Variable, keras.Variable]:
    """A and B of a layer. Shape: (in, rank), (rank, out)"""
    if isinstance(layer, keras.layers.Dense):
        return layer.lora_kernel_a, layer.lora_kernel_b
    return layer.lora_embeddings_a, layer.lora_embeddings_b


def names(path: str, layer) -> tuple[str, str]:
    """The tensors of a layer's adapters in a file, transposed as everything of PyTorch's is."""
    kind, end = ("lora_", ".weight") if isinstance(layer, keras.layers.Dense) else ("lora_embedding_", "")
    return tuple(f"base_model.model.{path.replace('/', '.')}.{kind}{part}{end}" for part in "AB")


def ranks(layers: dict) -> set[tuple[int, float]]:
    """The pairs of rank and alpha that there are."""
    return {(layer.lora_rank, layer.lora_alpha) for layer in layers.values()}


def is_table(path: str, layer) -> bool:
    """Whether a layer is the token embedding."""
    return isinstance(layer, keras.layers.Embedding) and path.endswith("Embedding-Token")


def values(variable) -> np.ndarray:
    """The values of a variable, in float32. Shape: any -> the same"""
    return keras.ops.convert_to_numpy(variable.value).astype("float32")


def fingerprint(layers: dict) -> str:
    """Of the matrices under the adapters, rounded to bfloat16, so that it is the same in every precision."""
    digest = hashlib.sha256()
    for path in sorted(layers):
        digest.update(path.encode() + np.ascontiguousarray(values(matrix(layers[path])).astype(BFLOAT16)).tobytes())
    return digest.hexdigest()


def read_about(path: str | os.PathLike) -> dict:
    """Rank, alpha and fingerprint of a file. Raises: CorruptFileError, UnknownFormatError for adapters of PEFT"""
    path = Path(path)
    names = [child.name for child in path.iterdir()] if path.is_dir() else [path.name]
    what = explained(sorted(name for name in names if name.startswith("adapter_")))
    if what:
        raise UnknownFormatError(
            f"{path} holds no adapters that save_lora wrote: {what}. A folder of PEFT's is "
            "for bert4x.training.peft.load_peft(model, folder)"
        )
    try:
        about = json.loads(read_safetensors_metadata(path)[FORMAT])
        about = {"rank": about["rank"], "alpha": about["alpha"], "base": about["base"]}
        numbers = [about["rank"], about["alpha"]]
        if any(type(number) not in (int, float) or not 0 < number < math.inf for number in numbers):
            raise ValueError(f"rank and alpha are {numbers}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptFileError(
            f"{path} holds no adapters that save_lora wrote ({type(error).__name__}: {error}); expected rank, alpha "
            f"and base under {FORMAT!r} in its metadata"
        ) from error
    return about


def raise_for(path: str | os.PathLike, problems: list[str]) -> None:
    """Raises: TensorMismatchError that names them."""
    if problems:
        more = f"\n  ... and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise TensorMismatchError(f"{Path(path)} does not fit this model:\n  " + "\n  ".join(problems[:8]) + more)


def forget_compiled(model) -> None:
    """Drops what was compiled for other variables."""
    model.train_function = model.test_function = model.predict_function = None
    if hasattr(model, "engine"):
        model.engine = None
