"""TensorFlow checkpoints (`x.index` and `x.data-00000-of-00001`), read and written without TensorFlow.

The index is a LevelDB table from tensor names to BundleEntryProto messages, the data files are the tensors' bytes
(tensorflow/core/util/tensor_bundle and core/protobuf/tensor_bundle.proto). Every tensor carries a crc32c.
"""

import json
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert4x.checkpoints.formats.common import check_cost, check_count, checked_shape, read_ahead
from bert4x.checkpoints.formats.leveldb_table import masked_crc32c, read_table, read_varint, write_table, write_varint
from bert4x.checkpoints.formats.protobuf import field, fields, integer, messages
from bert4x.checkpoints.formats.regions import RegionFile, naming
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, Tensors, atomic_write
from bert4x.errors import ConversionError, CorruptFileError, UnknownFormatError

# tensorflow/core/framework/types.proto
_DTYPES = {
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.int8),
    8: np.dtype(np.complex64),
    9: np.dtype(np.int64),
    10: np.dtype(np.bool_),
    14: BFLOAT16,
    17: np.dtype(np.uint16),
    18: np.dtype(np.complex128),
    19: np.dtype(np.float16),
    22: np.dtype(np.uint32),
    23: np.dtype(np.uint64),
}
_ENUMS = {dtype: enum for enum, dtype in _DTYPES.items()}
_STRING = 7
_NOT_NUMERIC = {_STRING, 20, 21}  # string, resource, variant: bookkeeping of TF2 checkpoints, never weights
_MAX_INDEX_SIZE = 256 << 20  # about a million tensors


@dataclass(frozen=True)
class _Entry:
    """A BundleEntryProto: one tensor, or one slice of a partitioned one."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[tuple[tuple[int, int], ...], ...]  # of a partitioned tensor: (start, length) of every axis


def normalize_prefix(path: str | os.PathLike) -> Path:
    """The prefix of a checkpoint from itself or the name of any of its files."""
    return Path(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", os.fspath(path)))


def read_tf1(prefix: str | os.PathLike) -> Tensors:
    """The tensors of a TensorFlow 1 or 2 checkpoint, in the order of their names; strings are skipped.

    `prefix` is what `tf.train.Saver` took, or the name of one of the files. Partitioned variables are read as one.
    `read()` and `verify()` of each tensor check its crc32c; those of the index are always checked.

    Raises: `CheckpointNotFoundError`, `CorruptFileError`, `UnknownFormatError` (big-endian, compressed, exotic dtypes),
    `UnsafeFileError` (many tensors in the same bytes).
    """
    prefix = normalize_prefix(prefix)
    index = Path(f"{prefix}.index")
    if not index.exists() and prefix.is_file():
        raise UnknownFormatError(f"{prefix}: a TensorFlow checkpoint is {index.name} and data files, which are absent")
    file = RegionFile(index)
    if file.size > _MAX_INDEX_SIZE:
        raise UnknownFormatError(f"{index}: {file.size} bytes are too many for the index of a checkpoint")
    with naming(index):
        entries = {}
        for key, value in read_table(file.bytes(0, file.size)):
            entries[key] = value
            check_count(len(entries), file.size, str(index))
        return _tensors(prefix, entries, file.size)


def read_tf_string(prefix: str | os.PathLike, name: str) -> bytes | None:
    """A scalar string of a TensorFlow checkpoint, its checksum checked; None if there is none of that name.

    Raises: as `read_tf1`.
    """
    prefix = normalize_prefix(prefix)
    file = RegionFile(f"{prefix}.index")
    with naming(file.path):
        wanted = b"", name.encode()
        entries = {key: value for key, value in read_table(file.bytes(0, file.size)) if key in wanted}
        if wanted[1] not in entries:
            return None
        shards, entry = _parse_header(entries.get(b"", b"")), _parse_entry(entries[wanted[1]])
        if entry.dtype != _STRING or entry.shape or not 0 <= entry.shard < shards:
            raise CorruptFileError(f"{name!r} is no string, or lies in data file {entry.shard} of {shards}")
        data = RegionFile(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}").bytes(entry.offset, entry.size)
        length, at = read_varint(data, 0)
        # Before the string comes the checksum of its length; the one of the entry is over length, checksum and string.
        parts = [struct.pack("<I", length & 0xFFFFFFFF), data[at : at + 4], data[at + 4 :]]
        if len(parts[2]) != length or masked_crc32c(parts) != entry.crc:
            raise CorruptFileError(f"{name!r} fails its checksum; download the file again")
        return parts[2]


def write_tf1(prefix: str | os.PathLike, tensors: Iterable[LazyTensor], *, checkpoint_file: bool = True) -> None:
    """Write a checkpoint that `tf.train.load_checkpoint(prefix)` reads, one tensor in memory at a time.

    `checkpoint_file` also writes the text file `checkpoint` beside it, by which TensorFlow finds the latest.
    Nothing appears under the final names before all was written.

    Raises: `ConversionError` for an empty or duplicate name or a dtype that TensorFlow lacks.
    """
    prefix = normalize_prefix(prefix)
    entries = {}
    with atomic_write(f"{prefix}.index") as index, atomic_write(f"{prefix}.data-00000-of-00001") as data:
        with data.open("wb") as file:
            for tensor, values in read_ahead(tensors):
                key = tensor.name.encode()
                if not key or key in entries or _little(tensor.dtype) not in _ENUMS:
                    raise ConversionError(
                        f"{prefix}: cannot write tensor {tensor.name!r} of dtype {tensor.dtype}: "
                        "names must be unique and not empty, dtypes boolean, integer, floating or bfloat16"
                    )
                entries[key] = _write_tensor(file, tensor, values)
        header = field(1, 1) + field(3, field(1, 1))  # num_shards = 1, little-endian, version.producer = 1
        index.write_bytes(write_table(sorted({b"": header, **entries}.items())))
    if checkpoint_file:
        name = json.dumps(prefix.name, ensure_ascii=False)
        with atomic_write(prefix.parent / "checkpoint") as path:
            path.write_text(f"model_checkpoint_path: {name}\nall_model_checkpoint_paths: {name}\n", encoding="utf-8")


def _write_tensor(file: BinaryIO, tensor: LazyTensor, values: memoryview) -> bytes:
    """Append the bytes of a tensor and return its BundleEntryProto."""
    offset = file.tell()
    file.write(values)
    shape = b"".join(field(2, field(1, size)) for size in tensor.shape)
    crc = masked_crc32c([np.frombuffer(values, np.uint8)])
    parts = [field(1, _ENUMS[_little(tensor.dtype)]), field(2, shape), field(4, offset), field(5, len(values))]
    return b"".join(parts) + write_varint(6 << 3 | 5) + struct.pack("<I", crc)


def _little(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("<")


def _tensors(prefix: Path, entries: dict[bytes, bytes], size: int) -> Tensors:
    shards = _parse_header(entries.pop(b"", b""))
    parsed = {key: _parse_entry(value) for key, value in entries.items()}
    files: dict[int, RegionFile] = {}
    tensors: Tensors = {}
    slices: dict[str, list[LazyTensor]] = {}
    for key, entry in parsed.items():
        # TensorFlow names the slices of a partitioned variable by a zero byte, the name and the place.
        name = _decode(key[1:].split(b"\0\1")[0].replace(b"\0\xff", b"\0") if key[:1] == b"\0" else key)
        if entry.dtype in _NOT_NUMERIC or entry.slices:
            continue
        if entry.dtype not in _DTYPES:
            raise UnknownFormatError(
                f"tensor {name!r} has TensorFlow's dtype {entry.dtype}, which bert4x does not read"
            )
        if not 0 <= entry.shard < shards:
            raise CorruptFileError(f"tensor {name!r} lies in shard {entry.shard} of {shards}")
        if entry.shard not in files:
            files[entry.shard] = RegionFile(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}")
        tensor = _lazy(name, entry, files[entry.shard])
        if key[:1] == b"\0":
            slices.setdefault(name, []).append(tensor)
        else:
            tensors[name] = tensor
    for key, entry in parsed.items():
        if entry.slices and entry.dtype not in _NOT_NUMERIC:
            name = _decode(key)
            tensors[name] = _partitioned(name, entry, slices.get(name, []))
    size += sum(file.size for file in files.values())
    check_cost(sum(tensor.nbytes for tensor in tensors.values()), size, f"{prefix}.index")
    return dict(sorted(tensors.items()))


def _lazy(name: str, entry: _Entry, file: RegionFile) -> LazyTensor:
    def check(chunks: Iterable[np.ndarray]) -> None:
        if masked_crc32c(chunks) != entry.crc:
            raise CorruptFileError(f"{file.path}: tensor {name!r} fails its checksum; download the file again")

    def verify() -> bool:
        check(file.chunks(entry.offset, entry.size))
        return True

    def read() -> np.ndarray:
        data = file.read(entry.offset, entry.size)
        check([data])
        return data.view(tensor.dtype).reshape(tensor.shape)

    tensor = file.tensor(name, entry.offset, entry.shape, _DTYPES[entry.dtype])
    if entry.size != tensor.nbytes:
        raise CorruptFileError(f"{name!r} {tensor.shape} {tensor.dtype} has {entry.size} bytes, not {tensor.nbytes}")
    return replace(tensor, read=read, verify=verify)


def _partitioned(name: str, entry: _Entry, parts: list[LazyTensor]) -> LazyTensor:
    """One tensor from the slices of a partitioned variable, which TensorFlow cuts along one axis."""
    dtype = _DTYPES.get(entry.dtype)
    checked_shape(entry.shape, 1, f"partitioned variable {name!r}")
    # The slices' keys encode their places in an order-preserving way, so both lists are in the same order.
    extents = sorted(_full_extent(extent, entry.shape) for extent in entry.slices)
    axes = {axis for extent in extents for axis, (_, length) in enumerate(extent) if length != entry.shape[axis]}
    axis = max(axes, default=0)
    expected = [(tuple(length for _, length in extent), dtype) for extent in extents]
    starts = [extent[axis][0] for extent in extents if extent]
    ends = list(accumulate((extent[axis][1] for extent in extents if extent), initial=0))
    if (
        len(axes) > 1
        or [(part.shape, part.dtype) for part in parts] != expected
        or len(starts) != len(extents)
        or [*starts, entry.shape[axis]] != ends
    ):
        raise UnknownFormatError(
            f"partitioned variable {name!r} {entry.shape} is not cut along one axis into the slices that are there; "
            "load it in TensorFlow and save it without partitions"
        )
    return LazyTensor(
        name,
        entry.shape,
        dtype,
        lambda: np.concatenate([part.read() for part in parts], axis=axis),
        lambda: all(part.verify() for part in parts),
    )


def _full_extent(extent: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The (start, length) of a slice along every axis; TensorFlow writes -1 for the length of a whole axis."""
    if len(extent) != len(shape):
        raise CorruptFileError(f"a slice of rank {len(extent)} in a variable of shape {shape}")
    return [(0, size) if length < 0 else (start, length) for (start, length), size in zip(extent, shape, strict=True)]


def _decode(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise CorruptFileError(f"tensor name {name[:80]!r} is not UTF-8") from None


def _parse_header(message: bytes) -> int:
    """The number of shards from a BundleHeaderProto."""
    header = dict(fields(message))
    if header.get(2, 0) != 0:
        raise UnknownFormatError("a big-endian checkpoint; load and save it on a little-endian machine")
    shards = header.get(1, 0)
    if not isinstance(shards, int) or not 0 < shards <= 99999:
        raise CorruptFileError(f"the header of the checkpoint names {shards!r:.80} data files")
    return shards


def _parse_entry(message: bytes) -> _Entry:
    single = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape, slices = (), []
    for number, value in fields(message):
        if isinstance(value, int):
            single[number] = value
        elif number == 2:
            shape = _parse_shape(value)
        elif number == 7:
            extents = [dict(fields(extent)) for extent in messages(value, 1)]
            slices.append(tuple((integer(e.get(1, 0)), integer(e.get(2, -1))) for e in extents))
    return _Entry(single[1], shape, single[3], single[4], single[5], single[6], tuple(slices))


def _parse_shape(message: bytes) -> tuple[int, ...]:
    dims = tuple(integer(dict(fields(dim)).get(1, 0)) for dim in messages(message, 2))
    if dict(fields(message)).get(3):
        raise CorruptFileError("a tensor in the index has no known rank")
    return dims
