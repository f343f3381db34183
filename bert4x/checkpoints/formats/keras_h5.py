"""Keras' weight files: Keras 3's `.weights.h5`, and the `.h5` of Keras 2.

Keras 3 numbers layers by class in the order of the graph, and their variables in order of creation
("layers/dense_1/vars/0"); the name of a layer is an attribute of its `vars`. Keras 2 lists the variables of each layer
by names that depend on its version; their order does not. So a tensor is named here by what both tell, the layer and a
number, and by its path in the file: "LAYER/0 at PATH", "LAYER/INNER/1 at PATH" where a layer holds layers, and of Keras
2 "LAYER[1/8] at PATH", the second of 8. What has no layer's name is named by its path alone.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from bert4x.checkpoints.formats.foreign import kind_of
from bert4x.checkpoints.tensors import LazyTensor, Tensors
from bert4x.errors import CorruptFileError, UnknownFormatError


def read_keras_h5(path: Path) -> Tensors:
    """The tensors of a file by layer and number.

    Raises: UnknownFormatError for HDF5 files Keras did not write, CorruptFileError.
    """
    from bert4x.checkpoints.formats.hdf5 import read_hdf5, read_hdf5_attributes

    raw, attributes = read_hdf5(path), read_hdf5_attributes(path)
    for root in ("", "model_weights"):  # save_weights, model.save
        if "layer_names" in attributes.get(root, {}):
            return read_keras2(path, raw, attributes, root)
    if not any(re.match(r"layers/[^/]+/", name) for name in raw):
        raise UnknownFormatError(f"{path} is HDF5, but not Keras 3's .weights.h5: its tensors are {sorted(raw)[:5]}")
    names = {name: named(name, attributes) for name in raw}
    return {names[name]: replace(tensor, name=names[name]) for name, tensor in raw.items()}


def named(path: str, attributes: dict) -> str:
    """The name of a dataset of Keras 3, "layers/multi_head_attention/query_dense/vars/0" say."""
    match = re.fullmatch(r"(.*layers/[^/]+)((?:/[^/]+)*)/vars/(\d+)", path)
    if not match:
        return path
    groups = [match[1]]
    for part in match[2].split("/")[1:]:
        groups.append(f"{groups[-1]}/{part}")
    names = [attributes.get(f"{group}/vars", {}).get("name", "") for group in groups]
    if not all(isinstance(name, str) and name for name in names):
        return path
    return f"{'/'.join(names)}/{int(match[3])} at {path}"


def read_keras2(path: Path, raw: Tensors, attributes: dict, root: str) -> Tensors:
    """The tensors of a file of Keras 2.

    Raises: CorruptFileError, UnknownFormatError for the file of a TensorFlow class of transformers.
    """
    tensors: Tensors = {}
    for layer in attributes[root]["layer_names"]:
        group = f"{root}/{layer}".strip("/")
        written = [f"{group}/{name}" for name in attributes.get(group, {}).get("weight_names", ())]
        for i, name in enumerate(written):
            if name not in raw:
                raise CorruptFileError(f"dataset {name!r} is listed but missing; the file is damaged")
            if re.match(r"[^/]+/tf_\w+/", name.removeprefix(root).lstrip("/")):
                raise UnknownFormatError(f"{path}: this is {kind_of('tf_model.h5')}")
            tensor = replace(raw[name], name=f"{layer}[{i}/{len(written)}] at {name}")
            tensors[tensor.name] = tensor
    return tensors


def write_keras_h5(
    path: Path, tensors: Iterable[LazyTensor], class_of: Callable[[str], str], attribute_of: Callable[[str], str]
) -> None:
    """Writes tensors named "LAYER/NUMBER" or "LAYER/INNER/NUMBER", in the order of the graph, as `model.save_weights`.

    Args:
        class_of: the class of a layer, in snake case as Keras names groups.
        attribute_of: the attribute of the outer layer that holds an inner one.
    """
    from bert4x.checkpoints.formats.hdf5 import write_hdf5

    counts, groups, attributes, renamed = Counter(), {}, {}, []
    for tensor in tensors:
        layer, *inner, number = tensor.name.split("/")
        if layer not in groups:
            name = class_of(layer)
            groups[layer] = f"layers/{name}" + (f"_{counts[name]}" if counts[name] else "")
            counts[name] += 1
        group = groups[layer]
        attributes[f"{group}/vars"] = {"name": layer}
        for part in inner:
            group = f"{group}/{attribute_of(part)}"
            attributes[f"{group}/vars"] = {"name": part}
        renamed.append(replace(tensor, name=f"{group}/vars/{number}"))
    write_hdf5(path, renamed, attributes)
