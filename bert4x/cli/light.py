"""Keras imports scikit-learn (for its wrappers) and matplotlib (for its galleries) where they are installed. No command
needs what it does with them, and they are a quarter to a third of the time that its import takes.
"""

import sys

UNUSED = ("sklearn", "matplotlib")


class LightKeras:
    """Finds no scikit-learn and no matplotlib while Keras is imported, once; before and after it they are there."""

    def find_spec(self, name, path=None, target=None):
        """Python's interface of finders; None for every module but these."""
        if name != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        loader, execute = spec.loader, spec.loader.exec_module

        def exec_module(module):
            del loader.exec_module  # the class has it again
            sys.meta_path.remove(self)
            hidden = [name for name in UNUSED if name not in sys.modules]
            sys.modules.update(dict.fromkeys(hidden))  # None: as if not installed
            try:
                execute(module)
            finally:
                for name in hidden:
                    del sys.modules[name]

        loader.exec_module = exec_module
        return spec


def install() -> None:
    """Makes the first import of Keras a light one: for a process that is a command's own."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, LightKeras())
