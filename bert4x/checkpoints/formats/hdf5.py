"""Keras' weights in HDF5: `.weights.h5` of Keras 3, `.h5` of Keras 2 and bert4keras. Read without libhdf5."""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from bert4x.checkpoints.formats.common import check_cost, check_count, checked_shape
from bert4x.checkpoints.formats.hdf5_messages import cut, parse_dataspace, parse_datatype, unpack
from bert4x.checkpoints.formats.hdf5_objects import DATASPACE, DATATYPE, LAYOUT, Hdf5Objects, Messages
from bert4x.checkpoints.formats.regions import RegionFile, naming
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, Tensors, atomic_write, contiguous
from bert4x.errors import ConversionError

Attributes = dict[str, str | list[str] | np.ndarray]
_COMPACT, _CONTIGUOUS = 0, 1
_MAX_ATTRIBUTE = 64000  # bytes; what HDF5 stores of one in an object header, less its own structures


def read_hdf5(path: str | os.PathLike) -> Tensors:
    """The numeric datasets of a file, named by their full paths as in "layers/dense/vars/0"; strings are skipped.

    HDF5 as Keras writes it has no checksums: `verify()` returns False.

    Raises: `CheckpointNotFoundError`, `CorruptFileError`, `UnknownFormatError` (chunked or compressed datasets, links,
    big-endian or exotic types, files in HDF5's newer layout), `UnsafeFileError` (data kept in another file, or shared
    by many datasets).
    """
    file = RegionFile(path)
    tensors: Tensors = {}
    with naming(path):
        objects = Hdf5Objects(file)
        for name, messages in objects:
            parts = dict(messages)
            if LAYOUT not in parts:
                continue
            if name in tensors or DATATYPE not in parts or DATASPACE not in parts:
                raise objects.corrupt(f"dataset {name!r} is incomplete or there twice")
            tensor = _dataset(file, objects, name, messages)
            if tensor is not None:
                tensors[name] = tensor
                check_count(len(tensors), file.size, str(path))
        check_cost(sum(tensor.nbytes for tensor in tensors.values()), file.size, str(path))
    return dict(sorted(tensors.items()))


def read_hdf5_attributes(path: str | os.PathLike) -> dict[str, Attributes]:
    """The attributes of every group and dataset that has any, by its path ("" is the root).

    Strings are str, arrays of strings list[str], numbers arrays. A list that Keras 2 cut into `layer_names0`,
    `layer_names1`... because it was too long for HDF5 is also there whole, as `layer_names`.

    Raises: as `read_hdf5`.
    """
    file = RegionFile(path)
    with naming(path):
        objects = Hdf5Objects(file)
        found = {name: _join(objects.attributes(messages)) for name, messages in objects}
    return {name: attributes for name, attributes in sorted(found.items()) if attributes}


def write_hdf5(
    path: str | os.PathLike,
    tensors: Iterable[LazyTensor],
    attributes: Mapping[str, Mapping[str, str | list[str] | np.ndarray]] | None = None,
) -> None:
    """Write tensors as the datasets their names are paths of, as Keras 3.15 writes them, one at a time.

    `attributes` are those of the groups and datasets at the given paths ("" is the root); a list of strings that is
    too long for HDF5 is cut as Keras 2 does.

    Raises: `ConversionError` for names that clash and dtypes that Keras' files lack; no file is left then.
    """
    import h5py

    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for tensor in tensors:
            dtype = tensor.dtype
            known = dtype == BFLOAT16 or (dtype.kind in "biuf" and dtype.itemsize <= 8)
            if not known or not all(tensor.name.split("/")):
                raise ConversionError(f"{path}: cannot write tensor {tensor.name!r} of dtype {dtype} to HDF5")
            try:
                array = contiguous(tensor.read()).reshape(tensor.shape)
                dataset = file.create_dataset(tensor.name, data=array.astype(dtype.newbyteorder("<"), copy=False))
            except (ValueError, TypeError) as error:
                raise ConversionError(f"{path}: cannot write tensor {tensor.name!r} to HDF5: {error}") from error
            if dtype == BFLOAT16:  # NumPy's and HDF5's own types lack it, so Keras notes it
                dataset.attrs["dtype"] = "bfloat16"
        for name, values in (attributes or {}).items():
            owner = file[name] if name and name in file else file.require_group(name or "/")
            for key, value in _split(values).items():
                owner.attrs[key] = np.array([text.encode() for text in value]) if isinstance(value, list) else value


def _dataset(file: RegionFile, objects: Hdf5Objects, name: str, messages: Messages) -> LazyTensor | None:
    """The tensor of a dataset, or None if it holds strings."""
    parts = dict(messages)
    dtype, size = parse_datatype(parts[DATATYPE])
    if dtype in ("string", "strings"):
        return None
    if dtype == "opaque" and size == 2 and objects.attributes(messages).get("dtype") == "bfloat16":
        dtype = BFLOAT16
    shape = parse_dataspace(parts[DATASPACE])
    if isinstance(dtype, str) or shape is None:
        raise objects.unknown(f"dataset {name!r} holds {dtype} (shape {shape})")
    layout = parts[LAYOUT]
    version, kind = unpack("<2B", layout, 0)
    if version != 3 or kind not in (_COMPACT, _CONTIGUOUS):
        raise objects.unknown(f"dataset {name!r} is stored in chunks or compressed (layout {version}, {kind})")
    if kind == _COMPACT:
        stored = unpack("<H", layout, 2)[0]
        data = cut(layout, 4, stored)
        checked_shape(shape, dtype.itemsize, f"tensor {name!r}")
        tensor = LazyTensor(name, shape, dtype, lambda: np.frombuffer(data, dtype).reshape(shape))
    else:
        address, stored = unpack("<2Q", layout, 2)
        tensor = file.tensor(name, 0 if stored == 0 else address, shape, dtype)
    if stored != tensor.nbytes:
        raise objects.corrupt(f"dataset {name!r} {shape} {dtype} has {stored} bytes, not {tensor.nbytes}")
    return tensor


def _join(attributes: Attributes) -> Attributes:
    whole = {}
    for first in [name for name in attributes if name.endswith("0") and isinstance(attributes[name], list)]:
        stem, parts = first[:-1], []
        while isinstance(part := attributes.get(f"{stem}{len(parts)}"), list):
            parts.append(part)
        whole[stem] = [text for part in parts for text in part]
    return {**whole, **attributes}


def _split(attributes: Mapping) -> dict:
    out = {}
    for name, value in attributes.items():
        if not isinstance(value, list) or len(value) * max(map(_width, value), default=0) <= _MAX_ATTRIBUTE:
            out[name] = value
            continue
        step = max(1, _MAX_ATTRIBUTE // max(map(_width, value)))
        out |= {f"{name}{i}": value[start : start + step] for i, start in enumerate(range(0, len(value), step))}
    return out


def _width(text: str) -> int:
    return len(text.encode())
