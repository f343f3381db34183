"""The locks of the hub's folders."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bert4x import locks
from bert4x.errors import HubError


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of a file; see `bert4x.locks.locked`. Raises: HubError where files cannot be made or locked."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(path, waiting))
        except OSError as error:
            raise HubError(
                f"{path} cannot be made or locked ({error.strerror}); set BERT4X_HOME to a folder you can write"
            ) from None
        yield
