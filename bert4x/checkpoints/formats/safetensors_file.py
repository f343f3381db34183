"""The safetensors container, single and sharded.

Format (huggingface/safetensors): the length of the header as 8 little-endian bytes; the header, a JSON object of
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}` and optionally `"__metadata__": {str: str}`; then the
values, which cover the rest of the file without holes. There is no checksum.
"""

import contextlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.common import (
    check_count,
    checked_name,
    little_endian,
    read_ahead,
    unique_list,
)
from bert4x.checkpoints.formats.regions import RegionFile
from bert4x.checkpoints.formats.sharded import read_sharded
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, Tensors, atomic_write
from bert4x.errors import ConversionError, CorruptFileError, UnknownFormatError
from bert4x.json_files import parse_json

INDEX_NAME = "model.safetensors.index.json"
MAX_HEADER = 16 << 20  # bytes; a tensor takes about 100, and the parsed header twenty times its length
DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "BOOL": "bool", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": BFLOAT16,
        "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
    }.items()
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_safetensors(path) -> Tensors:
    """The tensors of one file; only its header is read now.

    Raises `CorruptFileError` for anything that contradicts the format, `UnknownFormatError` for a dtype NumPy lacks.
    """
    file = RegionFile(path)
    path = file.path
    header, start, size = _read_header(file)
    check_count(len(header), file.size, str(path))
    tensors = {name: _lazy(file, name, entry, start, size) for name, entry in header.items() if name != "__metadata__"}
    expected = 0
    for begin, end, name in sorted((*header[name]["data_offsets"], name) for name in tensors):
        if begin != expected:
            raise CorruptFileError(f"{path}: tensor {name!r} begins at byte {begin} of the data, expected {expected}")
        expected = end
    if expected != size:
        raise CorruptFileError(f"{path}: {size} bytes of data, but the header accounts for {expected}")
    return tensors


def read_safetensors_metadata(path) -> dict[str, str]:
    """The free-form metadata of a file; `{}` if it has none."""
    return _read_header(RegionFile(path))[0].get("__metadata__", {})


def read_safetensors_sharded(index_path) -> Tensors:
    """The tensors of all shards named by a `model.safetensors.index.json`; errors as `read_sharded`."""
    return read_sharded(index_path, read_safetensors)


def _read_header(file: RegionFile) -> tuple[dict, int, int]:
    """(header, offset of the data, size of the data)"""
    path, total = file.path, file.size
    length = int.from_bytes(file.bytes(0, min(8, total)), "little")
    if total < 10 or length > min(total - 8, MAX_HEADER):
        raise CorruptFileError(f"{path}: {total} bytes with a header of {length}; truncated, or not safetensors")
    data = file.bytes(8, length)
    if not data.startswith(b"{"):
        raise CorruptFileError(f"{path}: the header is not a JSON object; damaged, or not safetensors")
    header = parse_json(data, str(path), unique_keys=True)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptFileError(f"{path}: __metadata__ must map strings to strings")
    return header, 8 + length, total - 8 - length


def _lazy(file: RegionFile, name: str, entry, start: int, size: int) -> LazyTensor:
    where = f"{file.path}: tensor {checked_name(name, str(file.path))!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CorruptFileError(f"{where}: expected an object of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UnknownFormatError(f"{where} has dtype {str(dtype)[:40]!r}; bert4x reads {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise CorruptFileError(f"{where}: shape and data_offsets must be lists, data_offsets of two numbers")
    dtype = DTYPES[dtype]
    begin, end = offsets
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= size:
        raise CorruptFileError(f"{where}: data_offsets are not within the {size} bytes of data; truncated?")
    tensor = file.tensor(name, start + begin, tuple(shape), dtype)
    if tensor.nbytes != end - begin:
        raise CorruptFileError(f"{where}: {dtype} {shape} needs {tensor.nbytes} bytes, data_offsets give {end - begin}")
    return tensor


def write_safetensors(path, tensors: Iterable[LazyTensor], metadata: dict[str, str] | None = None) -> None:
    """Writes one file, one tensor in memory at a time; `path` appears only when it is complete.

    `metadata` defaults to `{"format": "pt"}`, which `transformers` asks for. Raises `TensorMismatchError` for a
    repeated name and `ConversionError` for what the format cannot hold.
    """
    with atomic_write(path) as temporary:
        _write(temporary, unique_list(tensors), metadata)


def write_safetensors_sharded(
    folder,
    tensors: Iterable[LazyTensor],
    *,
    shards: int | None = None,
    max_shard_bytes: int = 5_000_000_000,
    metadata: dict[str, str] | None = None,
) -> list[Path]:
    """Writes `model.safetensors`, or shards and their index under Hugging Face's names; returns the files.

    `shards` asks for that many files of about equal size (fewer if there are fewer tensors); otherwise each holds at
    most `max_shard_bytes`, or a single larger tensor. Nothing appears in `folder` before all of it is complete.
    Raises `ConversionError` where the folder has other weights, which loaders would confuse with these.
    """
    folder, tensors = Path(folder), unique_list(tensors)
    groups = _split_evenly(tensors, shards) if shards else _split_by_size(tensors, max_shard_bytes)
    many = len(groups) > 1
    names = [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    names = names if many else ["model.safetensors"]
    written = [*names, INDEX_NAME] if many else names
    stale = sorted(path.name for path in folder.glob("model*.safetensors*") if path.name not in written)
    if stale:
        raise ConversionError(f"{folder} already holds {', '.join(stale)}; choose an empty folder or delete them")
    with contextlib.ExitStack() as stack:
        # contexts close in reverse: the index, which makes the checkpoint visible, is renamed last
        temporary = {name: stack.enter_context(atomic_write(folder / name)) for name in reversed(written)}
        for name, group in zip(names, groups, strict=True):
            _write(temporary[name], group, metadata)
        if many:
            weight_map = {t.name: name for name, group in zip(names, groups, strict=True) for t in group}
            index = {"metadata": {"total_size": sum(t.nbytes for t in tensors)}, "weight_map": weight_map}
            temporary[INDEX_NAME].write_text(json.dumps(index, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in written]


def _split_by_size(tensors: Sequence[LazyTensor], limit: int) -> list[list[LazyTensor]]:
    groups, size = [[]], 0
    for tensor in tensors:
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    return groups


def _split_evenly(tensors: Sequence[LazyTensor], shards: int) -> list[list[LazyTensor]]:
    """Consecutive groups: a tensor belongs where the middle of its bytes falls."""
    ends = list(itertools.accumulate(tensor.nbytes for tensor in tensors))
    total = max(ends[-1], 1) if ends else 1
    groups = [[] for _ in range(shards)]
    for tensor, end in zip(tensors, ends, strict=True):
        groups[min(shards - 1, (2 * end - tensor.nbytes) * shards // (2 * total))].append(tensor)
    return [group for group in groups if group] or [[]]


def _write(path: Path, tensors: Sequence[LazyTensor], metadata: dict[str, str] | None) -> None:
    # widest dtypes first keeps every tensor aligned; the reference orders them the same way
    tensors = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))
    header: dict = {"__metadata__": {"format": "pt"} if metadata is None else metadata}
    begin = 0
    for tensor in tensors:
        dtype = DTYPE_NAMES.get(little_endian(tensor.dtype))
        if dtype is None or tensor.name == "__metadata__":
            raise ConversionError(f"safetensors cannot hold tensor {tensor.name!r} of {tensor.dtype}")
        end = begin + tensor.nbytes
        header[tensor.name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    data = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    with path.open("wb") as file:
        file.write(len(data).to_bytes(8, "little") + data)
        for _, values in read_ahead(tensors):
            file.write(values)
