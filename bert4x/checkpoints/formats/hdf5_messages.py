"""The messages of HDF5 object headers that describe arrays: dataspace and datatype."""

import struct

import numpy as np

from bert4x.checkpoints.tensors import BFLOAT16
from bert4x.errors import CorruptFileError

# (bytes, exponent's place and bits, mantissa's place and bits, bias) of little-endian floats whose top bit is the sign
_FLOATS = {
    (2, 10, 5, 0, 10, 15): np.dtype("<f2"),
    (2, 7, 8, 0, 7, 127): BFLOAT16,
    (4, 23, 8, 0, 23, 127): np.dtype("<f4"),
    (8, 52, 11, 0, 52, 1023): np.dtype("<f8"),
}
_FIXED, _FLOAT, _STRING, _OPAQUE, _ENUM, _VARIABLE = 0, 1, 3, 5, 8, 9


def unpack(form: str, data: bytes, at: int) -> tuple:
    """`struct.unpack_from` that raises `CorruptFileError` beyond the end of `data`."""
    try:
        return struct.unpack_from(form, data, at)
    except struct.error:
        raise CorruptFileError(f"an HDF5 structure ends early, {len(data)} bytes long; the file is damaged") from None


def cut(data: bytes, at: int, size: int) -> bytes:
    """`size` bytes of `data` from `at` on; raises `CorruptFileError` if they are not all there."""
    if at + size > len(data):
        raise CorruptFileError(f"an HDF5 structure ends early, {len(data)} bytes long; the file is damaged")
    return data[at : at + size]


def parse_dataspace(body: bytes) -> tuple[int, ...] | None:
    """The shape, () of a scalar, None of the null dataspace. Raises: CorruptFileError"""
    version, rank, _, kind = unpack("<4B", body, 0)
    if version not in (1, 2) or rank > 32:
        raise CorruptFileError(f"HDF5 dataspace of version {version} and rank {rank}; the file is damaged")
    if version == 2 and kind == 2:
        return None
    return unpack(f"<{rank}Q", body, 8 if version == 1 else 4)


def parse_datatype(body: bytes) -> tuple[np.dtype | str, int]:
    """What the elements are and their size in bytes.

    The first is a dtype where NumPy has it, else "string" (of fixed length), "strings" (of variable length),
    "opaque", or a description of what is not read here.

    Raises: CorruptFileError
    """
    class_and_version, bits, bits8, _, size = unpack("<4BI", body, 0)
    kind = class_and_version & 15
    if not 1 <= class_and_version >> 4 <= 4 or size == 0:
        raise CorruptFileError("HDF5 datatype of an unknown version or no size; the file is damaged")
    if kind == _STRING:
        return "string", size
    if kind == _OPAQUE:
        return "opaque", size
    if kind == _VARIABLE and bits & 15 == 1 and size == 16:
        return "strings", size
    if kind == _ENUM and size == 1 and b"FALSE\0" in body and b"TRUE\0" in body:  # how h5py writes booleans
        return np.dtype(np.bool_), size
    if kind in (_FIXED, _FLOAT) and unpack("<HH", body, 8) == (0, 8 * size) and not bits & 1:
        if kind == _FIXED and size in (1, 2, 4, 8):
            return np.dtype(f"<{'i' if bits & 8 else 'u'}{size}"), size
        if kind == _FLOAT and bits8 == 8 * size - 1:
            dtype = _FLOATS.get((size, *unpack("<4BI", body, 12)))
            if dtype:
                return dtype, size
    return f"HDF5 datatype class {kind} of {size} bytes", size
