"""TensorFlow without what it says about the machine: its first import would print some 18 lines before any answer.

`import bert4x` installs this; a TensorFlow that was imported before is left alone. What native code writes to the error
stream (file descriptor 2) while TensorFlow is imported is put aside, and shown if the import fails. Lines that are not
in the form of TensorFlow's log, such as Python's warnings, are shown afterwards. Later on its warnings and errors are
seen, its information is not. With TF_CPP_MIN_LOG_LEVEL=0 in the environment everything is seen.
"""

import contextlib
import os
import re
import sys

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# "I0000 00:00:1795992095.810558 9676 file.cc:31] ...", "2026-01-01 00:00:00.000000: I tensorflow/..."; and a line that
# goes on from the one before it.
LOG = re.compile(
    rb"[IWEF]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWEF] "
    rb"|WARNING: All log messages before absl::|To enable the following instructions: |\s*$"
)
DRIVERS = "/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"  # the last is that of Windows' Linux


class FirstImport:
    """Finds one module as the other finders do; it is executed within `around`, and once it is, this finder goes."""

    module: str

    def around(self, module):
        """A context manager for the execution of the module."""
        raise NotImplementedError

    def find_spec(self, name, path=None, target=None):
        """Python's interface of finders; None for every other module."""
        if name != self.module:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        loader, execute = spec.loader, spec.loader.exec_module

        def exec_module(module):
            del loader.exec_module  # the class has it again
            with self.around(module):
                execute(module)
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(self)

        loader.exec_module = exec_module
        return spec


class QuietFinder(FirstImport):
    """Finds TensorFlow, which is executed with the error stream put aside."""

    module = "tensorflow"

    def find_spec(self, name, path=None, target=None):
        return None if os.environ.get(LEVEL) == "0" else super().find_spec(name, path, target)

    @contextlib.contextmanager
    def around(self, module):
        os.environ.setdefault(LEVEL, "1")
        with put_aside():
            yield
            if not any(map(os.path.exists, DRIVERS)):  # looking for GPUs then ends in an error message: do it here
                module.config.list_physical_devices()


@contextlib.contextmanager
def put_aside():
    """Within the block, what is written to file descriptor 2 goes to a file. All of it is shown if the block fails,
    otherwise what is no line of TensorFlow's log.
    """
    import faulthandler  # here, so that importing bert4x stays instant
    import tempfile

    try:
        shown = os.dup(2)
    except OSError:  # a process without an error stream
        yield
        return
    crashes = not faulthandler.is_enabled()
    with tempfile.TemporaryFile() as aside:
        flush()
        os.dup2(aside.fileno(), 2)
        if crashes:  # a signal that ends the process loses the file: say at least where it was
            faulthandler.enable(shown)
        keep = None
        try:
            yield
            keep = LOG
        finally:
            flush()
            if crashes:
                faulthandler.disable()
            os.dup2(shown, 2)
            os.close(shown)
            aside.seek(0)
            for line in aside:
                if keep is None or not keep.match(line):
                    os.write(2, line)


def flush() -> None:
    """So that what Python has written goes where it was meant to."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
        sys.stderr.flush()


def install() -> None:
    """Makes the first import of TensorFlow a quiet one."""
    if "tensorflow" not in sys.modules and not any(isinstance(finder, QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, QuietFinder())
