"""RoFormer against transformers; RoFormer and NEZHA in every layout. In TensorFlow's they have the same names."""

import json

import keras
import numpy as np
import pytest
from make_checkpoints import assert_same_bits, config_of, draw, read_all, write_checkpoint
from random_models import random_inputs

import bert4x
from bert4x import testing
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.errors import ConfigError, UnknownFormatError


def test_roformer(tmp_path):
    """There and back: the same logits at all real tokens."""
    torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 30, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 37}
    config = transformers.RoFormerConfig(vocab_size=97, embedding_size=11, max_position_embeddings=40, **sizes)
    theirs = transformers.RoFormerForMaskedLM(config).eval()
    for parameter in (x for x in theirs.parameters() if x.requires_grad):  # not the sines and cosines
        parameter.data.normal_(0, 0.2)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = bert4x.load(tmp_path / "theirs", with_mlm=True)
    inputs = random_inputs({"vocab_size": 97, "pad_token_id": 0})
    bert4x.save(ours, tmp_path / "ours", "hf")
    back = transformers.RoFormerForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    ids, segments, mask = (torch.tensor(x).long() for x in inputs.values())
    with torch.no_grad():
        expected, again = (model(ids, mask, segments).logits.numpy() for model in (theirs, back))
    assert np.array_equal(again, expected)
    found, real = testing.arrays_of(ours(inputs))[0], inputs["padding_mask"]
    np.testing.assert_allclose(found[real], expected[real], rtol=0, atol=2e-5)


def test_the_linear_pooler_of_roformer_sim(tmp_path):
    """Its config says it; its pooler is outside of what transformers' RoFormer has."""
    folder = write_checkpoint(tmp_path, "hf", config_of("roformer"))
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"pooler_activation": "linear"}))
    inputs = random_inputs({"vocab_size": 97, "pad_token_id": 0})
    by_config, by_name = (bert4x.load(folder, with_pool=pool)(inputs) for pool in (True, "linear"))
    assert testing.difference(by_config, by_name) == 0 < testing.difference(by_config, keras.ops.tanh(by_config))


@pytest.mark.parametrize("model", ["roformer", "nezha"])
def test_every_layout_and_the_names_they_share(tmp_path, model):
    weights = draw(config_of(model))
    for format in ("keras", "bert4x", "hf", "tf1"):
        folder = write_checkpoint(tmp_path / format, format, config_of(model), weights)
        assert_same_bits(read_all(folder), weights)
        assert open_checkpoint(folder).config.replace(extra={}) == config_of(model)
    data = json.loads((folder / "bert_config.json").read_text())
    for label in ("model_type", "use_relative_position"):
        data.pop(label, None)
    (folder / "bert_config.json").write_text(json.dumps(data))
    with pytest.raises(UnknownFormatError, match="the names of nezha and of roformer, and no config says which"):
        open_checkpoint(folder)
    assert open_checkpoint(folder, model=model).config.model == model
    (folder / "bert_config.json").write_text(json.dumps(data | {"max_relative_position": -1}))
    with pytest.raises(ConfigError, match="max_relative_position = -1"):
        open_checkpoint(folder, model="nezha")
