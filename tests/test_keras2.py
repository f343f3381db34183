"""Weight files that bert4keras wrote under Keras 2."""

import json
import re

import h5py
import numpy as np
import pytest

from bert4x import convert
from bert4x.checkpoints.formats.tf1_bundle import read_tf1
from bert4x.checkpoints.formats.tf2_objects import read_objects
from bert4x.checkpoints.keras_names import by_paths
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.errors import Bert4xError, CorruptFileError, UnknownFormatError
from tests.random_models import random_weights, tiny_config

# Keras 2 creates the variables of a layer in this order and numbers their names as it likes.
DENSE = ("kernel", "bias")
ORDER = {
    r".*-MultiHeadSelfAttention": [f"{p}/{n}" for p in ("query", "key", "value", "output") for n in DENSE],
    r".*-FeedForward": [f"{p}/{n}" for p in ("intermediate", "output") for n in DENSE],
    r".*-Norm": ["beta", "gamma"],
    r"Embedding-(Token|Segment|Position)": ["embeddings"],
    r"MLM-Bias": ["bias"],
    r".*": list(DENSE),
}


def graph_of(config) -> dict:
    """What Keras 2 writes of the layers of bert4keras' model of a config, as far as it matters."""
    size, heads = config["hidden_size"], config["num_attention_heads"]
    width = {"output_dim": config["embedding_size"]}
    layers = {
        "Embedding-Token": {"input_dim": config["vocab_size"]} | width,
        "Embedding-Segment": {"input_dim": 2} | width,
        "Embedding-Position": {"input_dim": config["max_position"], "hierarchical": None} | width,
        "Embedding-Norm": {"epsilon": 0.5},
    }
    for i in range(config["num_hidden_layers"]):
        name = "Transformer" if config["model"] == "albert" else f"Transformer-{i}"
        attention = {"heads": heads, "head_size": size // heads, "key_size": size // heads, "out_dim": size}
        activation = {"class_name": "function", "config": config["hidden_act"]}
        layers |= {
            f"{name}-MultiHeadSelfAttention": attention | {"attention_dropout": 0.1},
            f"{name}-MultiHeadSelfAttention-Norm": {"epsilon": config["layer_norm_eps"]},
            f"{name}-FeedForward": {"units": config["intermediate_size"], "activation": [activation]},
        }
    calls = [[]] * (config["num_hidden_layers"] if config["model"] == "albert" else 1)
    listed = [{"class_name": "X", "config": {"name": n} | of, "inbound_nodes": calls} for n, of in layers.items()]
    return {"class_name": "Functional", "config": {"layers": listed}}


def write_keras2(path, weights, root=""):
    layers = list(dict.fromkeys(name.split("/")[0] for name in weights))
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = [layer.encode() for layer in ["Input-Token", *layers]]
        top.create_group("Input-Token").attrs["weight_names"] = np.array([], dtype="S1")
        for layer in layers:
            group, written = top.create_group(layer), []
            order = next(names for pattern, names in ORDER.items() if re.fullmatch(pattern, layer))
            for i, name in enumerate(order):
                written.append(f"{layer}/variable_{i}:0".encode())
                group.create_dataset(written[-1].decode(), data=weights[f"{layer}/{name}"])
            group.attrs["weight_names"] = written


@pytest.mark.parametrize("root", ["", "model_weights", "alone"], ids=["save_weights", "model.save", "no config"])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_files_of_bert4keras(tmp_path, family, root):
    config = tiny_config(family)
    weights = random_weights(config, seed=1)
    published = {key: value for key, value in config.items() if key != "model"}
    write_keras2(tmp_path / "best_model.h5", weights, root.replace("alone", "model_weights"))
    if root == "alone":  # the graph in the file says what a config would
        with h5py.File(tmp_path / "best_model.h5", "a") as file:
            file.attrs["model_config"] = json.dumps(graph_of(config))
    else:
        (tmp_path / "bert_config.json").write_text(json.dumps(published), encoding="utf-8")

    checkpoint = open_checkpoint(tmp_path)

    assert checkpoint.config.model == family
    assert {name: getattr(checkpoint.config, name) for name in config} == config
    assert not checkpoint.report.problems
    assert set(checkpoint.variables) == set(weights)
    for path, values in weights.items():
        assert np.array_equal(checkpoint.read(path), values), path


def test_a_listed_dataset_that_is_gone(tmp_path):
    weights = random_weights(tiny_config("bert"), seed=1)
    write_keras2(tmp_path / "best_model.h5", weights)
    with h5py.File(tmp_path / "best_model.h5", "a") as file:
        del file["MLM-Bias/MLM-Bias/variable_0:0"]
    (tmp_path / "bert_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CorruptFileError, match="MLM-Bias"):
        open_checkpoint(tmp_path)


INNER = {"query": "q_dense", "key": "k_dense", "value": "v_dense", "output": "o_dense", "intermediate": "i0_dense"}


def write_objects(prefix, weights, inner=INNER, root=""):
    """What tf.keras' `save_weights` writes of bert4keras' model: places in a graph of objects, and full names."""
    import tensorflow as tf

    top, layers = tf.Module(), {}
    for path, values in weights.items():
        layer, *sublayer, name = path.split("/")
        if layer not in layers:
            layers[layer] = tf.Module()
            setattr(top, f"layer_with_weights-{len(layers) - 1}", layers[layer])
        place = layers[layer]
        if sublayer:
            place_name = inner[sublayer[0]]
            if not hasattr(place, place_name):
                setattr(place, place_name, tf.Module())
            place = getattr(place, place_name)
        setattr(place, name, tf.Variable(values, name=f"{layer}/{name}"))
    if root:
        outer = tf.Module()
        setattr(outer, root, top)
        top = outer
    tf.train.Checkpoint(top).write(str(prefix))


@pytest.mark.parametrize("root", ["", "model"])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_object_based_checkpoints_of_bert4keras(tmp_path, family, root):
    """TF_KERAS=1: the layers inside layers are named by attribute, all their variables alike."""
    config = tiny_config(family)
    weights = random_weights(config, seed=1)
    published = {key: value for key, value in config.items() if key != "model"}
    (tmp_path / "bert_config.json").write_text(json.dumps(published), encoding="utf-8")
    older = INNER | {"intermediate": "dense_1", "output": "dense_2"}
    write_objects(tmp_path / "best_model.weights", weights, root=root)

    for path in (tmp_path, tmp_path / "best_model.weights"):
        checkpoint = open_checkpoint(path)
        assert (checkpoint.config.model, checkpoint.format) == (family, "keras")
        assert not checkpoint.report.problems
        assert set(checkpoint.variables) == set(weights)
        for name, values in weights.items():
            assert np.array_equal(checkpoint.read(name), values), name
    target = convert(tmp_path, tmp_path / "hf", "hf")
    assert np.array_equal(open_checkpoint(target).read("MLM-Bias/bias"), weights["MLM-Bias/bias"])
    feed_forward = {path: values for path, values in weights.items() if "FeedForward/" in path or "Embedding-T" in path}
    write_objects(tmp_path / "older", feed_forward, older)
    found = by_paths(read_objects(tmp_path / "older", read_tf1(tmp_path / "older")), feed_forward, "older")
    assert set(feed_forward) <= set(found)


def test_object_based_checkpoints_of_others(tmp_path):
    import tensorflow as tf

    dense = tf.Module()
    dense.kernel = tf.Variable([1.0], name="encoder/dense/kernel")
    tf.train.Checkpoint(layer=dense).write(str(tmp_path / "m"))
    with pytest.raises(UnknownFormatError, match=r"TensorFlow 2.*bert4keras.*variables are .*encoder/dense/kernel"):
        open_checkpoint(tmp_path)


def test_damage_in_a_graph_of_objects(tmp_path):
    """The string that holds the names has a checksum of its own."""
    (tmp_path / "bert_config.json").write_text("{}", encoding="utf-8")
    write_objects(tmp_path / "m", {"Embedding-Token/embeddings": np.ones((3, 2), "f4")})
    data = next(tmp_path.glob("*.data*"))
    content = data.read_bytes()
    at = content.index(b"Embedding-Token")
    data.write_bytes(content[:at] + b"X" + content[at + 1 :])
    with pytest.raises(CorruptFileError, match="fails its checksum"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (('"output_dim"', '"unsaid"'), None),
        (("Transformer-1-", f"Transformer-{'9' * 5000}-"), None),
        (('"layers"', '"unsaid"'), "no config file"),
        (("{", "["), "model_config is not readable JSON"),
        (('"name"', '"unsaid"'), "a layer without name"),
    ],
)
def test_a_graph_that_is_damaged(tmp_path, damage, message):
    config = tiny_config("bert")
    write_keras2(tmp_path / "model.h5", random_weights(config), "model_weights")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["model_config"] = json.dumps(graph_of(config)).replace(*damage)
    if message is None:
        assert open_checkpoint(tmp_path).config.num_hidden_layers == config["num_hidden_layers"]
    else:
        with pytest.raises(Bert4xError, match=message):
            open_checkpoint(tmp_path)
