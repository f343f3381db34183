"""What the containers share: checks of files, shapes and names, and tensors as bytes."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tensors import LazyTensor, contiguous
from bert4x.errors import (
    CheckpointNotFoundError,
    ConversionError,
    CorruptFileError,
    TensorMismatchError,
    UnsafeFileError,
)

MAX_RANK = 32  # of NumPy 1; NumPy 2 has 64
MAX_NAME = 1024
MAX_TENSORS = 40_000
AHEAD = 1 << 27  # bytes read before they are written
MAX_RATIO = 64  # what reading a file may cost, as a multiple of its size
FREE_BYTES = 64 << 20  # and beside that


def regular_file(path) -> Path:
    """A path that is a file: not a folder, not a pipe that would block. Raises: CheckpointNotFoundError"""
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    return path


def checked_shape(shape, itemsize: int, where: str) -> tuple[int, ...]:
    """A shape as a tuple of integers that NumPy can hold, even when a dimension is 0. Raises: CorruptFileError"""
    shape = tuple(shape)
    if len(shape) > MAX_RANK or any(type(n) is not int or not 0 <= n < 2**62 for n in shape):
        raise CorruptFileError(f"{where}: a shape of {len(shape)} dimensions with negative, huge or non-integer sizes")
    if math.prod(max(n, 1) for n in shape) * itemsize >= 2**62:
        raise CorruptFileError(f"{where}: shape {shape} is larger than any file")
    return shape


def checked_name(name: str, where: str) -> str:
    """A name that any format can hold: valid Unicode of at most `MAX_NAME` characters. Raises: CorruptFileError"""
    if len(name) > MAX_NAME:
        raise CorruptFileError(f"{where}: a tensor name of {len(name)} characters; at most {MAX_NAME} are read")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise CorruptFileError(f"{where}: tensor name {name!r} is not valid Unicode") from None
    return name


def most_tensors(size: int) -> int:
    """How many tensors a file of `size` bytes may name: each takes about 100 bytes there, and over a kilobyte here."""
    return min(MAX_TENSORS, 10_000 + size // 64)


def check_count(count: int, size: int, where: str) -> None:
    """Raises: UnsafeFileError for more tensors, or what describes one, than a file of `size` bytes may name."""
    if count > most_tensors(size):
        raise UnsafeFileError(f"{where}: over {most_tensors(size):,} tensors in {size:,} bytes; malicious, or no model")


def check_cost(cost: int, size: int, where: str) -> None:
    """Checks the bytes that are touched to read every tensor of a file of `size` bytes once.

    Raises: UnsafeFileError where tensors that share their bytes, or repeat them, make that a large multiple of `size`.
    """
    if cost > MAX_RATIO * size + FREE_BYTES:
        raise UnsafeFileError(
            f"{where}: its tensors are views of each other that together are {cost:,} bytes, over {MAX_RATIO} times "
            f"the {size:,} of the file; malicious, or save each tensor as a copy of its own"
        )


def unique_list(tensors: Iterable[LazyTensor]) -> list[LazyTensor]:
    """The tensors as a list, after checking that no name occurs twice. Raises: TensorMismatchError"""
    tensors, seen = list(tensors), set()
    for tensor in tensors:
        if tensor.name in seen:
            raise TensorMismatchError(f"tensor {tensor.name!r} would be written twice")
        seen.add(tensor.name)
    return tensors


def tensor_bytes(tensor: LazyTensor) -> memoryview:
    """The values as little-endian bytes in C order, a view where they already are. Raises: ConversionError"""
    array = tensor.read()
    if tuple(array.shape) != tuple(tensor.shape) or array.dtype != tensor.dtype:
        raise ConversionError(
            f"tensor {tensor.name!r} was declared {tensor.dtype} {tuple(tensor.shape)} "
            f"but read as {array.dtype} {array.shape}"
        )
    array = array.astype(little_endian(array.dtype), copy=False)
    return memoryview(contiguous(array).reshape(-1).view(np.uint8))


def read_ahead(tensors: Iterable[LazyTensor]) -> Iterator[tuple[LazyTensor, memoryview]]:
    """The tensors with their bytes; while one is written, a second thread reads those that come next."""
    waiting: deque[tuple[LazyTensor, Future]] = deque()
    held = 0
    with ThreadPoolExecutor(1) as reader:
        for tensor in tensors:
            waiting.append((tensor, reader.submit(tensor_bytes, tensor)))
            held += tensor.nbytes
            while len(waiting) > 1 and held > AHEAD:
                first, values = waiting.popleft()
                held -= first.nbytes
                yield first, values.result()
        for first, values in waiting:
            yield first, values.result()


def little_endian(dtype: np.dtype) -> np.dtype:
    """The dtype as files hold it; it equals `dtype` unless that is big-endian."""
    return dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype
