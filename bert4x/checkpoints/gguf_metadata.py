"""What the metadata of a GGUF say of a model and its vocabulary, in place of a config file and others."""

from dataclasses import replace
from typing import Any

import numpy as np

from bert4x.checkpoints.formats.gguf_file import BLOCK, Packed
from bert4x.checkpoints.tables import style_for, written_keys
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor
from bert4x.checkpoints.weights import check_finite
from bert4x.config import TransformerConfig, to_json
from bert4x.errors import ConversionError, CorruptFileError, UnknownFormatError, nearest

PACKED = "q8_0"  # a dtype of matrices in GGUF
DTYPES = {"float32": np.dtype("f4"), "float16": np.dtype("f2"), "bfloat16": BFLOAT16}
FLOATS = ("epsilon", "freq_base", "factor")  # ends of keys of numbers that llama.cpp reads as such
FILE_TYPES = {"float32": 0, "float16": 1, PACKED: 7, "bfloat16": 32}
TABLES = ("position_embd.weight", "token_types.weight")  # stay float32, as llama.cpp's own scripts have it


def said_by(metadata: dict[str, Any], where) -> dict[str, Any]:
    """What a config file would say: keys with dots as objects; the architecture is the type of the model.

    Raises: UnknownFormatError for another architecture, CorruptFileError.
    """
    said: dict[str, Any] = {"model_type": str(metadata.get("general.architecture"))[:80]}
    if not (keys := written_keys("gguf", said["model_type"])):
        raise UnknownFormatError(
            f"{where}: a model of the architecture {said['model_type']!r}; expected bert, gpt2, llama, qwen2 or qwen3"
        )
    for key in keys:
        found = {name: value for name, value in metadata.items() if name == key or name.startswith(f"{key}.")}
        for name, value in found.items():
            *groups, last = name.split(".")
            place = said
            for group in groups:
                place = place.setdefault(group, {})
                if not isinstance(place, dict):
                    raise CorruptFileError(f"{where}: the metadata have both {group!r} and {name!r}; damaged")
            place[last] = value.tolist() if isinstance(value, np.ndarray) else value
    check_rotation(metadata, said["model_type"], where)
    return said


def check_rotation(metadata: dict[str, Any], arch: str, where) -> None:
    """Raises: UnknownFormatError for positions that turn a part of each head only."""
    names = ("rope.dimension_count", "attention.key_length", "embedding_length", "attention.head_count")
    turned, size, hidden, heads = (metadata.get(f"{arch}.{name}") for name in names)
    if size is None and type(hidden) is int and type(heads) is int and heads:
        size = hidden // heads
    if turned is not None and type(size) is int and turned != size:
        raise UnknownFormatError(
            f"{where}: {arch}.rope.dimension_count is {turned}, of {size} features of a head; expected all of them"
        )


def metadata_of(config: TransformerConfig, ours: dict[str, LazyTensor], tokenizer, dtype: str | None) -> dict[str, Any]:
    """The metadata of a model. Raises: ConversionError for a config that llama.cpp cannot be told."""
    from bert4x.tokenizers.gguf_saving import vocabulary_metadata

    said = flat(to_json(config.replace(extra={}), style_for("gguf", config.model)))
    arch, pre = said.pop("model_type"), said.pop("tokenizer.ggml.pre", None)
    lost = [key for key in said if not key.startswith((f"{arch}.", "tokenizer."))]
    if lost:
        raise ConversionError(f"GGUF has no room for {', '.join(lost)} of this config")
    said = {key: float(value) if key.endswith(FLOATS) else value for key, value in said.items() if value is not None}
    if f"{arch}.attention.key_length" in said:
        said[f"{arch}.attention.value_length"] = said[f"{arch}.attention.key_length"]
    name = dtype or str(ours["Embedding-Token/embeddings"].dtype)
    head = {"general.architecture": arch, "general.name": arch, "general.file_type": FILE_TYPES.get(name, 0)}
    head |= {"general.quantization_version": 2} if name == PACKED else {}
    vocabulary = vocabulary_metadata(tokenizer, config.vocab_size, pre)
    size = len(vocabulary.get("tokenizer.ggml.tokens", ()))
    if size > config.vocab_size:
        raise ConversionError(
            f"the vocabulary has {size} tokens, the model {config.vocab_size}; llama.cpp refuses that"
        )
    return head | said | vocabulary


def flat(data: dict[str, Any], before: str = "") -> dict[str, Any]:
    """An object with objects inside as one of keys with dots."""
    found = {}
    for key, value in data.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return found


def as_llama_cpp(tensors, dtype: str | None) -> list:
    """Tensors in the dtypes that llama.cpp wants: vectors and small tables in float32, matrices as asked for; of Q8_0
    those whose rows are no blocks in float16.

    Raises: ConversionError for a dtype that there is not.
    """
    if dtype is not None and dtype not in FILE_TYPES:
        raise ConversionError(f"no dtype {dtype!r}; {nearest(dtype, FILE_TYPES)}")
    found = []
    for tensor in tensors:
        if len(tensor.shape) < 2 or tensor.name in TABLES:
            found.append(cast(tensor, np.dtype("f4")))
        elif dtype == PACKED and tensor.shape[-1] % BLOCK == 0:
            found.append(Packed(tensor))
        else:
            found.append(cast(tensor, DTYPES.get(dtype, np.dtype("f2"))) if dtype else tensor)
    return found


def cast(tensor: LazyTensor, dtype: np.dtype) -> LazyTensor:
    """A tensor in another dtype. Raises: NotFiniteError where it cannot hold a value."""

    def read() -> np.ndarray:
        with np.errstate(over="ignore"):
            values = tensor.read().astype(dtype)
        check_finite(f"{tensor.name} as {dtype}", values)
        return values

    return tensor if tensor.dtype == dtype else replace(tensor, dtype=dtype, read=read, rows=None)
