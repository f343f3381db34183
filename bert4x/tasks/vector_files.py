"""An array of vectors in a file of NumPy, written part by part, and continued after an interruption."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import CorruptFileError, RunError
from bert4x.json_files import read_json, shown


class VectorFile:
    """`FILE.npy`, (N, D) in float32, and beside it `FILE.npy.meta.json`: what it is of, and how many rows are there.

    Raises: RunError where the file is of another input, model or options, or of none that is known.
    """

    def __init__(self, path: Path, made_of: dict[str, Any], total: int, size: int):
        self.path, self.meta = path, path.with_name(path.name + ".meta.json")
        self.made_of = made_of | {"shape": [total, size]}
        self.done = self.held()
        mode = "r+" if self.done else "w+"
        try:
            self.array = np.lib.format.open_memmap(path, mode=mode, dtype="float32", shape=(total, size))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be written: {error}") from None
        if self.array.shape != (total, size):
            raise RunError(f"{path} holds an array of {self.array.shape}; delete it to begin anew")
        self.note()

    def held(self) -> int:
        """How many rows are there already."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return 0
        try:
            said = read_json(self.meta) if self.meta.exists() else None
        except CorruptFileError as error:
            raise RunError(f"{error}; delete it and {self.path} to begin anew") from None
        if said is None:
            raise RunError(f"{self.path} is there already; delete it, or choose another output")
        done = said.pop("done", 0)
        if said != self.made_of and done:
            other = ", ".join(sorted(name for name in said | self.made_of if said.get(name) != self.made_of.get(name)))
            raise RunError(f"{self.path} holds vectors of another {other}; delete it, or choose another output")
        if type(done) is not int or not 0 <= done <= self.made_of["shape"][0]:
            raise RunError(f"{self.meta}: 'done' is {shown(done)}; delete it and {self.path} to begin anew")
        whole = np.prod(self.made_of["shape"]) * 4  # NumPy would fill a file that was cut with zeros
        if done and self.path.stat().st_size < whole:
            raise RunError(f"{self.path} has lost its end; delete it to begin anew")
        return done

    def add(self, vectors: np.ndarray) -> None:
        """Writes the next rows, (N, D); what is written once is never written again."""
        self.array[self.done : self.done + len(vectors)] = vectors
        self.array.flush()
        self.done += len(vectors)
        self.note()

    def note(self) -> None:
        """Writes how many rows there are."""
        with atomic_write(self.meta) as file:
            file.write_text(
                json.dumps(self.made_of | {"done": self.done}, ensure_ascii=False, indent=1) + "\n", "utf-8"
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        del self.array
