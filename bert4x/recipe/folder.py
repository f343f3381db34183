"""The folder of a run: one run at a time is at work in it, and nothing in it is half-written."""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import RunError
from bert4x.locks import locked

LOCK = ".lock"  # in the folder of a run: held while one is at work there


@contextlib.contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps every other run out of a folder until the block ends or the process dies, however that happens.

    Raises: RunError where another run is at work, or where the folder cannot be made.
    """
    folder = Path(folder)
    if folder.is_file():
        raise RunError(f"{folder} is a file; expected a folder for the run")

    def refuse():
        raise RunError(f"another run is at work in {folder}; wait until it has ended, or choose another --output")

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(folder / LOCK, waiting=refuse))
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise RunError(f"cannot write to {folder}: {error.strerror}; choose another --output") from error
            print(f"the disk of {folder} has no locks; take care that no second run uses the folder", file=sys.stderr)
        yield


def write_json(path: Path, data: dict) -> None:
    """Writes a small file as a whole. Raises: RunError"""
    try:
        with atomic_write(path) as file:
            file.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; choose another --output") from error
