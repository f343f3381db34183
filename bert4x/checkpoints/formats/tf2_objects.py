"""TensorFlow 2's object-based checkpoints, which tf.keras' `save_weights` writes where the name ends in no `.h5`:
what bert4keras saves under TF_KERAS=1.

The tensors are named by their place in the graph of objects ("layer_with_weights-4/q_dense/kernel/.ATTRIBUTES/...").
The name of the layer is in the graph itself, a `TrackableObjectGraph` message (tensorflow/core/protobuf/
trackable_object_graph.proto) that the checkpoint holds as a string: it has the full name of every variable.
"""

import re
from dataclasses import replace
from pathlib import Path

from bert4x.checkpoints.formats.keras_h5 import KERAS2
from bert4x.checkpoints.formats.protobuf import fields, messages
from bert4x.checkpoints.formats.regions import naming
from bert4x.checkpoints.formats.tf1_bundle import read_tf_string
from bert4x.checkpoints.tensors import Tensors
from bert4x.errors import TensorMismatchError, UnknownFormatError

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = "/.OPTIMIZER_SLOT/"
# bert4keras' layers inside its layers; the older names of the feed-forward network's are numbered.
PARTS = {
    "MultiHeadSelfAttention": {"q_dense": "query", "k_dense": "key", "v_dense": "value", "o_dense": "output"},
    "FeedForward": {"i0_dense": "intermediate", "i_dense": "intermediate", "dense_1": "intermediate"}
    | {"o_dense": "output", "dense_2": "output"},
}


def is_object_based(tensors: Tensors) -> bool:
    """Whether the names in a TensorFlow checkpoint are places in a graph of objects."""
    return any(name.endswith(VALUE) for name in tensors)


def read_objects(prefix: Path, tensors: Tensors) -> Tensors:
    """The tensors of an object-based checkpoint by our variable paths; slots of an optimizer as `PATH/slot`, others
    by the names they have there.

    Raises: UnknownFormatError where no layer is one of bert4keras', CorruptFileError, TensorMismatchError.
    """
    with naming(Path(f"{prefix}.index")):
        names = full_names(read_tf_string(prefix, GRAPH) or b"")
    result: Tensors = {}
    for key, tensor in tensors.items():
        place, _, slot = key.removesuffix(VALUE).partition(SLOT)
        path = variable_path(place, names.get(place + VALUE, "")) or place
        path = f"{path}/{slot.rpartition('/')[2]}" if slot else path
        if path in result:
            raise TensorMismatchError(f"{prefix} holds variable {path!r} twice; expected each layer once")
        result[path] = replace(tensor, name=path)
    if "Embedding-Token/embeddings" not in result:
        shown = sorted({name for name in names.values() if name})[:6] or sorted(tensors)[:6]
        raise UnknownFormatError(
            f"{prefix}: an object-based checkpoint of TensorFlow 2, but not of a model of bert4keras, whose layers are "
            f"named Embedding-Token ...; its variables are {', '.join(shown)} ... Load it with the code that wrote it, "
            "and save it in Hugging Face's layout or as a TensorFlow 1 checkpoint"
        )
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


def variable_path(place: str, full_name: str) -> str | None:
    """Our path of a variable at a place in the graph; None where its layer is none of ours."""
    for layer in full_name.split(":")[0].split("/")[:-1]:
        names = next((names for pattern, names in KERAS2 if re.fullmatch(pattern, layer)), None)
        if names is None:
            continue
        kind = layer.rpartition("-")[2]
        *_, inner, variable = ("", *place.split("/"))
        if kind not in PARTS and (len(names) == 1 or variable in names):
            return f"{layer}/{names[0] if len(names) == 1 else variable}"
        if inner in PARTS.get(kind, ()):
            return f"{layer}/{PARTS[kind][inner]}/{variable}"
    return None
