"""Our variables as files of Keras name them: by layer and number, in the order in which the layer creates them.

That order is the one in which a family lists its variables. bert4keras' layers are ours by name; under Keras 2 a norm
creates beta first, and under TensorFlow 2 the layers inside a layer are told by attribute.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from bert4x.checkpoints.tables import OWN_NAMES
from bert4x.checkpoints.tensors import LazyTensor, Tensors
from bert4x.errors import TensorMismatchError
from bert4x.families import family_of

# bert4keras' names of layers inside layers; older ones of the feed-forward network are numbered. Of a gated one
# `i0_dense` is the gate, and `i1_dense` the intermediate layer.
INNER = {"q_dense": "query", "k_dense": "key", "v_dense": "value", "o_dense": "output"}
INNER |= dict.fromkeys(("i0_dense", "i1_dense", "i_dense", "dense_1"), "intermediate") | {"dense_2": "output"}


def class_of(layer: str, model: str) -> str:
    """The class of a layer of a family's model, in the snake case of Keras' files."""
    name = next(name for pattern, name in family_of(model).layer_classes if re.fullmatch(pattern, layer))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def attribute_of(inner: str) -> str:
    """The attribute under which our layers hold layers."""
    return inner if inner.endswith("_norm") else f"{inner}_dense"


def words(tensors: Iterable[str]) -> set[str]:
    """What the names of tensors are made of, names of layers among them."""
    return {word for name in tensors for word in re.split(r"[/\[]", name.partition(" at ")[0])}


def are_ours(tensors: Iterable[str]) -> bool:
    """Whether tensors are named by our paths, or by Keras' numbers of our layers."""
    return "Embedding-Token" in words(tensors)


def by_paths(tensors: Tensors, paths: Iterable[str], where) -> Tensors:
    """The tensors of a file of Keras by our paths, others by theirs; the slots of an optimizer as `PATH/slot`.

    Raises: TensorMismatchError when a variable is there twice.
    """
    layers = by_layer(paths)
    known = {number: path for path, number in numbers(paths).items()} | keras2_places(layers)
    result: Tensors = {}
    for name, tensor in tensors.items():
        name, _, slot = name.partition(" slot ")
        place, _, theirs = name.partition(" at ")
        unknown = place if re.match(OWN_NAMES, place) else theirs or place  # a layer too many is not one of a head
        path = known.get(place) or of_object(place, theirs, layers) or unknown
        path = f"{path}/{slot}" if slot else path
        if path in result:
            raise TensorMismatchError(f"{where} holds variable {path!r} twice; expected each layer once")
        result[path] = replace(tensor, name=path)
    return result


def numbered(tensors: Iterable[LazyTensor]) -> Iterator[LazyTensor]:
    """Tensors named by our paths by layer and number."""
    tensors = list(tensors)
    names = numbers(tensor.name for tensor in tensors)
    return (replace(tensor, name=names[tensor.name]) for tensor in tensors)


def numbers(paths: Iterable[str]) -> dict[str, str]:
    """Our paths -> "LAYER/NUMBER" or "LAYER/INNER/NUMBER"."""
    counts, found = Counter(), {}
    for path in paths:
        group = path.rpartition("/")[0]
        found[path] = f"{group}/{counts[group]}"
        counts[group] += 1
    return found


def by_layer(paths: Iterable[str]) -> dict[str, list[str]]:
    """Layers -> the names of their variables, in order."""
    layers: dict[str, list[str]] = {}
    for path in paths:
        layer, _, rest = path.partition("/")
        layers.setdefault(layer, []).append(rest)
    return layers


def keras2_places(layers: dict[str, list[str]]) -> dict[str, str]:
    """Places in a file of bert4keras under Keras 2, "LAYER[1/8]" -> our paths."""
    found = {}
    for layer, names in layers.items():
        ordered = names[::-1] if set(names) == {"gamma", "beta"} else names
        found |= {f"{layer}[{i}/{len(names)}]": f"{layer}/{name}" for i, name in enumerate(ordered)}
    return found


def of_object(full_name: str, place: str, layers: dict[str, list[str]]) -> str | None:
    """Our path of a variable of bert4keras by its full name and its place in the graph of objects; None for another."""
    *_, inner, variable = ("", *place.split("/"))
    if not variable or variable.isdigit():  # of an HDF5 file, where `numbers` and `keras2_places` tell all
        return None
    for layer in full_name.split("/")[:-1]:
        names = layers.get(layer, [])
        inside = "gate" if inner == "i0_dense" and f"gate/{variable}" in names else INNER.get(inner)
        name = f"{inside}/{variable}" if inside else variable
        name = names[0] if len(names) == 1 else name
        if name in names:
            return f"{layer}/{name}"
    return None
