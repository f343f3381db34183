"""The families that bert4keras has beside BERT: against what bert4keras itself computed (tests/golden/bert4keras), and
in every layout."""

import json
from pathlib import Path

import numpy as np
import pytest

import bert4x
from bert4x import testing
from bert4x.checkpoints.opening import open_checkpoint

GOLDEN = Path(__file__).parent / "golden" / "bert4keras"
OPTIONS = {  # what bert4keras' own defaults are
    "electra": {"with_discriminator": "linear"},
    "gau": {"with_mlm": "linear"},
    "gpt": {"with_mlm": "linear", "hidden_act": "gelu_erf", "layer_norm_eps": 1e-12},
    "gpt2_ml": {"with_mlm": "linear"},
    "roformer_v2": {"with_mlm": "linear"},
}


@pytest.mark.parametrize("family", OPTIONS)
def test_weights_of_bert4keras_give_its_outputs(family, tmp_path):
    """Its .h5 file is opened by its config, and computes what it did; as a TensorFlow checkpoint it has its names."""
    golden = json.loads((GOLDEN / f"{family}.json").read_text())
    source = GOLDEN / f"{family}.h5"
    (tmp_path / "config.json").write_text(json.dumps(golden["config"]))
    model = bert4x.build_transformer_model(tmp_path / "config.json", source, model=family, **OPTIONS[family])
    inputs = {name: np.array(golden[name]) for name in ("token_ids", "segment_ids")}
    real = inputs["token_ids"] > 0
    found, expected = testing.arrays_of(model(inputs))[0], np.array(golden["outputs"])
    assert np.abs(found - expected)[real].max() <= 2e-5
    bert4x.save(model, tmp_path / "tf1", "tf1")
    written = {name: list(tensor.shape) for name, tensor in open_checkpoint(tmp_path / "tf1").tensors.items()}
    assert written == golden["names"]


@pytest.mark.parametrize("family", OPTIONS)
def test_family(family):
    fields = {"segment_vocab_size": 0} if family == "gpt" else {}  # of which PyTorch's layout has no table
    testing.check_family(family, **fields)
