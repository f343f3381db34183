"""What every reader returns and every writer takes: named tensors whose bytes are read only when asked for."""

import contextlib
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def is_floating(dtype: np.dtype) -> bool:
    """Whether numbers of a dtype can be weights."""
    return dtype.kind == "f" or dtype == BFLOAT16


@dataclass(frozen=True)
class LazyTensor:
    """One tensor of a file: its name, shape and dtype now, its values on `read()`.

    `read()` returns an array of exactly `shape` and `dtype`; it may be a read-only view of a memory map.
    `verify()` checks the bytes against the checksum the format carries, if it carries one, and raises
    `CorruptFileError`; it returns False when the format has no checksum for this tensor. `read()` checks them, too.
    `rows(start, stop)` reads only these rows of the first axis, unchecked; None where a format cannot.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    verify: Callable[[], bool] = lambda: False
    rows: Callable[[int, int], np.ndarray] | None = None

    def part(self, index: tuple[slice, ...]) -> np.ndarray:
        """The values at a slice, of bounds and no step, for each axis. Where the format can read rows alone, memory
        holds this part and no more than `ROWS` bytes besides.
        """
        if self.rows is None or not self.shape:
            return self.read()[index]
        first, others = index[0], (slice(None), *index[1:])
        if all(s.stop - s.start == size for s, size in zip(index[1:], self.shape[1:], strict=True)):
            return self.rows(first.start, first.stop)
        result = empty(tuple(s.stop - s.start for s in index), self.dtype)
        step = max(1, ROWS * self.shape[0] // max(1, self.nbytes))
        for start in range(first.start, first.stop, step):
            stop = min(start + step, first.stop)
            result[start - first.start : stop - first.start] = self.rows(start, stop)[others]
        return result

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize


def from_array(name: str, array: np.ndarray) -> LazyTensor:
    """A `LazyTensor` over an array that is already in memory."""
    return LazyTensor(name, tuple(array.shape), array.dtype, lambda: array)


Tensors = dict[str, LazyTensor]

CACHE_LINE = 64  # bytes
LARGE = 1 << 20  # bytes
SPARE = 160 << 20  # bytes
WIDER = 8  # times as large as an array its map may be
TILE = 256  # rows and columns
ROWS = 4 << 20  # bytes of rows that are read at a time for some of their columns


class SpareMemory:
    """Maps of arrays that are no longer used, for the next arrays: to fill a new map the kernel first has to find and
    clear each of its pages, which takes longer than to copy a tensor into it. Kept only `while_kept`.

    One thread reads tensors while another drops them, so each step here is a single operation on the list.
    """

    def __init__(self):
        self.maps: list[mmap.mmap] = []  # those that no array has, the one given back last at the end
        self.most = 0  # bytes that are kept

    @contextlib.contextmanager
    def while_kept(self) -> Iterator[None]:
        """Within the block, up to `SPARE` bytes are kept."""
        self.most += SPARE
        try:
            yield
        finally:
            self.most -= SPARE
            self.trim()

    def array(self, size: int) -> np.ndarray:
        """Bytes, of any values. Their map is spare again when no array and no view of them is left."""
        fitting = [spare for spare in list(self.maps) if size <= len(spare) <= WIDER * size]
        try:
            memory = min(fitting, key=len)
            self.maps.remove(memory)
        except ValueError:  # there is none, or another thread has just taken it
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        array = np.frombuffer(memory, np.uint8)  # which every view of it holds
        weakref.finalize(array, self.give_back, memory).atexit = False
        return array[:size]

    def give_back(self, memory: mmap.mmap) -> None:
        """A map that nothing holds any more."""
        self.maps.append(memory)
        self.trim()

    def trim(self) -> None:
        """Those that were spare the longest go first."""
        while sum(map(len, list(self.maps))) > self.most:
            with contextlib.suppress(IndexError):  # another thread has just taken the last
                self.maps.pop(0)


spare_memory = SpareMemory()


def empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array to be filled, at an address from which backends can use it without copying it.

    Large ones are mapped, not made by NumPy, which asks for huge pages: where files fill the memory, as they do while
    weights are read, the kernel takes ten times longer to find such pages than to fill ordinary ones.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size >= LARGE and hasattr(mmap, "MAP_ANONYMOUS"):
        return spare_memory.array(size).view(dtype).reshape(shape)
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def copy(target: np.ndarray, source: np.ndarray) -> None:
    """`target[...] = source`; where one lies transposed, in tiles that the cache holds: four times as fast."""
    if target.ndim != 2 or row_major(target) == row_major(source):
        target[...] = source
        return
    if not row_major(target):
        target, source = target.T, source.T
    for row in range(0, target.shape[0], TILE):
        for column in range(0, target.shape[1], TILE):
            tile = slice(row, row + TILE), slice(column, column + TILE)
            target[tile] = source[tile]


def row_major(array: np.ndarray) -> bool:
    """Whether neighbours in a row of a matrix lie closer than neighbours in a column."""
    return array.strides[0] >= array.strides[1]


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array in C order, copied only if it is not. Shape: any -> the same"""
    if array.flags.c_contiguous:
        return array
    result = empty(array.shape, array.dtype)
    copy(result, array)
    return result


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it once the block succeeded, and is deleted if it failed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
