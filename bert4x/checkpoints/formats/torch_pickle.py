"""PyTorch's `.bin` and `.pt` in both serializations, without PyTorch and without running anything.

Zip form (since 1.6): `<name>/data.pkl`, a pickle whose tensors refer to storages by persistent id, and one member
`<name>/data/<key>` a storage. Older form: five pickles (magic number, protocol, system, object, storage keys), then
each storage as an int64 count and its elements. The layouts are those of `torch.serialization`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.common import check_cost, check_count, checked_name
from bert4x.checkpoints.formats.pickle_machine import MAX_BYTES, PickleMachine
from bert4x.checkpoints.formats.regions import RegionFile
from bert4x.checkpoints.formats.sharded import read_sharded
from bert4x.checkpoints.formats.torch_globals import Storage, StridedView, find_global, find_storage
from bert4x.checkpoints.formats.zip_members import ZipMember, read_members
from bert4x.checkpoints.tensors import LazyTensor, Tensors
from bert4x.errors import CorruptFileError, TensorMismatchError, UnknownFormatError, UnsafeFileError

MAGIC = 0x1950A86A20F9469CFC6C
MAX_LEGACY_BYTES = 1 << 25  # of the five pickles before the data; a hundred thousand tensors take less
MAX_DEPTH = 32
MAX_VALUES = 2_000_000
FREE_VALUES = 250_000


def read_torch(path, root: str | None = None) -> Tensors:
    """The tensors of one file; values are read on `read()`.

    Names are the keys of the nested dicts (and positions in lists) joined by "."; with `root` only what is under that
    top-level key, named without it (Megatron's and DeepSpeed's shards keep the weights under "module"). Everything
    that is not a tensor is skipped. `read()` and `verify()` check the CRC-32 of the zip form; the older form has none.

    Raises `UnsafeFileError` if the pickle refers to anything but tensors and plain data, `UnknownFormatError` if it
    is neither form, `CorruptFileError` for damage, `TensorMismatchError` for two tensors of one name.
    """
    file = RegionFile(path)
    path, (value, segment) = file.path, _open(file)
    if root is not None:
        if type(value) is not dict or type(value.get(root)) is not dict:
            found = ", ".join(repr(str(key)[:40]) for key in list(value)[:20]) if type(value) is dict else "no dict"
            raise UnknownFormatError(f"{path}: expected a dict under {root!r}, found {found}")
        value = value[root]
    tensors: Tensors = {}
    cost = 0
    for name, view in named_values(value, view_in, min(MAX_VALUES, FREE_VALUES + file.size // 4), str(path)):
        if name in tensors:
            raise TensorMismatchError(f"{path}: two tensors are named {name!r}")
        check_count(len(tensors) + 1, file.size, str(path))
        stored = segment(view.storage)
        tensors[name] = _lazy(name, view, stored)
        cost += max(tensors[name].nbytes, stored.cost(view.span * view.storage.dtype.itemsize))
    check_cost(cost, file.size, str(path))
    return tensors


def read_number(path, key: str, default: float) -> float:
    """A number that the dict of a file has at a key; errors as `read_torch`."""
    value, _ = _open(RegionFile(path))
    found = value.get(key, default) if type(value) is dict else default
    if type(found) not in (int, float):
        raise CorruptFileError(f"{path}: {key} is no number; damaged")
    return found


def _open(file: RegionFile) -> tuple[object, Callable]:
    """What a file holds, and where its storages are."""
    path, head = file.path, file.bytes(0, min(4, file.size))
    if head == b"PK\3\4":
        return _open_zip(path)
    if head[:1] == b"\x80":
        return _open_legacy(file)
    if len(head) < 4:
        raise CorruptFileError(f"{path}: only {len(head)} bytes; truncated?")
    tar = file.size > 512 and file.bytes(257, 5) == b"ustar"
    kind = "it is in the tar form of PyTorch 0.1" if tar else f"it starts with {head!r}"
    raise UnknownFormatError(f"{path}: expected a file written by torch.save, but {kind}")


def read_torch_sharded(index_path) -> Tensors:
    """The tensors of all shards named by a `pytorch_model.bin.index.json`; errors as `read_sharded`."""
    return read_sharded(index_path, read_torch)


def view_in(value) -> StridedView | None:
    """The tensor that a value is, or None."""
    return value if type(value) is StridedView else None


def named_values(value, tensor_in: Callable, budget: int, where: str) -> Iterator[tuple[str, object]]:
    """Tensors with their dotted names, in the file's order. At most `budget` values are looked at, against containers
    that are shared or contain themselves. `tensor_in` gives the tensor that a value is, or None.
    """

    def walk(value, name: str, depth: int):
        nonlocal budget
        if (tensor := tensor_in(value)) is not None:
            yield name, tensor
            return
        budget -= 1 + len(value)
        if budget < 0 or depth > MAX_DEPTH:
            raise UnsafeFileError(
                f"{where}: containers nested over {MAX_DEPTH} deep, or more values than a file of its size needs"
            )
        for key, item in value.items() if type(value) is dict else enumerate(value):
            if type(item) in (dict, list, tuple) or tensor_in(item) is not None:
                yield from walk(item, checked_name(f"{name}.{key}" if depth else str(key), where), depth + 1)

    if type(value) in (dict, list, tuple):
        yield from walk(value, "", 0)


def _lazy(name: str, view: StridedView, segment: "ZipMember | Range") -> LazyTensor:
    def read() -> np.ndarray:
        span = view.span
        if span == 0:
            return np.empty(view.shape, dtype)
        data = segment.read_verified((view.storage.start + view.offset) * dtype.itemsize, span * dtype.itemsize)
        strides = tuple(stride * dtype.itemsize for stride in view.strides)
        return np.lib.stride_tricks.as_strided(data.view(dtype), view.shape, strides)

    def rows(start: int, stop: int) -> np.ndarray:
        stride = view.strides[0]
        data = segment.read(
            (view.storage.start + view.offset + start * stride) * dtype.itemsize,
            (stop - start) * stride * dtype.itemsize,
        )
        return data.view(dtype).reshape(stop - start, *view.shape[1:])

    dtype = view.storage.dtype
    alone = view.shape and view.in_order and not getattr(segment, "deflated", False)
    return LazyTensor(name, view.shape, dtype, read, segment.verify, rows if alone else None)


def _open_zip(path: Path) -> tuple[object, Callable[[Storage], ZipMember]]:
    members, where = read_members(path), str(path)
    roots = [name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in members:
        raise UnknownFormatError(f"{path}: a zip archive, but not one written by torch.save (or a TorchScript program)")
    (root,) = roots
    pickled = members[f"{root}data.pkl"]
    order = members.get(f"{root}byteorder")
    for member in filter(None, (pickled, order)):
        if member.size > MAX_BYTES:
            raise UnsafeFileError(f"{path}: {member.name} has {member.size} bytes; at most {MAX_BYTES} are read")
        member.verify()
    if order and order.read(0, order.size).tobytes() != b"little":
        raise UnknownFormatError(f"{path}: not little-endian; load it and save it again on a little-endian machine")

    def segment(storage: Storage) -> ZipMember:
        member = members.get(f"{root}data/{storage.key}")
        _check_size(storage, member.size if member else None, where)
        return member

    program, size = pickled.read(0, pickled.size).tobytes(), pickled.file.size
    return PickleMachine(program, find_global, find_storage, size=size, where=where).load(), segment


def _check_size(storage: Storage, size: int | None, where: str) -> None:
    if size is None or size // storage.dtype.itemsize != storage.total:
        found = "missing" if size is None else f"{size} bytes long"
        raise CorruptFileError(
            f"{where}: storage {storage.key[:40]!r} of {storage.total} {storage.dtype} is {found}; damaged"
        )


class Range:
    """A storage of the older form: bytes of the file, without a checksum."""

    def __init__(self, file: RegionFile, offset: int, size: int):
        self.file, self.offset, self.size = file, offset, size

    def read(self, start: int, length: int) -> np.ndarray:
        """Bytes `start` to `start + length`. Shape: (length,)"""
        return self.file.read(self.offset + start, length)

    read_verified = read

    def cost(self, length: int) -> int:
        """Bytes that reading `length` of them touches."""
        return length

    def verify(self) -> bool:
        """There is nothing to check against."""
        return False


def _open_legacy(file: RegionFile) -> tuple[object, Callable[[Storage], Range]]:
    where, itemsizes = str(file.path), {}

    def persistent(pid) -> Storage:
        storage = find_storage(pid)
        if itemsizes.setdefault(storage.key, storage.dtype.itemsize) != storage.dtype.itemsize:
            raise CorruptFileError(f"storage {storage.key[:40]!r} has elements of two sizes")
        return storage

    program = file.bytes(0, min(file.size, MAX_LEGACY_BYTES))
    machine = PickleMachine(program, find_global, persistent, size=file.size, where=where)
    magic = machine.load()
    if type(magic) is not int or magic != MAGIC:
        raise UnknownFormatError(f"{where}: a pickle, but not one written by torch.save")
    machine.load()  # protocol of torch.save; 1001 is the only one there ever was
    system = machine.load()
    if type(system) is dict and system.get("little_endian") is not True:
        raise UnknownFormatError(f"{where}: not little-endian; load it and save it again on such a machine")
    value, keys = machine.load(), machine.load()
    ranges = _storage_ranges(file, machine.position, keys, itemsizes)

    def segment(storage: Storage) -> Range:
        found = ranges.get(storage.key)
        _check_size(storage, found.size if found else None, where)
        return found

    return value, segment


def _storage_ranges(file: RegionFile, position: int, keys, itemsizes: dict[str, int]) -> dict[str, Range]:
    """Where each storage lies: they follow the pickles in the order of `keys`, each behind its count."""
    if type(keys) is not list or any(type(key) is not str or key not in itemsizes for key in keys):
        raise CorruptFileError(f"{file.path}: the list of storages names others than the tensors use")
    check_count(len(keys), file.size, str(file.path))
    ranges = {}
    for key in keys:
        size = int.from_bytes(file.bytes(position, 8), "little") * itemsizes[key]
        position += 8
        if size > file.size - position or key in ranges:
            raise CorruptFileError(
                f"{file.path}: storage {key[:40]!r} occurs twice or ends beyond the file; truncated?"
            )
        ranges[key] = Range(file, position, size)
        position += size
    if position != file.size:
        raise CorruptFileError(f"{file.path}: {file.size - position} bytes behind the last storage")
    return ranges
