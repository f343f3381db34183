"""Weight files that bert4keras wrote under Keras 2."""

import json
import re

import h5py
import numpy as np
import pytest

from bert4x.checkpoints.detect import open_checkpoint
from bert4x.errors import CorruptFileError
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


@pytest.mark.parametrize("root", ["", "model_weights"], ids=["save_weights", "model.save"])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_files_of_bert4keras(tmp_path, family, root):
    config = tiny_config(family)
    weights = random_weights(config, seed=1)
    published = {key: value for key, value in config.items() if key != "model"}
    (tmp_path / "bert_config.json").write_text(json.dumps(published), encoding="utf-8")
    write_keras2(tmp_path / "best_model.h5", weights, root)

    checkpoint = open_checkpoint(tmp_path)

    assert checkpoint.config.model == family
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
