"""A lock between processes: the system frees it when its holder dies, however that happens."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bert4x.errors import HubError

POLL = 0.2  # seconds


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of a file, which is made and never deleted. `waiting` is called once if another holds it.

    Raises: HubError where files cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise HubError(f"{path} cannot be made ({error.strerror}); set BERT4X_HOME to a folder you can write") from None
    try:
        told = False
        while not try_lock(file, path):
            if not told:
                waiting()
                told = True
            time.sleep(POLL)
        yield
    finally:
        os.close(file)  # frees it


def try_lock(file: int, path: Path) -> bool:
    """Whether the lock could be had at once."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise HubError(
            f"{path} cannot be locked ({error.strerror}); set BERT4X_HOME to a folder on another disk"
        ) from None
    return True
