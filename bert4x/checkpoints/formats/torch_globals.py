"""What a PyTorch pickle may refer to: tensors, their storages and plain data; the layouts of `torch._utils`."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bert4x.checkpoints.formats.common import checked_shape
from bert4x.checkpoints.formats.pickle_machine import IGNORED, Global
from bert4x.checkpoints.tensors import BFLOAT16
from bert4x.errors import CorruptFileError, UnknownFormatError, UnsafeFileError

MAX_EXPANSION = 1 << 16  # elements a broadcast tensor may have beyond those of its storage

DTYPES = {
    "Half": np.dtype("<f2"), "BFloat16": BFLOAT16, "Float": np.dtype("<f4"), "Double": np.dtype("<f8"),
    "Byte": np.dtype("u1"), "Char": np.dtype("i1"), "Short": np.dtype("<i2"), "Int": np.dtype("<i4"),
    "Long": np.dtype("<i8"), "Bool": np.dtype("bool"),
}  # fmt: skip
DTYPE_NAMES = {
    "float16": DTYPES["Half"], "half": DTYPES["Half"], "bfloat16": BFLOAT16, "float32": DTYPES["Float"],
    "float": DTYPES["Float"], "float64": DTYPES["Double"], "double": DTYPES["Double"], "uint8": DTYPES["Byte"],
    "int8": DTYPES["Char"], "int16": DTYPES["Short"], "short": DTYPES["Short"], "int32": DTYPES["Int"],
    "int": DTYPES["Int"], "int64": DTYPES["Long"], "long": DTYPES["Long"], "bool": DTYPES["Bool"],
    "uint16": np.dtype("<u2"), "uint32": np.dtype("<u4"), "uint64": np.dtype("<u8"),
}  # fmt: skip

# types of plain data that real files hold beside their tensors: random states, paths, dates, arguments
BUILTINS = "set frozenset list dict tuple int float complex bool str bytes bytearray object slice range"
PLAIN = {
    "builtins": BUILTINS,
    "__builtin__": BUILTINS,  # Python 2
    "copyreg": "_reconstructor",
    "copy_reg": "_reconstructor",
    "_codecs": "encode",
    "argparse": "Namespace",
    "collections": "Counter deque",
    "datetime": "datetime timedelta",
    "pathlib": "Path PosixPath PurePosixPath WindowsPath",
    "numpy": "ndarray dtype bool_ float32 float64 int32 int64",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.random._pickle": "__randomstate_ctor __bit_generator_ctor __generator_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "torch": "device Generator",
    "typing": "Any",
    "torch.serialization": "_get_layout",
}
# classes of training frameworks whose instances (arguments, loss scalers, schedulers) lie beside the weights
INERT_PACKAGES = (
    *("megatron.", "deepspeed.", "apex.", "fp16.", "mpu.", "torch.optim."),
    *("lightning.", "pytorch_lightning.", "lightning_fabric.", "omegaconf."),
)
INERT_CONFIGS = re.compile(r"transformers\.(models\.\w+\.)?configuration_\w+")  # Lightning keeps a module's arguments


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat array of the file: `count` elements, `start` elements into the `total` stored under `key`."""

    key: str
    dtype: np.dtype
    count: int
    start: int
    total: int


@dataclass(frozen=True, slots=True)
class StridedView:
    """A tensor of the file: where its elements lie in a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def in_order(self) -> bool:
        """Whether the elements lie one after the other, row by row."""
        sizes = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return 0 not in self.shape and tuple(sizes) == tuple(self.strides)

    @property
    def span(self) -> int:
        """Elements from the first to the last, or 0."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))


def _rebuild_tensor(storage, offset, shape, strides, *rest) -> StridedView:
    """`torch._utils._rebuild_tensor_v2`; with a dtype among `rest` (`_v3`) the storage is untyped bytes."""
    dtype = rest[2].payload if len(rest) > 2 and type(rest[2]) is Global else None
    if type(storage) is not Storage or type(offset) is not int or offset < 0:
        raise CorruptFileError("a tensor of the pickle has no valid storage and offset")
    if dtype is not None and dtype != storage.dtype:
        sizes = (storage.count, storage.start, storage.total)
        storage = Storage(storage.key, dtype, *(n * storage.dtype.itemsize // dtype.itemsize for n in sizes))
    where = f"a tensor of storage {storage.key[:40]!r}"
    shape = checked_shape(shape, storage.dtype.itemsize, where)
    strides = checked_shape(strides, 1, where)
    if len(shape) != len(strides):
        raise CorruptFileError(f"{where}: {len(shape)} dimensions but {len(strides)} strides")
    view = StridedView(storage, offset, shape, strides)
    if view.span and offset + view.span > storage.count:
        raise CorruptFileError(f"{where}: its strides reach beyond the {storage.count} elements of the storage")
    if math.prod(shape) > max(storage.count, MAX_EXPANSION):
        raise UnsafeFileError(f"{where}: {shape} expands a storage of {storage.count} elements")
    return view


def _ordered_dict(items=(), *_) -> dict:
    return {k: v for k, v in items if type(k) is str} if type(items) is list else {}


def _first(value=IGNORED, *_):
    return value


def _known_globals() -> dict[tuple[str, str], Global]:
    rebuilders: dict[str, Callable] = {
        "collections.OrderedDict": _ordered_dict,
        "collections.defaultdict": lambda *_: {},
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v3": _rebuild_tensor,
        "torch._utils._rebuild_parameter": _first,
        "torch._utils._rebuild_parameter_with_state": _first,
        "torch.nn.parameter.Parameter": _first,
        "torch.nn.parameter.Buffer": _first,
        "torch.Size": _first,
    }
    known = {(module, name): Global(f"{module}.{name}") for module, names in PLAIN.items() for name in names.split()}
    known |= {tuple(name.rsplit(".", 1)): Global(name, function) for name, function in rebuilders.items()}
    for name, dtype in DTYPES.items():
        for module in ("torch", "torch.cuda"):
            known[module, f"{name}Storage"] = Global(f"{module}.{name}Storage", payload=dtype)
    for module in ("torch", "torch.storage"):
        known[module, "UntypedStorage"] = Global(f"{module}.UntypedStorage", payload=DTYPES["Byte"])
    return known | {("torch", name): Global(f"torch.{name}", payload=dtype) for name, dtype in DTYPE_NAMES.items()}


GLOBALS = _known_globals()
INERT = Global("a class of a training framework")  # one for all: their names are the file's, of any length

# What no code runs for, and is not read all the same: why, and what to do.
UNREAD = (
    (
        r"torch\.(float[468]_\w+|complex\w+|u?int[1-7]|qu?int\w+|bits\w+|(Complex|Q)\w+Storage)|torch\._utils\._rebuild_qtensor",
        "its tensors are of {}: numbers of less than 16 bits, or complex ones, are no weights here; take the "
        "checkpoint in float16, bfloat16 or float32",
    ),
    (
        r"torch\.distributed\.\S+|torch\._utils\._rebuild_wrapper_subclass",
        "its tensors are divided over several devices ({}): save tensor.full_tensor() of each",
    ),
)


def find_global(module: str, name: str) -> Global:
    """The inert stand-in of what a pickle refers to. Raises: UnsafeFileError, UnknownFormatError for what
    is not listed here."""
    known = GLOBALS.get((module, name))
    if known is None and (f"{module}.".startswith(INERT_PACKAGES) or INERT_CONFIGS.fullmatch(module)):
        return INERT
    if known is None:
        for pattern, why in UNREAD:
            if re.fullmatch(pattern, f"{module}.{name}"):
                raise UnknownFormatError(why.format(f"{module}.{name}"))
        raise UnsafeFileError(
            f"the pickle refers to {module}.{name}, which no checkpoint needs and which may run code; "
            "nothing was executed. If it is a whole model you trust, save its state_dict() instead"
        )
    return known


def find_storage(pid) -> Storage:
    """What a persistent id refers to: ("storage", type, key, device, count[, view]). Raises: CorruptFileError"""
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise CorruptFileError("a persistent id that is not a storage")
    _, kind, key, _, count, *view = pid
    if type(kind) is not Global or not isinstance(kind.payload, np.dtype) or type(key) is not str:
        raise CorruptFileError("a storage of unknown type")
    _, start, size = view[0] if view and view[0] is not None else (None, 0, count)
    if any(type(n) is not int or not 0 <= n < 2**60 for n in (count, start, size)) or start + size > count:
        raise CorruptFileError(f"storage {key[:40]!r} has no valid size")
    return Storage(key, kind.payload, size, start, count)
