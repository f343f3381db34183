"""Files of lines that are too large for memory, line by number."""

import builtins
import codecs
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import InputError


class open:
    """A file as Python's `open` gives it, and with `indexable` also a sequence of its lines.

        with open("corpus.jsonl", encoding="utf-8", indexable=True) as corpus:
            len(corpus), corpus[1_000_000], corpus[-3:]      # lines, each with its line end

    Reading by number does not move the place at which the rest reads, and works in several processes at once.

    Args:
        encoding: UTF-8 unless told, on every system; for `indexable`, one in which a line ends with the byte 10.
        indexable: True finds where lines begin, in one pass through the file; a path does so too and keeps the result
            there for the next time. It is found anew when the file has changed.

    Raises: InputError for a file that cannot have an index, or a path that is no index; what `open` raises.
    """

    def __init__(
        self,
        name: str | os.PathLike,
        mode: str = "r",
        encoding: str | None = None,
        errors: str = "strict",
        indexable: bool | str | os.PathLike = False,
    ):
        self.name, self.mode = name, mode
        self.encoding, self.errors = (None, None) if "b" in mode else (encoding or "utf-8", errors)
        self.offsets: np.ndarray | None = None
        if indexable:
            self._check_indexable()
            self.path = os.path.abspath(name)
            self.offsets = _offsets(self.path) if indexable is True else _kept_offsets(self.path, Path(indexable))
        self.file = builtins.open(name, mode, encoding=self.encoding, errors=self.errors)  # noqa: SIM115

    def _check_indexable(self) -> None:
        if self.mode not in ("r", "rb", "rt"):
            raise InputError(f"mode is {self.mode!r}; a file with an index is only read: 'r' or 'rb'")
        if self.encoding is None:
            return
        name = codecs.lookup(self.encoding).name
        if name.startswith(("utf-16", "utf-32")) or not "\n".encode(name).endswith(b"\n"):
            raise InputError(f"a file in {name} cannot have an index, as not every byte 10 ends a line; use UTF-8")

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self._index()) - 1

    def __getitem__(self, key: int | slice) -> str | bytes | list:
        """A line, or a list of lines for a slice."""
        if isinstance(key, slice):
            return [self[number] for number in range(*key.indices(len(self)))]
        offsets, number = self._index(), key + len(self) if key < 0 else key
        if not 0 <= number < len(self):
            raise IndexError(f"{self.name} has {len(self)} lines; there is no line {key}")
        with builtins.open(self.path, "rb") as file:
            file.seek(offsets[number])
            line = file.read(offsets[number + 1] - offsets[number])
        if self.encoding is None:
            return line
        text = line.decode(self.encoding, self.errors)
        return text[:-2] + "\n" if text.endswith("\r\n") else text

    def _index(self) -> np.ndarray:
        if self.offsets is None:
            raise TypeError(f"{self.name} was opened without an index; open it with indexable=True")
        return self.offsets

    def __iter__(self) -> Iterator:
        return iter(self.file)

    def __next__(self) -> Any:
        return next(self.file)

    def __getattr__(self, name: str) -> Any:
        if name == "file":  # not opened yet
            raise AttributeError(name)
        return getattr(self.file, name)  # read, readline, write, tell, close ...

    def __enter__(self) -> "open":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()


def _offsets(path: str) -> np.ndarray:
    """Where each line begins, and where the last ends. Shape: (lines + 1,), int64"""
    with builtins.open(path, "rb") as file:
        lengths = np.fromiter((len(line) for line in file), "int64")
    return np.concatenate([[0], np.cumsum(lengths)]).astype("int64")


def _kept_offsets(path: str, index: Path) -> np.ndarray:
    """The same from an index file if it is of this state of the file; otherwise found, and kept there."""
    state = os.stat(path)
    state = {"size": state.st_size, "modified": state.st_mtime_ns}
    if index.exists():
        offsets = _read_index(path, index, state)
        if offsets is not None:
            return offsets
    offsets = _offsets(path)
    with atomic_write(index) as temporary:
        temporary.write_text(json.dumps(state | {"offsets": offsets.tolist()}), encoding="utf-8")
    return offsets


def _read_index(path: str, index: Path, state: dict[str, int]) -> np.ndarray | None:
    """What an index file holds; None if that is of another state of the file, or bert4keras' (a list)."""
    try:
        kept = json.loads(index.read_bytes())
        known = kept.pop("offsets") if isinstance(kept, dict) else kept
        if os.path.samefile(path, index) or not all(type(offset) is int for offset in known):
            raise ValueError
        offsets = np.array(known, "int64")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise InputError(f"{index} is no index of the lines of a file; give another path, or delete it") from None
    if kept != state or not len(offsets) or (offsets[0], offsets[-1]) != (0, state["size"]):
        return None
    return offsets if (np.diff(offsets) > 0).all() else None
