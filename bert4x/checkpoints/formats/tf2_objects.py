"""TensorFlow 2's object-based checkpoints, which tf.keras' `save_weights` writes where the name ends in no `.h5`.

The tensors are named by their place in the graph of objects ("layer_with_weights-4/q_dense/kernel/.ATTRIBUTES/...").
The name of the layer is in the graph itself, a `TrackableObjectGraph` message (tensorflow/core/protobuf/
trackable_object_graph.proto) that the checkpoint holds as a string: it has the full name of every variable.
"""

from dataclasses import replace
from pathlib import Path

from bert4x.checkpoints.formats.protobuf import fields, messages
from bert4x.checkpoints.formats.regions import naming
from bert4x.checkpoints.formats.tf1_bundle import read_tf_string
from bert4x.checkpoints.tensors import Tensors

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = "/.OPTIMIZER_SLOT/"


def is_object_based(tensors: Tensors) -> bool:
    """Whether the names in a TensorFlow checkpoint are places in a graph of objects."""
    return any(name.endswith(VALUE) for name in tensors)


def read_objects(prefix: Path, tensors: Tensors) -> Tensors:
    """The tensors of an object-based checkpoint, named "FULL NAME at PLACE"; an optimizer's slots add " slot NAME".

    Raises: CorruptFileError
    """
    with naming(Path(f"{prefix}.index")):
        names = full_names(read_tf_string(prefix, GRAPH) or b"")
    result: Tensors = {}
    for key, tensor in tensors.items():
        place, _, slot = key.removesuffix(VALUE).partition(SLOT)
        full = names.get(place + VALUE, "").split(":")[0]
        name = (f"{full} at {place}" if full else place) + (f" slot {slot.rpartition('/')[2]}" if slot else "")
        result[name] = replace(tensor, name=name)
    return result


def full_names(graph: bytes) -> dict[str, str]:
    """Key in the checkpoint -> full name of the variable, of all objects of a graph.

    Raises: CorruptFileError
    """
    found = {}
    for node in messages(graph, 1):
        for attribute in messages(node, 2):
            values = dict(fields(attribute))
            name, key = (values.get(number, b"") for number in (2, 3))
            if isinstance(name, bytes) and isinstance(key, bytes):
                found[key.decode("utf-8", "replace")] = name.decode("utf-8", "replace")
    return found
