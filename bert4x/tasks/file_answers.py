"""The answers of a trained task to all that is in a file, as JSON lines: in order, a part at a time, and gone on with
after the process was killed.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import CorruptFileError, RunError
from bert4x.json_files import read_json
from bert4x.locks import locked

PART = 4  # batches that are sorted by length and written together: a run that goes on begins anew with one of these
NOT_THE_MODEL = ("README.md", "args.json", "versions.json", "classes.json")  # files of a run that change no answer
ENDINGS = (".png", ".jsonl", ".lock", ".md")
STEP = re.compile(r"\d+_\w+")  # the folder of a step of sentence-transformers, such as 1_Pooling


class Output:
    """A file of answers, one in each line, and beside it `FILE.meta.json`, which says of what input and model it is.

    Raises: RunError where the file is of another input, model or options, or of no `bert4x predict` at all.
    """

    def __init__(self, path: Path, made_of: dict[str, Any], part: int):
        self.path, self.part = path, part
        self.meta = path.with_name(path.name + ".meta.json")
        held = self.held()
        empty = not path.exists() or path.stat().st_size == 0
        if held is None and not empty:
            raise RunError(f"{path} is there already; delete it, or choose another output")
        if held is not None and not empty and held != made_of:
            other = ", ".join(sorted(name for name in made_of | held if made_of.get(name) != held.get(name)))
            raise RunError(
                f"{path} holds answers of another {other}; delete it to begin anew, or choose another output"
            )
        if held != made_of:
            with atomic_write(self.meta) as file:
                file.write_text(json.dumps(made_of, ensure_ascii=False, indent=1) + "\n", "utf-8")

    def held(self) -> dict[str, Any] | None:
        """What the answers that are there were made of."""
        try:
            return read_json(self.meta) if self.meta.exists() else None
        except CorruptFileError as error:
            raise RunError(f"{error}; delete it and {self.path} to begin anew") from None

    def resume(self, total: int) -> int:
        """How many answers are there. Half a line, and a part that is not whole, are cut off, so that what follows is
        computed with the same neighbours as in one run.
        """
        if not self.path.exists():
            return 0
        count, end, kept = 0, 0, (0, 0)
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") or count == total:
                    break
                count, end = count + 1, end + len(line)
                if count % self.part == 0 or count == total:
                    kept = count, end
        os.truncate(self.path, kept[1])
        return kept[0]


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keeps other processes from writing the same file. Raises: RunError when one does."""

    def refuse():
        raise RunError(f"another bert4x predict is writing {path}; wait for it, or choose another output")

    with contextlib.nullcontext() if os.name == "nt" else locked(path, waiting=refuse):
        yield


def answer_file(
    inputs: Iterator,
    answer: Callable[[list], list],
    record: Callable[[Any, Any], dict],
    write: Callable[[str], Any],
    part: int,
    observe: Callable[[int], None] = lambda count: None,
) -> int:
    """Writes a line of JSON for the answer to each input; returns how many. No more than `part` are held at a time."""
    count = 0
    while some := list(itertools.islice(inputs, part)):
        pairs = zip(some, answer(some), strict=True)
        lines = [json.dumps(record(given, found), ensure_ascii=False) for given, found in pairs]
        write("".join(f"{line}\n" for line in lines))
        count += len(some)
        observe(len(some))
    return count


def fingerprint(path: Path) -> str:
    """The sha256 of a file; of a folder that of its files, without what changes no answer, and of the steps that
    sentence-transformers has in folders of their own.
    """
    digest = hashlib.sha256()
    if not path.exists():  # the name of a published model
        return str(path)
    files = [path]
    if path.is_dir():
        places = [path, *sorted(one for one in path.iterdir() if one.is_dir() and STEP.fullmatch(one.name))]
        files = [file for place in places for file in sorted(place.iterdir()) if file.is_file()]
        files = [file for file in files if file.name not in NOT_THE_MODEL]
        files = [file for file in files if not file.name.endswith(ENDINGS)]
    for file in files:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
