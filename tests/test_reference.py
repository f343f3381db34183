"""The NumPy oracles themselves, against `transformers` and against outputs of the original authors' code."""

import json
from pathlib import Path

import numpy as np
import pytest
import transformers_models
from random_models import random_inputs, random_weights, tiny_config
from reference import bert, gpt2, parts
from reference.foreign import from_hf_albert, from_hf_bert, from_hf_gpt2, read_megatron, read_tf1_bert

CHECKPOINTS = Path(__file__).parents[2] / "shared" / "data" / "checkpoints"


def close(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=tolerance)


def folder(name):
    if not (CHECKPOINTS / name).is_dir():
        pytest.skip(f"the reference checkpoint {name} is not beside this checkout")
    return CHECKPOINTS / name


def compare(ours, theirs, real, tolerance=1e-5):
    """Every output they share; those of one row a token only at the real tokens."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        at = real if expected.shape[:2] == real.shape else ...
        close(ours[name][at], expected[at], tolerance)


@pytest.mark.parametrize("act", ["gelu_erf", "gelu_tanh", "relu"])
def test_bert_against_transformers(act):
    config = tiny_config("bert", hidden_act=act)
    theirs = transformers_models.random_model(config).double()
    weights = from_hf_bert(transformers_models.tensors(theirs), config["num_hidden_layers"])
    inputs = random_inputs(config)
    ours = bert.forward(weights, config, **inputs)
    compare(ours, transformers_models.outputs(theirs, inputs), inputs["padding_mask"])
    by_pad_id = bert.forward(weights, config, inputs["token_ids"], inputs["segment_ids"])
    assert all(np.array_equal(by_pad_id[name], ours[name]) for name in ours)


def test_albert_against_transformers():
    config = tiny_config("albert", hidden_act="gelu_tanh")
    theirs = transformers_models.random_model(config).double()
    weights = from_hf_albert(transformers_models.tensors(theirs))
    inputs = random_inputs(config)
    ours = bert.forward(weights, config, **inputs)
    compare(ours, transformers_models.outputs(theirs, inputs), inputs["padding_mask"])

    unshared = {}
    for path, tensor in weights.items():
        copies = [path.replace("Transformer-", f"Transformer-{i}-") for i in range(config["num_hidden_layers"])]
        unshared |= dict.fromkeys(copies if path.startswith("Transformer-") else [path], tensor)
    assert np.array_equal(bert.forward(unshared, config, **inputs)["mlm_logits"], ours["mlm_logits"])


def test_gpt2_against_transformers():
    config = tiny_config("gpt2")
    theirs = transformers_models.random_model(config).double()
    weights = from_hf_gpt2(transformers_models.tensors(theirs), config["num_hidden_layers"])
    inputs = random_inputs(config)
    ours = gpt2.forward(weights, config, **inputs)
    compare(ours, transformers_models.outputs(theirs, inputs), inputs["padding_mask"])


def test_bert_against_published_tf1_checkpoint():
    path = folder("bert_tf1_toy")
    config = json.loads((path / "bert_config.json").read_text())
    pytest.importorskip("tensorflow", reason="reads a TensorFlow checkpoint")
    weights = read_tf1_bert(path / "bert_model.ckpt", config["num_hidden_layers"])
    config |= {"hidden_act": "gelu_erf", "layer_norm_eps": 1e-12, "pad_token_id": 0}
    expected = np.load(path / "reference.npz")
    ours = bert.forward(weights, config, expected["input_ids"])
    close(ours["hidden"], expected["last_hidden"], 1e-6)
    close(ours["mlm_logits"], expected["mlm_logits"], 1e-7)
    close(ours["nsp_logits"], expected["nsp_logits"], 1e-9)


@pytest.mark.parametrize("name", ["cpm_1shard_fp32_zip", "cpm_2shards_fp16_zip", "cpm_2shards_fp16_legacy"])
def test_gpt2_against_cpm(name):
    path = folder(name)
    torch = pytest.importorskip("torch", reason="reads PyTorch files")
    config = json.loads((path / "config.json").read_text())
    files = sorted((path / "80000").glob("mp_rank_*.pt"))
    shards = [torch.load(file, map_location="cpu", weights_only=False)["module"] for file in files]
    weights = read_megatron(shards, config["num_hidden_layers"])
    # config.json says "gelu"; the authors' code takes the tanh form, eps 1e-5, and does not mask the pad id
    config |= {"hidden_act": "gelu_tanh", "layer_norm_eps": 1e-5, "pad_token_id": None}
    expected = np.load(path / "reference.npz")
    close(gpt2.forward(weights, config, expected["input_ids"])["lm_logits"], expected["logits"])
    config["hidden_act"] = "gelu_erf"
    erf = gpt2.forward(weights, config, expected["input_ids"])["lm_logits"]
    assert np.abs(erf - expected["logits"]).max() > 1e-4


def causal_reach(forward, config, application):
    """(T, T) bools of one sequence of 4 source and 5 target tokens: does output q change when token k does?"""
    config = config | {"pad_token_id": None}
    weights = random_weights(config)
    ids = random_inputs(config, batch=1, length=9)["token_ids"]
    segments = np.array([[0] * 4 + [1] * 5])
    before = forward(weights, config, ids, segments, application=application)["hidden"]
    reach = np.zeros((9, 9), bool)
    for k in range(9):
        changed = ids.copy()
        changed[0, k] = (changed[0, k] + 1) % config["vocab_size"]
        after = forward(weights, config, changed, segments, application=application)["hidden"]
        reach[:, k] = np.abs(after - before).max(-1)[0] > 0
    return reach


@pytest.mark.parametrize(("forward", "model"), [(bert.forward, "bert"), (gpt2.forward, "gpt2")])
def test_who_sees_whom(forward, model):
    config = tiny_config(model)
    past = np.tri(9, dtype=bool)
    source = np.zeros((9, 9), bool)
    source[:, :4] = True
    assert causal_reach(forward, config, "encoder").all()
    assert np.array_equal(causal_reach(forward, config, "lm"), past)
    assert np.array_equal(causal_reach(forward, config, "unilm"), past | source)


def test_padding_is_never_seen():
    config = tiny_config("bert")
    weights, inputs = random_weights(config), random_inputs(config, batch=2, length=9)
    alone = {name: x[1:, : inputs["padding_mask"][1].sum()] for name, x in inputs.items()}
    for application in ("encoder", "lm", "unilm"):
        padded = bert.forward(weights, config, **inputs, application=application)["hidden"]
        single = bert.forward(weights, config, **alone, application=application)["hidden"]
        close(padded[1:, : single.shape[1]], single, 1e-12)


def test_hierarchical_positions_extend_the_table():
    table = np.random.default_rng(0).standard_normal((7, 3))
    extended = parts.position_vectors(table, np.arange(49), 0.4)
    close(extended[:7], table, 1e-15)
    u = (table - 0.4 * table[0]) / 0.6
    close(extended[7 * 5 + 3], 0.4 * u[5] + 0.6 * u[3], 1e-15)


def test_residual_attention_adds_the_scores_of_the_layers_before():
    config = tiny_config("bert")
    weights, inputs = random_weights(config), random_inputs(config)
    x, previous = (np.random.default_rng(0).standard_normal(shape) for shape in ((3, 13, 35), (3, 5, 13, 13)))
    rest = (config, "encoder", inputs["segment_ids"], inputs["padding_mask"])
    path = "Transformer-1-MultiHeadSelfAttention"
    plain, scores = parts.attention(parts.Weights(weights), path, x, *rest, None)
    mixed, summed = parts.attention(parts.Weights(weights), path, x, *rest, previous)
    close(summed, scores + previous, 1e-12)
    assert np.abs(mixed - plain).max() > 1e-2
    residual = bert.forward(weights, config | {"residual_attention_scores": True}, **inputs)["hidden"]
    assert np.abs(residual - bert.forward(weights, config, **inputs)["hidden"]).max() > 1e-2


def test_condition_shifts_gamma_and_beta():
    config = tiny_config("bert")
    weights = random_weights(config, condition_size=4)
    inputs = random_inputs(config)
    condition = np.tile(np.random.default_rng(2).standard_normal(4), (3, 1))
    shifted = {}
    for path, tensor in weights.items():
        name, _, part = path.rpartition("/")
        dense = f"{name}/{part}_dense/kernel"
        shifted[path] = tensor + condition[0] @ weights[dense] if dense in weights else tensor
    for key, expected in bert.forward(shifted, config, **inputs).items():
        close(bert.forward(weights, config, **inputs, condition=condition)[key], expected, 1e-5)
    per_token = np.repeat(condition[:, None], inputs["token_ids"].shape[1], axis=1)
    whole, each = (bert.forward(weights, config, **inputs, condition=c)["hidden"] for c in (condition, per_token))
    close(each, whole, 1e-12)


def test_key_and_head_sizes_are_free():
    config = tiny_config("bert", hidden_size=31, attention_head_size=6, attention_key_size=4, segment_vocab_size=0)
    outputs = bert.forward(random_weights(config), config, **random_inputs(config))
    assert outputs["hidden"].shape == (3, 13, 31)
    assert outputs["mlm_logits"].shape == (3, 13, 97)
