"""Keras imports scikit-learn (for its wrappers) and matplotlib (for its galleries) where they are installed. No command
needs what it does with them, and they are a quarter to a third of the time that its import takes.
"""

import contextlib
import sys

from bert4x.quiet import FirstImport

UNUSED = ("sklearn", "matplotlib")


class LightKeras(FirstImport):
    """Finds Keras, for which scikit-learn and matplotlib are not there while it is executed."""

    module = "keras"

    @contextlib.contextmanager
    def around(self, module):
        hidden = [name for name in UNUSED if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))  # None: as if not installed
        try:
            yield
        finally:
            for name in hidden:
                del sys.modules[name]


def install() -> None:
    """Makes the first import of Keras a light one: for a process that is a command's own."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, LightKeras())
