"""`flax_model.msgpack` of transformers' Flax classes: nested maps of arrays in MessagePack, without Flax.

An array is an extension of type 1 whose content is (shape, name of the dtype, bytes), packed itself. Names are joined
by dots as PyTorch's are, and the words at their ends are PyTorch's, too: `kernel` (in, out) is `weight` (out, in), and
`embedding` and `scale` are `weight`. So the tensors are those of the same model in `pytorch_model.bin`.
"""

import struct
from dataclasses import replace

import numpy as np

from bert4x.checkpoints.formats.common import check_count, checked_name, checked_shape
from bert4x.checkpoints.formats.regions import FileBytes, RegionFile
from bert4x.checkpoints.formats.torch_globals import DTYPE_NAMES
from bert4x.checkpoints.tensors import LazyTensor, Tensors
from bert4x.errors import CorruptFileError, UnknownFormatError, UnsafeFileError

MAX_DEPTH = 32
MAX_VALUES = 250_000  # and one more for every 4 bytes
ARRAY = 1  # the extension's type
CHUNKED = "__msgpack_chunked_array__"  # marks an array of over 1 GiB
WORDS = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
# First byte -> (format of the length, what it is); shorter ones have their length in the first byte.
LENGTHS = {
    0xC4: (">B", "bytes"), 0xC5: (">H", "bytes"), 0xC6: (">I", "bytes"), 0xC7: (">B", "extension"),
    0xC8: (">H", "extension"), 0xC9: (">I", "extension"), 0xD9: (">B", "text"), 0xDA: (">H", "text"),
    0xDB: (">I", "text"), 0xDC: (">H", "list"), 0xDD: (">I", "list"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip
FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # extensions of these many bytes
SKIPPED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}  # null, false, true, floats
INTEGERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}


class Reader:
    """Reads at a position that moves on. Every value takes one of a number of steps, so that time is bounded."""

    def __init__(self, file: RegionFile):
        self.file, self.data, self.where = file, FileBytes(file), str(file.path)
        self.position, self.steps = 0, MAX_VALUES + file.size // 4
        self.tensors: Tensors = {}

    def corrupt(self, what: str) -> CorruptFileError:
        """The error about the bytes just read."""
        return CorruptFileError(f"{self.where}: {what} at byte {self.position}; damaged or truncated")

    def take(self, size: int) -> bytes:
        """So many bytes."""
        start = self.skip(size)
        return self.data[start : start + size]

    def skip(self, size: int) -> int:
        """Passes over bytes; returns where they begin."""
        if size > self.file.size - self.position:
            raise self.corrupt(f"{size} bytes are expected, but the file ends")
        self.position += size
        return self.position - size

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def head(self) -> tuple[str, int]:
        """What the next value is, and its length; of an integer its value. Raises: CorruptFileError, UnsafeFileError"""
        self.steps -= 1
        if self.steps < 0:
            raise UnsafeFileError(f"{self.where}: more values than a file of its size needs; malicious, or no model")
        code = self.take(1)[0]
        if code in LENGTHS:
            form, kind = LENGTHS[code]
            return kind, self.number(form)
        if code in FIXED:
            return "extension", FIXED[code]
        if code in SKIPPED:
            self.skip(SKIPPED[code])
            return "other", 0
        if code in INTEGERS:
            return "integer", self.number(INTEGERS[code])
        if code < 0x80 or code >= 0xE0:
            return "integer", code if code < 0x80 else code - 256
        if code < 0xC0:
            return ("map" if code < 0x90 else "list" if code < 0xA0 else "text"), code & (0x1F if code >= 0xA0 else 15)
        raise self.corrupt(f"no value of MessagePack begins with {code:#x}")

    def text(self, most: int) -> str:
        """A string of at most so many bytes."""
        kind, size = self.head()
        if kind != "text" or size > most:
            raise self.corrupt(f"a name of up to {most} bytes is expected, found {kind} of {size}")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.corrupt("a name is no UTF-8") from None

    def value(self, name: str, depth: int) -> None:
        """Reads a value; arrays become tensors. Raises: UnsafeFileError, UnknownFormatError"""
        kind, size = self.head()
        if depth > MAX_DEPTH:
            raise UnsafeFileError(f"{self.where}: nested over {MAX_DEPTH} deep; malicious, or no model")
        if kind == "map":
            for _ in range(size):
                key = self.text(1024)
                if key == CHUNKED:
                    raise UnknownFormatError(
                        f"{self.where}: {name[:80]!r} is an array of over 1 GiB in pieces, which are not read; take "
                        "model.safetensors or pytorch_model.bin of the same model"
                    )
                self.value(checked_name(f"{name}.{key}" if name else key, self.where), depth + 1)
        elif kind == "list":
            for _ in range(size):
                self.value(name, depth + 1)
        elif kind == "extension":
            start = self.skip(1 + size)
            if self.data[start : start + 1][0] == ARRAY:
                self.array(name, start + 1)
        elif kind in ("bytes", "text"):
            self.skip(size)

    def array(self, name: str, start: int) -> None:
        """Notes the array whose content begins at `start`."""
        end, self.position = self.position, start
        if self.head() != ("list", 3):
            raise self.corrupt("an array is (shape, dtype, bytes)")
        kind, count = self.head()
        if kind != "list":
            raise self.corrupt("an array has no shape")
        sizes = [self.head() for _ in range(min(count, 64))]
        if any(kind != "integer" for kind, _ in sizes):
            raise self.corrupt("an array has no shape")
        dtype = DTYPE_NAMES.get(self.text(40))
        kind, size = self.head()
        if dtype is None or kind != "bytes":
            raise self.corrupt("an array is of no dtype known here")
        shape = checked_shape((size for _, size in sizes), dtype.itemsize, f"{self.where}: {name!r}")
        tensor = self.file.tensor(name, self.skip(size), shape, dtype)
        if tensor.nbytes != size or self.position != end or name in self.tensors:
            raise self.corrupt(f"array {name[:80]!r} {shape} {dtype} has {size} bytes, or is there twice")
        self.tensors[name] = tensor
        check_count(len(self.tensors), self.file.size, self.where)


def read_flax(path) -> Tensors:
    """The tensors of a file by the names that PyTorch's file of the model has. There are no checksums.

    Raises: CorruptFileError, UnsafeFileError, UnknownFormatError for arrays in pieces.
    """
    file = RegionFile(path)
    reader = Reader(file)
    reader.value("", 0)
    if reader.position != file.size:
        raise reader.corrupt(f"{file.size - reader.position} bytes are behind the last value")
    named = [as_torch(tensor) for tensor in reader.tensors.values()]
    found = {tensor.name: tensor for tensor in named}
    if len(found) < len(named):
        raise CorruptFileError(f"{file.path}: a tensor is there as kernel, embedding or scale at once; damaged")
    return found


def as_torch(tensor: LazyTensor) -> LazyTensor:
    """A tensor of Flax by PyTorch's name, and its matrix as PyTorch's lies."""
    owner, dot, word = tensor.name.rpartition(".")
    name = f"{owner}{dot}{WORDS.get(word, word)}"
    return transposed(replace(tensor, name=name)) if word == "kernel" else replace(tensor, name=name)


def transposed(tensor: LazyTensor) -> LazyTensor:
    """A tensor with its axes in reverse. Shape: (a, b, ...) -> (..., b, a)"""

    def read() -> np.ndarray:
        return tensor.read().T

    return replace(tensor, shape=tensor.shape[::-1], read=read, rows=None)
