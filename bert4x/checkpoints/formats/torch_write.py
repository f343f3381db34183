"""Writes PyTorch's zip serialization without PyTorch: what `torch.load(path, weights_only=True)` reads."""

import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.common import little_endian, read_ahead, unique_list
from bert4x.checkpoints.formats.torch_globals import DTYPES
from bert4x.checkpoints.tensors import LazyTensor, atomic_write
from bert4x.errors import ConversionError

ALIGNMENT = 64  # of each storage in the file, as torch.save does, so that it can be mapped
ZIP64_FIELD = 20  # bytes `zipfile` adds to the local header of a member that may pass 2 GiB
STORAGE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_torch(
    path, tensors: Iterable[LazyTensor], root: str | None = None, extra: Mapping[str, object] | None = None
) -> None:
    """Writes a dict of tensors, one in memory at a time; `path` appears only when it is complete.

    With `root` the file is `{root: {name: tensor}, **extra}` (Megatron and DeepSpeed: root="module"), otherwise
    `{name: tensor, **extra}`. `extra` holds None, bool, int, float, str and dicts of them by string. Raises
    `TensorMismatchError` for a repeated name and `ConversionError` for what the format cannot hold.
    """
    path, tensors, extra = Path(path), unique_list(tensors), dict(extra or {})
    for name in extra:
        if name == root or (root is None and any(tensor.name == name for tensor in tensors)):
            raise ConversionError(f"{name!r} cannot be both weights and an extra value")
    state = b"".join(_value(t.name) + _tensor(str(key), t) for key, t in enumerate(tensors))
    items = b"".join(_value(name) + _value(value) for name, value in extra.items())
    state = _value(root) + b"}(" + state + b"u" if root is not None else state
    # torch names the folder inside after the file; any plain name will do
    folder = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).strip(".") or "archive"
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _member(archive, f"{folder}/data.pkl", b"\x80\x02}(" + state + items + b"u.")
        _member(archive, f"{folder}/byteorder", b"little")
        for key, (_, values) in enumerate(read_ahead(tensors)):
            _member(archive, f"{folder}/data/{key}", values)
        _member(archive, f"{folder}/version", b"3\n")


def _member(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """A stored member whose data begin at a multiple of `ALIGNMENT`."""
    info = zipfile.ZipInfo(name)
    info.file_size = len(data)
    begin = archive.fp.tell() + zipfile.sizeFileHeader + len(name) + 4
    if info.file_size * 1.05 > zipfile.ZIP64_LIMIT:
        begin += ZIP64_FIELD
    padding = -begin % ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    with archive.open(info, "w") as file:
        file.write(data)
    info.extra = b""  # the directory needs no padding


def _value(value) -> bytes:
    """Pickle of plain data (protocol 2)."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if 0 <= value < 256:
            return b"K" + bytes([value])
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case tuple():
            return b"(" + b"".join(map(_value, value)) + b"t"
        case dict():
            return b"}(" + b"".join(_value(str(k)) + _value(v) for k, v in value.items()) + b"u"
    raise ConversionError(f"cannot write a {type(value).__name__} into a PyTorch file")


def _tensor(key: str, tensor: LazyTensor) -> bytes:
    """Pickle of a contiguous tensor that owns storage `key`."""
    kind = STORAGE_NAMES.get(little_endian(tensor.dtype))
    if kind is None:
        raise ConversionError(f"PyTorch has no storage for tensor {tensor.name!r} of {tensor.dtype}")
    strides = tuple(int(np.prod(tensor.shape[i + 1 :], dtype=object)) for i in range(len(tensor.shape)))
    storage = (
        b"(" + _value("storage") + f"ctorch\n{kind}Storage\n".encode() + _value(key) + _value("cpu")
        + _value(tensor.size) + b"tQ"
    )  # fmt: skip
    hooks = b"ccollections\nOrderedDict\n)R"
    view = storage + _value(0) + _value(tuple(map(int, tensor.shape))) + _value(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"
