"""A lock between processes: the system frees it when its holder dies, however that happens."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL = 0.2  # seconds


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of a file, which is made and never deleted. `waiting` is called once if another holds it; it may
    raise, where one does not want to wait.

    Raises: OSError where files cannot be made or locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not try_lock(file):
            waiting()
            while not try_lock(file):
                time.sleep(POLL)
        yield
    finally:
        os.close(file)  # frees it


def try_lock(file: int) -> bool:
    """Whether the lock of an open file could be had at once. Raises: OSError where the disk has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
