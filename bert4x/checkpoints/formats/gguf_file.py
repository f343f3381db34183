"""GGUF, the files of llama.cpp: metadata by key, then tensors, whose blocks of 32 numbers may be quantized.

Read are F32, F16 and BF16, and Q8_0 and Q4_0 as the float32 numbers that they stand for; written are F32, F16, BF16 and
Q8_0. Dimensions lie there in reverse. Layout: the specification of ggml, version 3; older ones of little use differ.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.formats.common import check_cost, check_count, checked_name, checked_shape, read_ahead
from bert4x.checkpoints.formats.regions import FileBytes, RegionFile
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, Tensors, atomic_write
from bert4x.errors import ConversionError, CorruptFileError, UnknownFormatError

MAGIC, VERSIONS, ALIGNMENT, BLOCK = b"GGUF", (2, 3), 32, 32
MAX_ALIGNMENT = 1 << 16
# Types of values -> NumPy's; 8 is a string, 9 an array.
NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
FLOAT32, STRING, ARRAY = 6, 8, 9
PLAIN = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 28: np.dtype("<f8"), 30: BFLOAT16}
Q4_0, Q8_0 = 2, 8
BLOCK_BYTES = {Q4_0: 18, Q8_0: 34}
OTHERS = {3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K"}
OTHERS |= {20: "IQ4_NL", 23: "IQ4_XS", 39: "MXFP4"}


@dataclass(frozen=True)
class Packed:
    """A tensor to be written as Q8_0."""

    tensor: LazyTensor


class Reader:
    """Reads at a position that moves on."""

    def __init__(self, file: RegionFile):
        self.file, self.data, self.where, self.position = file, FileBytes(file), str(file.path), 0

    def take(self, size: int) -> bytes:
        """So many bytes. Raises: CorruptFileError"""
        if size > self.file.size - self.position:
            raise CorruptFileError(
                f"{self.where}: {size} bytes are expected at {self.position}, but the file ends; truncated?"
            )
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        """A string; bytes that are no UTF-8 become replacement characters."""
        return self.take(self.number("<Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A value of a type: a number, a string, a list of strings or an array. Raises: CorruptFileError"""
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            number = self.numbers(kind, 1)[0]
            return float(str(number)) if kind == FLOAT32 else number.item()
        kind, count = self.number("<I"), self.number("<Q")
        if kind != STRING:
            return self.numbers(kind, count)
        if count > self.file.size // 8:
            raise CorruptFileError(f"{self.where}: {count} strings do not fit in the file; damaged")
        return [self.text() for _ in range(count)]

    def numbers(self, kind: int, count: int) -> np.ndarray:
        """So many numbers of a type. Raises: CorruptFileError"""
        if kind not in NUMBERS:
            raise CorruptFileError(f"{self.where}: a value of type {kind}, which GGUF does not have; damaged")
        dtype = np.dtype(NUMBERS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)


def open_gguf(path) -> tuple[dict[str, Any], Tensors]:
    """The metadata and the tensors of a file; values are read on `read()`. There are no checksums.

    Raises: UnknownFormatError for types that are not read, CorruptFileError, UnsafeFileError.
    """
    file = RegionFile(path)
    reader, where = Reader(file), str(path)
    if reader.take(4) != MAGIC:
        raise UnknownFormatError(f"{where}: no GGUF; it does not begin with {MAGIC.decode()}")
    if (version := reader.number("<I")) not in VERSIONS:
        raise UnknownFormatError(f"{where}: version {version} of GGUF; expected one of {VERSIONS}")
    count, pairs = reader.number("<Q"), reader.number("<Q")
    check_count(max(count, pairs), file.size, where)
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = checked_name(reader.text(), where)
        metadata[key] = reader.value(reader.number("<I"))
    places = [place_of(reader) for _ in range(count)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT:
        raise CorruptFileError(f"{where}: an alignment of {str(alignment)[:40]}; damaged")
    start = reader.position + -reader.position % alignment
    tensors: Tensors = {}
    for name, shape, kind, offset in places:
        if name in tensors:
            raise CorruptFileError(f"{where}: tensor {name!r} is there twice; damaged")
        tensors[name] = lazy(file, name, shape, kind, start + offset)
    check_cost(sum(tensor.nbytes for tensor in tensors.values()), file.size, where)
    return metadata, tensors


def place_of(reader: Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of the next tensor. Raises: CorruptFileError"""
    name = checked_name(reader.text(), reader.where)
    rank = reader.number("<I")
    if rank > 8:
        raise CorruptFileError(f"{reader.where}: tensor {name!r} has {rank} dimensions; damaged")
    shape = tuple(reader.number("<Q") for _ in range(rank))[::-1]
    return name, shape, reader.number("<I"), reader.number("<Q")


def lazy(file: RegionFile, name: str, shape: tuple[int, ...], kind: int, offset: int) -> LazyTensor:
    """A tensor at a place of the file. Raises: UnknownFormatError, CorruptFileError."""
    where = f"{file.path}: tensor {name!r}"
    if kind in PLAIN:
        return file.tensor(name, offset, shape, PLAIN[kind])
    if kind not in BLOCK_BYTES:
        raise UnknownFormatError(
            f"{where} is {OTHERS.get(kind, f'of type {kind}')}; expected F32, F16, BF16, Q8_0 or Q4_0. Take the file "
            "of the model in one of these, or the checkpoint it was made of"
        )
    shape = checked_shape(shape, 4, where)
    if not shape or shape[-1] % BLOCK:
        raise CorruptFileError(f"{where}: rows of {shape} cannot be blocks of {BLOCK} numbers; damaged")
    width = shape[-1] // BLOCK * BLOCK_BYTES[kind]
    packed = file.tensor(name, offset, (*shape[:-1], width), np.dtype("u1"))

    def rows(start: int, stop: int) -> np.ndarray:
        return unpacked(packed.rows(start, stop), kind)

    single = len(shape) < 2
    return LazyTensor(name, shape, PLAIN[0], lambda: unpacked(packed.read(), kind), rows=None if single else rows)


def unpacked(packed: np.ndarray, kind: int) -> np.ndarray:
    """The float32 numbers of rows of blocks: a float16 scale, and 32 integers of 8 or 4 bits.

    Shape: (..., bytes) -> (..., numbers)
    """
    blocks = np.ascontiguousarray(packed).reshape(-1, BLOCK_BYTES[kind])
    scale = blocks[:, :2].copy().view("<f2").astype("f4")
    codes = blocks[:, 2:]
    if kind == Q4_0:  # the low halves of the bytes are the first 16 numbers
        codes = np.concatenate([codes & 15, codes >> 4], 1).astype("i1") - np.int8(8)
    values = codes.view("i1").astype("f4")
    with np.errstate(invalid="ignore"):  # of a damaged scale; whoever reads weights looks for it
        values *= scale
    return values.reshape(*packed.shape[:-1], packed.shape[-1] // BLOCK_BYTES[kind] * BLOCK)


def packed_bytes(values: np.ndarray) -> bytes:
    """Rows of numbers as Q8_0: of each 32 the largest is 127 times the scale."""
    blocks = np.ascontiguousarray(values, "f4").reshape(-1, BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    scaled = blocks * inverse
    codes = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype("i1")
    return np.concatenate([scale.astype("<f2").view("u1"), codes.view("u1")], 1).tobytes()


def write_gguf(path, tensors: Iterable[LazyTensor | Packed], metadata: Mapping[str, Any]) -> None:
    """Writes tensors, one in memory at a time, behind metadata: bool, int, float, str, and lists of str, int or float.

    Raises: ConversionError for what the format cannot hold.
    """
    path, tensors = Path(path), list(tensors)
    kinds = {dtype: kind for kind, dtype in PLAIN.items()}
    head = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata))
    head += b"".join(text_bytes(key) + value_bytes(key, value) for key, value in metadata.items())
    offset = 0
    for one in tensors:
        tensor, kind = (one.tensor, Q8_0) if isinstance(one, Packed) else (one, kinds.get(one.dtype))
        if kind is None:
            raise ConversionError(f"GGUF has no room for tensor {tensor.name!r} of {tensor.dtype}")
        dims = tensor.shape[::-1]
        head += text_bytes(tensor.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += size_of(one) + -size_of(one) % ALIGNMENT
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for one, (tensor, data) in zip(tensors, read_ahead(plain(tensors)), strict=True):
            data = packed_bytes(np.frombuffer(data, tensor.dtype).astype("f4")) if isinstance(one, Packed) else data
            file.write(data)
            file.write(bytes(-len(data) % ALIGNMENT))


def plain(tensors: Iterable[LazyTensor | Packed]) -> list[LazyTensor]:
    """The tensors to be read."""
    return [one.tensor if isinstance(one, Packed) else one for one in tensors]


def size_of(one: LazyTensor | Packed) -> int:
    """Bytes of a tensor in the file."""
    return math.prod(one.tensor.shape) // BLOCK * BLOCK_BYTES[Q8_0] if isinstance(one, Packed) else one.nbytes


def text_bytes(text: str) -> bytes:
    """A string with its length."""
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def value_bytes(key: str, value) -> bytes:
    """A value with its type, as llama.cpp expects: uint32 or float32 for numbers. Raises: ConversionError"""
    pack: Callable = struct.pack
    match value:
        case bool():
            return pack("<I?", 7, value)
        case int() if 0 <= value < 2**32:
            return pack("<II", 4, value)
        case float():
            return pack("<If", 6, value)
        case str():
            return pack("<I", STRING) + text_bytes(value)
        case list() if all(isinstance(item, str) for item in value):
            return pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(text_bytes, value))
        case list() if all(isinstance(item, int) for item in value):
            return pack("<IIQ", ARRAY, 5, len(value)) + np.array(value, "<i4").tobytes()
        case list() if all(isinstance(item, float) for item in value):
            return pack("<IIQ", ARRAY, FLOAT32, len(value)) + np.array(value, "<f4").tobytes()
    raise ConversionError(f"GGUF has no room for {key} = {str(value)[:80]}")
