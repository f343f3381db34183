"""Keras' weight files: Keras 3's `.weights.h5`, and the `.h5` of Keras 2.

Keras 3 numbers layers by class in the order of the graph, and their variables in order of creation
("layers/dense_1/vars/0"); the name of a layer is an attribute of its `vars`. Keras 2 lists the variables of each layer
by names that depend on its version; their order does not. So a tensor is named here by what both tell, the layer and a
number, and by its path in the file: "LAYER/0 at PATH", "LAYER/INNER/1 at PATH" where a layer holds layers, and of Keras
2 "LAYER[1/8] at PATH", the second of 8. What has no layer's name is named by its path alone.

`tf_model.h5` of transformers' TensorFlow classes is a file of Keras 2 whose paths are the names of PyTorch's file of
the model, but for a few words; its tensors are given by these names.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tensors import ROWS, LazyTensor, Tensors
from bert4x.errors import CorruptFileError, TensorMismatchError, UnknownFormatError

TRANSFORMERS = r"tf_?[a-z0-9_]+/"  # how names begin there: by the class, tf_bert_for_masked_lm or tfgpt2_model


def read_keras_h5(path: Path) -> Tensors:
    """The tensors of a file by layer and number.

    Raises: UnknownFormatError for HDF5 files Keras did not write, CorruptFileError.
    """
    from bert4x.checkpoints.formats.hdf5 import read_hdf5, read_hdf5_attributes

    raw, attributes = read_hdf5(path), read_hdf5_attributes(path)
    for root in ("", "model_weights"):  # save_weights, model.save
        if "layer_names" in attributes.get(root, {}):
            return read_keras2(raw, attributes, root)
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


def read_keras2(raw: Tensors, attributes: dict, root: str) -> Tensors:
    """The tensors of a file of Keras 2.

    Raises: CorruptFileError, TensorMismatchError.
    """
    tensors: Tensors = {}
    layers = layer_names(attributes, root)
    listed = [name for layer in layers for name in weight_names(attributes, root, layer)]
    if any(re.match(TRANSFORMERS, name) for name in listed):
        return of_transformers(raw, attributes, root)
    for layer in layers:
        group = f"{root}/{layer}".strip("/")
        written = [f"{group}/{name}" for name in weight_names(attributes, root, layer)]
        for i, name in enumerate(written):
            if name not in raw:
                raise CorruptFileError(f"dataset {name!r} is listed but missing; the file is damaged")
            tensor = replace(raw[name], name=f"{layer}[{i}/{len(written)}] at {name}")
            tensors[tensor.name] = tensor
    return tensors


def layer_names(attributes: dict, root: str) -> list[str]:
    """The names of the layers of Keras 2.

    Raises: CorruptFileError for one that is listed twice; a small file could name the same variables without end.
    """
    names = list(attributes[root]["layer_names"])
    if len(set(names)) < len(names):
        raise CorruptFileError("a layer is listed twice; the file is damaged")
    return names


def weight_names(attributes: dict, root: str, layer: str) -> list[str]:
    """The names of the variables of a layer of Keras 2."""
    names = attributes.get(f"{root}/{layer}".strip("/"), {}).get("weight_names", ())
    return list(names) if isinstance(names, list) else []


def of_transformers(raw: Tensors, attributes: dict, root: str) -> Tensors:
    """The tensors of a TensorFlow class of transformers, by PyTorch's names. A head's layer lists the embeddings again.

    Raises: CorruptFileError, TensorMismatchError where these are not the same.
    """
    tensors: Tensors = {}
    for layer in layer_names(attributes, root):
        for listed in weight_names(attributes, root, layer):
            path = f"{root}/{layer}/{listed}".strip("/")
            if path not in raw:
                raise CorruptFileError(f"dataset {path!r} is listed but missing; the file is damaged")
            tensor = as_torch(listed, raw[path])
            if tensor.name in tensors and not equal(tensor, tensors[tensor.name]):
                raise TensorMismatchError(f"tensor {tensor.name!r} is there twice, and not the same: {path!r} differs")
            tensors.setdefault(tensor.name, tensor)
    return tensors


def as_torch(path: str, tensor: LazyTensor) -> LazyTensor:
    """A tensor by the name that PyTorch's file has, and as it lies there: kernels are (out, in); biases of GPT2's
    layers have no axis of length 1.
    """
    path = re.sub(r"(^|/)[^/]*___", r"\1", path.partition("/")[2] or path).replace("_._", "/")
    *owners, word = path.removesuffix(":0").split("/")
    name = ".".join(
        [*owners, {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"}.get(word, word)]
    )
    if word == "kernel":
        return replace(tensor, name=name, shape=tensor.shape[::-1], read=lambda: tensor.read().T, rows=None)
    if word == "bias" and len(tensor.shape) == 2 and tensor.shape[0] == 1:
        return replace(tensor, name=name, shape=tensor.shape[1:], read=lambda: tensor.read()[0], rows=None)
    return replace(tensor, name=name)


def equal(first: LazyTensor, second: LazyTensor) -> bool:
    """Whether two tensors of one shape hold the same numbers, a part of each in memory."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if not first.shape or first.rows is None or second.rows is None:
        return np.array_equal(first.read(), second.read(), equal_nan=True)
    step = max(1, ROWS * first.shape[0] // max(1, first.nbytes))
    parts = (slice(start, min(start + step, first.shape[0])) for start in range(0, first.shape[0], step))
    return all(np.array_equal(first.rows(p.start, p.stop), second.rows(p.start, p.stop), equal_nan=True) for p in parts)


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
