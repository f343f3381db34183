"""What the graph in a whole model of Keras 2, bert4keras' `model.save`, says of the model; for want of a config file.

The attribute `model_config` of such a file lists the layers with their settings; bert4keras' layers have the names of
ours, and say sizes, heads, activations and epsilons.
"""

import re
from pathlib import Path
from typing import Any

from bert4x.checkpoints.formats.hdf5 import read_hdf5_attributes
from bert4x.errors import CorruptFileError
from bert4x.json_files import parse_json

ATTENTION, FFN = r"Transformer-(?:\d+-)?MultiHeadSelfAttention", r"Transformer-(?:\d+-)?FeedForward"
# Names of layers, and of each: a setting -> how config files spell it.
SAID: tuple[tuple[str, dict[str, str]], ...] = (
    ("Embedding-Token", {"input_dim": "vocab_size", "output_dim": "embedding_size"}),
    ("Embedding-Segment", {"input_dim": "type_vocab_size"}),
    ("Embedding-Position", {"input_dim": "max_position_embeddings", "hierarchical": "hierarchical_position"}),
    ("Embedding-Dropout", {"rate": "hidden_dropout_prob"}),
    (
        ATTENTION,
        {"out_dim": "hidden_size", "heads": "num_attention_heads", "head_size": "attention_head_size"}
        | {"key_size": "attention_key_size", "attention_dropout": "attention_probs_dropout_prob"},
    ),
    (rf"{ATTENTION}-Norm", {"epsilon": "layer_norm_eps"}),
    (FFN, {"units": "intermediate_size", "activation": "hidden_act"}),
)
POSITIONS = {"RelativePositionEmbedding": "nezha", "SinusoidalPositionEmbedding": "roformer"}  # classes -> families


def said_by_graph(path: Path) -> dict[str, Any] | None:
    """What a config file would say, by the graph in a file; None where there is none, or one of another kind of model.

    Raises: CorruptFileError for a graph that is damaged, or whose layers contradict each other.
    """
    text = read_hdf5_attributes(path).get("", {}).get("model_config")
    if not isinstance(text, str):
        return None
    where = f"{path}: model_config"
    layers, said = settings(parse_json(text.encode("utf-8", "surrogatepass"), where), where), {}
    for name, settings_of in layers.items():
        for pattern, keys in SAID:
            if re.fullmatch(pattern, name):
                for setting, key in keys.items():
                    value = plain(settings_of.get(setting))
                    if value is not None and said.setdefault(key, value) != value:
                        raise CorruptFileError(f"{where}: {name} says {key} = {value!r}, another layer {said[key]!r}")
    if not {"vocab_size", "hidden_size", "num_attention_heads"} <= said.keys():
        return None
    numbers = [int(match[1]) for name in layers if (match := re.match(r"Transformer-(\d{1,6})-", name))]
    shared = sum(of.get("called", 1) for name, of in layers.items() if re.fullmatch(ATTENTION, name))
    said["num_hidden_layers"] = 1 + max(numbers) if numbers else shared
    kinds = {POSITIONS[of["class"]] for of in layers.values() if of["class"] in POSITIONS}
    said |= {"model_type": next(iter(kinds))} if len(kinds) == 1 else {}
    return without_embedding_size(said) if said.get("embedding_size") == said["hidden_size"] else said


def settings(graph: dict, where: str) -> dict[str, dict]:
    """The settings of the layers by name, with their class, and how often each is called. Raises: CorruptFileError"""
    inside = graph.get("config")
    listed = inside.get("layers") if isinstance(inside, dict) else None
    found = {}
    for layer in listed if isinstance(listed, list) else []:
        config = layer.get("config") if isinstance(layer, dict) else None
        if not isinstance(config, dict) or not isinstance(config.get("name"), str):
            raise CorruptFileError(f"{where}: a layer without name and settings; damaged")
        calls = layer.get("inbound_nodes")
        count = len(calls) if isinstance(calls, list) else 1
        found[config["name"]] = config | {"class": str(layer.get("class_name")), "called": count}
    return found


def plain(value):
    """A setting as config files have it: activations by name, of several the first; None for what is not said."""
    while isinstance(value, list | dict):
        value = (value or [None])[0] if isinstance(value, list) else value.get("config")
    return value


def without_embedding_size(said: dict) -> dict:
    """The same, as the config of a model whose embeddings are as wide as the rest says it."""
    return {key: value for key, value in said.items() if key != "embedding_size"}
