"""Bounded reads of regions of a file that must not change while tensors still point into it."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from bert4x.checkpoints.formats.common import checked_shape, regular_file
from bert4x.checkpoints.formats.foreign import HEAD, text_of
from bert4x.checkpoints.tensors import LazyTensor, empty
from bert4x.errors import CheckpointNotFoundError, CorruptFileError, UnknownFormatError, UnsafeFileError

CHUNK = 4 << 20
PIECE = 1 << 16


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
        """Raises: CheckpointNotFoundError, UnknownFormatError for what is no weights, but recognised."""
        self.path = regular_file(path)
        status = self.path.stat()
        self.size = status.st_size
        self._identity = _identity(status)
        with self.path.open("rb") as file:
            what = text_of(file.read(HEAD))
        if what:
            raise UnknownFormatError(f"{self.path}: this is {what}")

    def tensor(self, name: str, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> LazyTensor:
        """The tensor of `shape` and `dtype` whose bytes start at `offset`; it is read on demand.

        Raises: `CorruptFileError` if its bytes are not all in the file or the shape is impossible.
        """

        def rows(start: int, stop: int) -> np.ndarray:
            size = tensor.nbytes // max(1, shape[0])
            return self.read(offset + start * size, (stop - start) * size).view(dtype).reshape(stop - start, *shape[1:])

        def read() -> np.ndarray:
            return self.read(offset, tensor.nbytes).view(dtype).reshape(shape)

        tensor = LazyTensor(name, shape, dtype, read, rows=rows if shape else None)
        checked_shape(shape, dtype.itemsize, f"{self.path}: tensor {name!r}")
        self._check(offset, tensor.nbytes, f"tensor {name!r} {shape} {dtype}")
        return tensor

    def read(self, offset: int, size: int) -> np.ndarray:
        """`size` bytes from `offset` on, as a fresh array of uint8.

        Raises: `CorruptFileError` if they are not all there, or the file changed since it was opened;
        `CheckpointNotFoundError` if it was removed.
        """
        self._check(offset, size, "a structure")
        buffer = empty((size,), np.uint8)
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

    def bytes(self, offset: int, size: int) -> bytes:
        """The same as `bytes`."""
        return self.read(offset, size).tobytes()

    def chunks(self, offset: int, size: int) -> Iterator[np.ndarray]:
        """The same as uint8 arrays of at most `CHUNK` bytes."""
        for start in range(0, size, CHUNK):
            yield self.read(offset + start, min(CHUNK, size - start))

    def _check(self, offset: int, size: int, what: str) -> None:
        if not 0 <= offset <= self.size - size or size < 0:
            raise CorruptFileError(
                f"{self.path}: {what} of {size} bytes at offset {offset} does not fit in a file of {self.size}; "
                "it is truncated or damaged, download it again"
            )


class FileBytes:
    """A file as what a parser takes for `bytes`: slices of it, and where a byte is found. It is read piece by piece."""

    def __init__(self, file: RegionFile):
        self.file, self.start, self.piece = file, 0, b""

    def __len__(self) -> int:
        return self.file.size

    def __getitem__(self, part: slice) -> bytes:
        if not (self.start <= part.start and part.stop <= self.start + len(self.piece)):
            size = max(part.stop - part.start, min(PIECE, self.file.size - part.start))
            self.start, self.piece = part.start, self.file.bytes(part.start, size)
        return self.piece[part.start - self.start : part.stop - self.start]

    def find(self, what: bytes, start: int, end: int) -> int:
        """Where `what` begins from `start` on, before `end`; -1 if nowhere."""
        found = self[start:end].find(what)
        return found + start if found >= 0 else -1


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
