"""Keras' weight files by our variable paths: Keras 3's `.weights.h5`, and what bert4keras saved under Keras 2.

Keras 3 numbers layers by class in the order of the graph ("layers/dense_1/vars/0") and keeps their names in an
attribute of `vars`; reading goes by those names, so any model that contains our layers can be read.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bert4x.checkpoints.formats.foreign import kind_of
from bert4x.checkpoints.tensors import LazyTensor, Tensors
from bert4x.errors import CorruptFileError, TensorMismatchError, UnknownFormatError

# our layers: (pattern of the name, Keras' snake-case class, names of the variables in order of creation)
CLASSES = (
    (r"Embedding-(Token|Segment)", "embedding", ("embeddings",)),
    (r"Embedding-Position", "position_embedding", ("embeddings",)),
    (r".*-Norm", "layer_norm", ("gamma", "beta")),
    (r".*-MultiHeadSelfAttention", "multi_head_attention", ()),
    (r".*-MultiHeadCrossAttention", "cross_attention", ()),
    (r".*-FeedForward", "feed_forward", ()),
    (r"MLM-Bias", "bias", ("bias",)),
    (r"(Embedding-Mapping|MLM-Dense|Pooler-Dense|NSP-Proba)", "dense", ("kernel", "bias")),
)
DENSE = ("kernel", "bias")

# The same for files written by bert4keras: variables of each layer in the order Keras 2 created them.
KERAS2 = (
    (r"Embedding-(Token|Segment|Position)", ("embeddings",)),
    (r".*-Norm", ("beta", "gamma")),
    (
        r".*-MultiHeadSelfAttention",
        tuple(f"{part}/{name}" for part in ("query", "key", "value", "output") for name in DENSE),
    ),
    (r".*-FeedForward", tuple(f"{part}/{name}" for part in ("intermediate", "output") for name in DENSE)),
    (r"MLM-Bias", ("bias",)),
    (r"Embedding-Mapping|MLM-Dense|Pooler-Dense|NSP-Proba", DENSE),
)


def layer_class(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Keras' name of a layer's class, and its variables in order."""
    for pattern, keras_class, names in CLASSES:
        if re.fullmatch(pattern, name):
            return keras_class, names
    return None


def read_keras_h5(path: Path) -> Tensors:
    """The tensors of a `.weights.h5` by our variable paths; others by their path in the file.

    Raises: UnknownFormatError for HDF5 files Keras did not write, TensorMismatchError when a layer is there twice.
    """
    from bert4x.checkpoints.formats.hdf5 import read_hdf5, read_hdf5_attributes

    raw, attributes = read_hdf5(path), read_hdf5_attributes(path)
    for root in ("", "model_weights"):  # save_weights, model.save
        if "layer_names" in attributes.get(root, {}):
            return read_keras2(path, raw, attributes, root)
    if not any(re.match(r"layers/[^/]+/", name) for name in raw):
        raise UnknownFormatError(f"{path} is HDF5, but not Keras 3's .weights.h5: its tensors are {sorted(raw)[:5]}")
    tensors: Tensors = {}
    for name, tensor in raw.items():
        ours = variable_path(name, attributes)
        if ours in tensors:
            raise TensorMismatchError(f"{path} holds variable {ours!r} twice; expected each layer once")
        tensors[ours] = replace(tensor, name=ours)
    return tensors


def read_keras2(path: Path, raw: Tensors, attributes: dict, root: str) -> Tensors:
    """The tensors of a file that bert4keras (Keras 2) wrote, by our variable paths; others by their path in the file.

    The names of variables there depend on the Keras version, their order inside a layer does not.
    Raises: CorruptFileError, UnknownFormatError for the file of a TensorFlow class of transformers.
    """
    tensors: Tensors = {}
    for layer in attributes[root]["layer_names"]:
        group = f"{root}/{layer}".strip("/")
        written = [f"{group}/{name}" for name in attributes.get(group, {}).get("weight_names", ())]
        names = next((names for pattern, names in KERAS2 if re.fullmatch(pattern, layer)), ())
        for i, name in enumerate(written):
            if name not in raw:
                raise CorruptFileError(f"dataset {name!r} is listed but missing; the file is damaged")
            known = len(names) == len(written)
            ours = f"{layer}/{names[i]}" if known else name
            if re.match(r"[^/]+/tf_\w+/", name.removeprefix(root).lstrip("/")):
                raise UnknownFormatError(f"{path}: this is {kind_of('tf_model.h5')}")
            tensors[ours] = replace(raw[name], name=ours)
    return tensors


def variable_path(name: str, attributes: dict) -> str:
    """Our path of a dataset, "layers/multi_head_attention/query_dense/vars/0" say; its own path if it is not ours."""
    match = re.fullmatch(r"(.*layers/[^/]+)((?:/[^/]+)*)/vars/(\d+)", name)
    if not match:
        return name
    layer_group, inner, index = match[1], match[2], int(match[3])
    layer = attributes.get(f"{layer_group}/vars", {}).get("name", "")
    found = layer_class(layer) if isinstance(layer, str) else None
    if not found:
        return name
    path, names = [layer], found[1]
    if inner:
        sublayer = attributes.get(f"{layer_group}{inner}/vars", {}).get("name", "")
        path, names = [layer, str(sublayer)], DENSE
    return "/".join([*path, names[index]]) if index < len(names) else name


def write_keras_h5(path: Path, tensors: Iterable[LazyTensor]) -> None:
    """Writes tensors named by our variable paths, in order of the graph, as `model.save_weights` does."""
    from bert4x.checkpoints.formats.hdf5 import write_hdf5

    counts, groups, attributes, renamed = Counter(), {}, {}, []
    for tensor in tensors:
        layer, *inner, variable = tensor.name.split("/")
        keras_class, names = layer_class(layer)
        if layer not in groups:
            number = counts[keras_class]
            counts[keras_class] += 1
            groups[layer] = f"layers/{keras_class}" + (f"_{number}" if number else "")
            attributes[f"{groups[layer]}/vars"] = {"name": layer}
        group = groups[layer]
        if inner:
            group, names = f"{group}/{inner[0]}_dense", DENSE
            attributes[f"{group}/vars"] = {"name": inner[0]}
        renamed.append(replace(tensor, name=f"{group}/vars/{names.index(variable)}"))
    write_hdf5(path, renamed, attributes)
