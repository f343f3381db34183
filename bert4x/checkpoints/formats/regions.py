"""Bounded reads of regions of a file that must not change while tensors still point into it."""

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tensors import LazyTensor
from bert4x.errors import CheckpointNotFoundError, CorruptFileError, UnknownFormatError, UnsafeFileError

CHUNK = 4 << 20
_MAX_RANK = 32  # of NumPy 1


def check_shape(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise `CorruptFileError` for a shape that NumPy cannot make, be it of an empty array."""
    possible = len(shape) <= _MAX_RANK and all(size >= 0 for size in shape)
    if not possible or math.prod(size or 1 for size in shape) * dtype.itemsize >= 1 << 62:
        raise CorruptFileError(f"tensor {name!r} has the impossible shape {shape[: _MAX_RANK + 1]}")


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Put the path of the file before the message of an error about its content."""
    try:
        yield
    except (CorruptFileError, UnknownFormatError, UnsafeFileError) as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise type(error)(f"{path}: {error}") from None


class RegionFile:
    """A file whose regions are read on demand.

    It is opened anew for every read and refused if it is no longer the file first seen. So tensors hold no
    descriptors, a file replaced under them never gives wrong values, and, unlike a memory map, one truncated
    under them cannot kill the process and what was read does not stay in memory.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointNotFoundError(f"{self.path}: no such file; check the path and download it again") from None
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointNotFoundError(f"{self.path}: not a regular file")
        self.size = status.st_size
        self._identity = _identity(status)

    def tensor(self, name: str, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> LazyTensor:
        """The tensor of `shape` and `dtype` whose bytes start at `offset`; it is read on demand.

        Raises: `CorruptFileError` if its bytes are not all in the file or the shape is impossible.
        """
        tensor = LazyTensor(name, shape, dtype, lambda: self._read(offset, tensor.nbytes).view(dtype).reshape(shape))
        check_shape(name, shape, dtype)
        self._check(offset, tensor.nbytes, f"tensor {name!r} {shape} {dtype}")
        return tensor

    def bytes(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on.

        Raises: `CorruptFileError` if they are not all there, or the file changed since it was opened.
        """
        return self._read(offset, size).tobytes()

    def chunks(self, offset: int, size: int) -> Iterator[np.ndarray]:
        """The same bytes as uint8 arrays of at most `CHUNK` bytes."""
        for start in range(0, size, CHUNK):
            yield self._read(offset + start, min(CHUNK, size - start))

    def _read(self, offset: int, size: int) -> np.ndarray:
        self._check(offset, size, "a structure")
        buffer = np.empty(size, np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                same = _identity(os.fstat(file.fileno())) == self._identity
                file.seek(offset)
                done = 0
                while same and done < size and (count := file.readinto(memoryview(buffer)[done:])):
                    done += count
        except FileNotFoundError:
            raise CheckpointNotFoundError(f"{self.path}: removed since it was opened; open it again") from None
        if not same or done < size:
            raise CorruptFileError(f"{self.path}: changed since it was opened; open it again")
        return buffer

    def _check(self, offset: int, size: int, what: str) -> None:
        if not 0 <= offset <= self.size - size or size < 0:
            raise CorruptFileError(
                f"{self.path}: {what} of {size} bytes at offset {offset} does not fit in a file of {self.size}; "
                "it is truncated or damaged, download it again"
            )


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
