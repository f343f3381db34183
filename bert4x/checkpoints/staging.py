"""Folders in which files wait until all of them are written; those of killed processes are removed by the next one."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bert4x.locks import try_lock

Progress = Callable[[int, int], None]  # bytes done, bytes in all
NAME = re.compile(r"\..*\.[0-9a-f]{8}\.lock")


@contextlib.contextmanager
def staging_folder(place: Path, name: str) -> Iterator[Path]:
    """A new folder in `place`, deleted at the end. A file beside it is locked as long as this process lives, so that
    others know whose folders are left over.
    """
    remove_left_over(place)
    file, folder = made(place, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(file)
        with contextlib.suppress(OSError):
            lock_of(folder).unlink()


def made(place: Path, name: str) -> tuple[int, Path]:
    """An open, locked file and the folder that goes with it."""
    while True:
        folder = place / f".{name}.{secrets.token_hex(4)}.staging"
        file = os.open(lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(OSError):  # a disk without locks: there the folder is never deleted as left over
            if not try_lock(file) or not lock_of(folder).exists():  # another process is just removing it
                os.close(file)
                continue
        folder.mkdir()
        return file, folder


def lock_of(folder: Path) -> Path:
    """The locked file of a staging folder."""
    return folder.with_suffix(".lock")


def remove_left_over(place: Path) -> None:
    """Removes the staging folders of processes that are no more."""
    for lock in list(place.glob(".*.lock")):
        if NAME.fullmatch(lock.name):
            with contextlib.suppress(OSError):  # of another user, or on a disk without locks
                remove_if_free(lock)


def remove_if_free(lock: Path) -> None:
    """Removes a staging folder, and its lock, unless a process holds it."""
    file = os.open(lock, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if try_lock(file):
            folder = lock.with_suffix(".staging")
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
            lock.unlink()
    finally:
        os.close(file)
