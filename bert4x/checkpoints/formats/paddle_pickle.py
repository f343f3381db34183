"""PaddlePaddle's `.pdparams`: a pickle of a dict of NumPy arrays, without Paddle and without running anything.

What NumPy's pickles call is known: `_reconstruct` and the state that follows it, or `_frombuffer` (protocol 5). The
values lie in the pickle, and are left there until a tensor is read. Python 2, and protocol 2, wrote them as text.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.common import check_cost, check_count, checked_shape
from bert4x.checkpoints.formats.pickle_machine import Global, PickleMachine
from bert4x.checkpoints.formats.regions import FileBytes, RegionFile
from bert4x.checkpoints.formats.torch_globals import find_global
from bert4x.checkpoints.formats.torch_pickle import FREE_VALUES, MAX_VALUES, named_values
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, Tensors, from_array
from bert4x.errors import CorruptFileError, TensorMismatchError, UnknownFormatError

LARGE = 256  # bytes; what is longer stays in the file
DTYPES = {name: np.dtype(f"<{name}") for name in ("f2", "f4", "f8", "i2", "i4", "i8", "u4", "u8")}
DTYPES |= {"i1": np.dtype("i1"), "u1": np.dtype("u1"), "b1": np.dtype("bool"), "u2": BFLOAT16}  # Paddle has no uint16
CUT = "UnpackBigParamInfor@@"  # the key under which parameters of over 4 GB were cut in protocols 2 and 3


@dataclass(slots=True)
class Span:
    """Bytes of the file."""

    start: int
    size: int


@dataclass(slots=True)
class Latin:
    """Bytes that are written as text, one character a byte."""

    text: str


@dataclass(slots=True)
class Dtype:
    """What `numpy.dtype(code)` makes; the state that follows says the order of bytes."""

    code: str
    order: str = "<"

    def build(self, state) -> None:
        if type(state) is not tuple or len(state) < 2 or type(state[1]) is not str:
            raise CorruptFileError("a dtype whose state NumPy would not write")
        self.order = state[1]


@dataclass(slots=True)
class Array:
    """An array of NumPy's: empty as `_reconstruct` makes it, until its state follows."""

    shape: object = None
    dtype: object = None
    columns: object = False  # the first axis varies fastest
    data: object = None

    def build(self, state) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise CorruptFileError("an array whose state NumPy would not write")
        _, self.shape, self.dtype, self.columns, self.data = state


def _from_buffer(data=None, dtype=None, shape=None, order="C", *_) -> Array:
    return Array(shape, dtype, order == "F", data)


GLOBALS = {
    ("numpy", "dtype"): Global("numpy.dtype", lambda code=None, *_: Dtype(code)),
    ("_codecs", "encode"): Global("_codecs.encode", lambda text=None, *_: Latin(text)),
    ("builtins", "bytes"): Global("bytes", lambda *_: Latin("")),  # none of them, in protocol 2
    ("__builtin__", "bytes"): Global("bytes", lambda *_: Latin("")),
}
for _module in ("numpy.core", "numpy._core"):
    GLOBALS[f"{_module}.multiarray", "_reconstruct"] = Global("_reconstruct", lambda *_: Array())
    GLOBALS[f"{_module}.numeric", "_frombuffer"] = Global("_frombuffer", _from_buffer)


class ArrayMachine(PickleMachine):
    """Leaves long bytes in the file, and gives arrays and dtypes their state."""

    def data(self, count: int):
        if count <= LARGE:
            return self.take(count)
        if count > self.end - self.position:
            raise CorruptFileError(f"the pickle needs {count} bytes at {self.position}; it ends before")
        self.position += count
        return Span(self.position - count, count)

    def python2(self, count: int):
        data = self.data(count)
        return data if type(data) is Span else data.decode("latin-1")

    def build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) in (Array, Dtype):
            self.stack[-1].build(state)


def read_paddle(path) -> Tensors:
    """The tensors of a file by their names; values are read on `read()`. There are no checksums.

    uint16 is how Paddle writes bfloat16. Raises `UnsafeFileError` if the pickle refers to anything but arrays and plain
    data, `UnknownFormatError` for other files of Paddle's, `CorruptFileError` and `TensorMismatchError` for damage.
    """
    file, where = RegionFile(path), str(path)
    if file.size < 2 or file.bytes(0, 1) != b"\x80":
        raise UnknownFormatError(
            f"{where}: expected a dict of parameters as paddle.save writes one, a pickle; it starts with "
            f"{file.bytes(0, min(8, file.size))!r}"
        )
    machine = ArrayMachine(FileBytes(file), find, persistent, size=file.size, where=where, most=file.size)
    value = machine.load()
    if type(value) is dict and CUT in value:
        raise UnknownFormatError(f"{where}: parameters of over 4 GB were cut; save it again, with protocol=4")
    tensors: Tensors = {}
    for name, array in named_values(value, array_in, min(MAX_VALUES, FREE_VALUES + file.size // 4), where):
        check_count(len(tensors) + 1, file.size, where)
        if name in tensors:
            raise TensorMismatchError(f"{where}: two tensors are named {name!r}")
        tensors[name] = lazy(file, name, array)
    check_cost(sum(tensor.nbytes for tensor in tensors.values()), file.size, where)
    return tensors


def find(module: str, name: str) -> Global:
    """What a pickle of arrays refers to. Raises: UnsafeFileError"""
    return GLOBALS.get((module, name)) or find_global(module, name)


def persistent(_) -> None:
    """Raises: CorruptFileError; only PyTorch's pickles have persistent ids."""
    raise CorruptFileError("a persistent id in a pickle of arrays")


def array_in(value) -> Array | None:
    """The array that a value is; inside other containers Paddle writes pairs of a name and an array."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is str:
        value = value[1]
    return value if type(value) is Array else None


def lazy(file: RegionFile, name: str, array: Array) -> LazyTensor:
    """An array of the pickle as a tensor. Raises: CorruptFileError, UnknownFormatError."""
    where, dtype = f"{Path(file.path)}: tensor {name!r}", array.dtype
    if type(dtype) is not Dtype or type(dtype.code) is not str or dtype.code not in DTYPES or dtype.order == ">":
        found = (dtype.code, dtype.order) if type(dtype) is Dtype and type(dtype.code) is str else "no dtype"
        raise UnknownFormatError(f"{where} is of {str(found)[:40]}; expected little-endian numbers")
    dtype = DTYPES[dtype.code]
    if type(array.shape) is not tuple or type(array.columns) is not bool:
        raise CorruptFileError(f"{where}: an array without a shape; damaged")
    shape = checked_shape(array.shape, dtype.itemsize, where)
    stored = shape[::-1] if array.columns else shape
    tensor = held(file, name, array.data, stored, dtype, where)
    if not array.columns or len(shape) < 2:
        return tensor
    return LazyTensor(name, shape, dtype, lambda: tensor.read().T)


def held(file: RegionFile, name: str, data, shape: tuple[int, ...], dtype: np.dtype, where: str) -> LazyTensor:
    """The tensor whose bytes these are. Raises: CorruptFileError"""
    sizes = {Span: lambda: data.size, Latin: lambda: len(data.text), bytes: lambda: len(data), str: lambda: len(data)}
    if type(data) is Latin and type(data.text) not in (str, Span):
        raise CorruptFileError(f"{where}: its values are no bytes; damaged")
    data = data.text if type(data) is Latin else data
    size = sizes[type(data)]() if type(data) in sizes else None
    if size != math.prod(shape) * dtype.itemsize:
        raise CorruptFileError(f"{where}: {shape} {dtype} has {size} bytes; damaged")
    if type(data) is Span:
        return file.tensor(name, data.start, shape, dtype)
    if type(data) is bytes:
        return from_array(name, np.frombuffer(data, dtype).reshape(shape))

    def read() -> np.ndarray:
        try:
            return np.frombuffer(data.encode("latin-1"), dtype).reshape(shape)
        except UnicodeEncodeError:
            raise CorruptFileError(f"{where}: its values are no bytes; damaged") from None

    return LazyTensor(name, shape, dtype, read)
