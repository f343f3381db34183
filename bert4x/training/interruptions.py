"""What cuts a run off: signals, and a disk that fails."""

import signal
import threading
from pathlib import Path

from bert4x.errors import RunError


class Signals:
    """Within the block, Ctrl-C and SIGTERM set the loop's `interrupted`, so that its update ends first; a second one
    ends the process as usual."""

    def __init__(self, loop):
        self.loop, self.before = loop, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.caught)

    def caught(self, number, frame):
        self.loop.interrupted = True
        signal.signal(number, self.before[number])

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Disk:
    """Within the block, a failure of the disk is a RunError that says what is still there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, OSError):
            raise RunError(
                f"cannot write to {self.folder}: {error.strerror or error}. What was saved before is whole; make room, "
                "then go on with --resume auto"
            ) from error
