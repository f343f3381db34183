"""On PyTorch: what a function does with tensors, recorded once, and repeated without the Python between.

PyTorch runs Python between any two operations, and Keras and the layers here take longer there than PyTorch takes for
many of them. A record is the list of PyTorch's calls for one combination of shapes: on the function's arguments, on
what comes from them, and on variables, whose values are those of the moment. It is a Python function with a line for
each call. As in compiled code of the other backends, values of tensors cannot be looked at while it is made; a function
that needs one to go on has no record, and runs as it is.
"""

import itertools
import weakref
from collections.abc import Callable
from typing import Any

RECORDS = 64  # of one function; with more shapes than these it runs as it is
SHAPES = {  # what may be asked of a tensor: the same for all tensors of one shape
    "shape", "size", "stride", "dim", "ndim", "numel", "nelement", "__len__", "dtype", "device", "layout", "itemsize",
    "element_size", "nbytes", "is_floating_point", "is_complex", "is_contiguous", "is_inference", "is_leaf", "is_meta",
    "is_cpu", "is_cuda", "is_mps", "is_xpu", "is_sparse", "is_quantized", "is_nested", "requires_grad", "grad",
}  # fmt: skip
NO_CHANGE = ("to", "as_tensor")  # where they give back what they were given
IN_PLACE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__iand__", "__ior__"}


class NotRecordableError(Exception):
    """While it was recorded, a function looked at the value of a tensor, or had one from elsewhere."""


class Recorded:
    """A function of tensors, nested in tuples, lists and dicts, recorded once for each combination of shapes.

    What else there is among the arguments counts as a part of the shape. Gradients are not computed. The function may
    be run a second time where it cannot be recorded, so what it writes in place has to come out the same.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.records: dict[Any, tuple[Callable, Any]] = {}
        self.most = RECORDS

    def __call__(self, *args):
        import torch
        from torch.utils import _pytree as nested

        leaves, form = nested.tree_flatten(args)
        tensors = [x for x in leaves if is_tensor(x)]
        key = form, tuple((x.shape, x.dtype, x.device, x.is_contiguous()) if is_tensor(x) else x for x in leaves)
        one_twice = len({id(tensor) for tensor in tensors}) < len(tensors)  # in a later call they may be two
        with torch.inference_mode():
            if key in self.records and not one_twice:
                run, form = self.records[key]
                return nested.tree_unflatten(run(*tensors), form)
            if len(self.records) >= self.most or one_twice:
                return self.function(*args)
            recorder = Recorder(tensors)
            try:
                results = recorder.watch(self.function, args)
                leaves, form = nested.tree_flatten(results)
                self.records[key] = recorder.record(leaves), form
            except NotRecordableError:
                self.most = 0
                return self.function(*args)
        return results


def is_tensor(value) -> bool:
    """Whether it is a tensor of PyTorch, whatever Keras' backend is."""
    import torch

    return isinstance(value, torch.Tensor)


class Recorder:
    """Writes a line of Python for each of PyTorch's calls that a function makes."""

    def __init__(self, tensors: list):
        self.values: dict[str, Any] = {}  # functions, variables and other arguments, by their names in the lines
        self.names: dict[int, tuple[Any, str]] = {}  # of tensors, by id; the reference tells whether it is still they
        self.lines: list[tuple[str, list[str]]] = []  # with the names of the tensors in each
        self.numbers = itertools.count()
        self.given = [self.new_name(tensor) for tensor in tensors]

    def watch(self, function: Callable, args):
        """What the function returns; every call of PyTorch's functions within it is written down."""
        from torch.overrides import TorchFunctionMode

        recorder = self

        class Watching(TorchFunctionMode):
            def __torch_function__(self, called, types, args=(), kwargs=None):
                found = called(*args, **(kwargs or {}))
                recorder.write(called, args, kwargs or {}, found)
                return found

        with Watching():
            return function(*args)

    def write(self, called: Callable, args: tuple, kwargs: dict[str, Any], found) -> None:
        """The line of one call; none where it only tells a shape, or gives back what it was given."""
        name = called.__self__.__name__ if called.__name__ == "__get__" else called.__name__
        made = list(found) if isinstance(found, tuple | list) else [found]
        if not (made and all(map(is_tensor, made))) and name != "__setitem__":
            if name not in SHAPES:
                raise NotRecordableError(name)
            return
        if name in NO_CHANGE and args and found is args[0]:
            return
        in_place = name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        used: list[str] = []
        given = [self.text(x, used) for x in args] + [f"{k}={self.text(x, used)}" for k, x in kwargs.items()]
        call = f"{self.constant(called)}({', '.join(given)})"
        if not in_place:
            new = [self.new_name(x) for x in made]
            call = f"{', '.join(new)}{',' if found is not made[0] else ''} = {call}"
            used += new
        self.lines.append((call, used))

    def text(self, value, used: list[str]) -> str:
        """An argument of a line; names of tensors are added to `used`."""
        if is_tensor(value):
            used.append(self.name(value))
            return used[-1]
        if isinstance(value, tuple | list):
            parts = "".join(f"{self.text(one, used)}, " for one in value)
            return f"[{parts}]" if isinstance(value, list) else f"({parts})"
        if isinstance(value, slice):
            return f"slice({', '.join(self.text(x, used) for x in (value.start, value.stop, value.step))})"
        if isinstance(value, dict | set):
            raise NotRecordableError(f"{type(value).__name__} as an argument")
        return repr(value) if value is None or isinstance(value, bool | int | str) else self.constant(value)

    def constant(self, value) -> str:
        """The name of a value that is always the same."""
        name = f"c{next(self.numbers)}"
        self.values[name] = value
        return name

    def new_name(self, tensor) -> str:
        """A name for a tensor that was made just now."""
        name = f"t{next(self.numbers)}"
        self.names[id(tensor)] = weakref.ref(tensor), name
        return name

    def name(self, tensor) -> str:
        """The name of a tensor that is given or was made, or of a variable.

        Raises: NotRecordableError for any other one: no call here has made it, so that none would make it anew.
        """
        import torch

        reference, name = self.names.get(id(tensor), (None, ""))
        if reference is not None and reference() is tensor:
            return name
        if not isinstance(tensor, torch.nn.Parameter):
            raise NotRecordableError(f"a tensor {tuple(tensor.shape)} from elsewhere")
        name = self.constant(tensor)
        self.names[id(tensor)] = weakref.ref(tensor), name
        return name

    def record(self, results: list) -> Callable:
        """A function of the tensors, which makes the results anew."""
        kept: list[str] = []
        returned = self.text(results, kept)
        last = {name: i for i, (_, names) in enumerate(self.lines) for name in names}
        source = [f"def run({', '.join(self.given)}):"]
        for i, (line, names) in enumerate(self.lines):
            over = sorted({name for name in names if last[name] == i and name[0] == "t"} - set(kept))
            source.append(f"    {line}" + (f"; del {', '.join(over)}" if over else ""))
        exec("\n".join([*source, f"    return {returned}"]), self.values)
        return self.values["run"]
