"""int8 weights: what is computed is exact in the quantized weights, which are as close as eight bits can be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
from battery import array, close, given, variables_of
from generation_models import uncached
from make_checkpoints import config_of, draw, write_checkpoint
from random_models import random_inputs, tiny_config
from reference import bert, gpt2

import bert4x
from bert4x import testing
from bert4x.checkpoints.convert import save
from bert4x.errors import ConfigError, ConversionError
from bert4x.families import family_of
from bert4x.layers import quantized

FAMILIES = {
    "bert": (bert.forward, {"with_pool": "linear"}),
    "albert": (bert.forward, {}),
    "gpt2": (gpt2.forward, {}),
}


def is_matrix(path: str) -> bool:
    return path.endswith("/kernel") or path in ("Embedding-Token/embeddings", "Embedding-Segment/embeddings")


def rounded(path: str, values: np.ndarray) -> np.ndarray:
    """A weight as int8 keeps it, in float64; one scale for each output of a kernel, each row of a table."""
    if not is_matrix(path):
        return values
    scale = np.abs(values).max(axis=0 if path.endswith("/kernel") else 1, keepdims=True).astype("float32") / 127
    nearest = scale.astype(ml_dtypes.bfloat16)
    upwards = np.where(nearest < scale, np.nextafter(nearest, ml_dtypes.bfloat16(np.inf)), nearest).astype("float64")
    return np.rint(values / upwards) * upwards


def logits_of(family, weights, config, inputs):
    forward, _ = FAMILIES[family]
    described = tiny_config(family) | {name: value for name, value in config.to_dict().items() if name != "extra"}
    known = {name: inputs[name] for name in ("token_ids", "segment_ids", "padding_mask") if name in inputs}
    outputs = forward(weights, described, **known, application="lm")
    return outputs["lm_logits" if family == "gpt2" else "mlm_logits"]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_oracle_on_rounded_weights(family, tmp_path, monkeypatch):
    """In blocks of a few rows, of which the last overlaps the one before, and in one."""
    config = config_of(family)
    weights = draw(config)
    write_checkpoint(tmp_path, "bert4x", config, weights)
    inputs = random_inputs(tiny_config(family, vocab_size=config.vocab_size))
    real = inputs["padding_mask"]
    exact = logits_of(family, {path: rounded(path, values) for path, values in weights.items()}, config, inputs)
    unrounded = logits_of(family, weights, config, inputs)
    for block in (quantized.BLOCK, 200):
        monkeypatch.setattr(quantized, "BLOCK", block)
        model = bert4x.load(tmp_path, "lm", quantize="int8")
        found = array(model(given(inputs)))[real]
        close(found, exact[real], 1e-4)
    error = np.abs(found - unrounded[real])
    assert 1e-3 < error.max() / unrounded[real].std() < 0.2
    held = {path: v.dtype for path, v in variables_of(model).items() if is_matrix(path)}
    assert held and set(held.values()) == {"int8"}


@pytest.mark.parametrize("family", ["albert_zh", "deberta_v2"])
def test_families_with_layers_of_their_own(family, tmp_path):
    cls = family_of(family)
    config = testing.tiny_config(cls, max_position=130)
    model = testing.build(cls, config, testing.random_weights(config), with_mlm="linear")
    inputs = testing.inputs_of(model, config)
    save(model, tmp_path / "model")
    found = bert4x.load(tmp_path / "model", with_mlm="linear", quantize="int8")
    assert testing.difference(found(inputs), model(inputs)) < 0.2 * array(model(inputs)).std()
    found.save(tmp_path / "model.keras")
    assert testing.difference(bert4x.load(tmp_path / "model.keras")(inputs), found(inputs)) == 0


def test_rounding():
    random = np.random.default_rng(0)
    matrix = random.standard_normal((300, 40)).astype("float32") * np.logspace(-30, 30, 300, dtype="float32")[:, None]
    matrix[7] = 0
    matrix[8, 1:] = 0
    for stored in (matrix, np.asfortranarray(matrix)):
        values, scale = quantized.quantize(stored)
        assert np.array_equal(scale.astype(ml_dtypes.bfloat16).astype("float32"), scale)
        assert values.dtype == np.int8
        assert values.min() >= -127
        assert not values[7].any()
        error = np.abs(values.astype("float64") * scale[:, None] - matrix)
        assert (error <= scale[:, None] * 0.5000001).all()
        assert (scale <= np.abs(matrix).max(axis=1) / 127 * (1 + 2**-7)).all()
    half = matrix[140:160].astype("float16")
    assert np.array_equal(quantized.quantize(half)[0], quantized.quantize(half.astype("float32"))[0])


@pytest.mark.parametrize("rows", [1, 4, 9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_product(rows, dtype, monkeypatch):
    monkeypatch.setattr(quantized, "BLOCK", 700)
    random = np.random.default_rng(rows)
    x = random.standard_normal((1, rows, 64)).astype("float32").astype(ml_dtypes.bfloat16).astype("float32")
    values, scale = quantized.quantize(random.standard_normal((77, 64)).astype("float32"))
    found = quantized.int8_matmul(keras.ops.cast(x, dtype), *map(keras.ops.convert_to_tensor, (values, scale)))
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = x.astype("float64") @ (values * scale[:, None].astype("float64")).T
    close(found, expected, 1e-5 if dtype == "float32" else 2**-7 * np.abs(expected).max())


@pytest.mark.compiled
def test_generation(tmp_path):
    """Compiled, with a cache, it writes what the whole model says step by step."""
    config = config_of("gpt2")
    write_checkpoint(tmp_path, "megatron", config, shards=2)
    model = bert4x.load(tmp_path, "lm", quantize="int8")
    expected, _ = uncached(model, [5, 6, 7], 8)
    assert model.generate_ids(np.array([[5, 6, 7]]), max_new_tokens=8, stop_ids=[]).tolist() == [expected]


def test_saved_as_keras_and_nothing_else(tmp_path):
    config = config_of("bert")
    write_checkpoint(tmp_path / "source", "bert4x", config)
    model = bert4x.load(tmp_path / "source", quantize="int8", dtype="bfloat16")
    inputs = given(random_inputs(tiny_config("bert")))
    model.save(tmp_path / "model.keras")
    loaded = bert4x.load(tmp_path / "model.keras")
    dtypes, expected = ({path: v.dtype for path, v in variables_of(m).items()} for m in (loaded, model))
    assert dtypes == expected
    close(loaded(inputs), array(model(inputs)), 0)
    with pytest.raises(ConversionError, match="int8"):
        save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ConfigError, match="overwritten"):
        model.builder.load_weights_from_checkpoint(tmp_path / "source")
    with pytest.raises(ConfigError, match="LoRA"):
        model.get_layer("Transformer-0-FeedForward").intermediate_dense.enable_lora(2)


@pytest.mark.parametrize("options", [{"quantize": "int4"}, {"quantize": "int8", "dtype": "mixed_float16"}])
def test_refused(options, tmp_path):
    write_checkpoint(tmp_path, "bert4x", config_of("bert"))
    with pytest.raises(ConfigError, match="quantize='int8'"):
        bert4x.load(tmp_path, **options)


PROGRAM = """
import json, sys, keras, bert4x, bert4x.models.build
from tests.benchmarks.loading import high_water
keras.ops.convert_to_numpy(keras.ops.ones((8, 8)) @ keras.ops.ones((8, 8)))
before = high_water()
model = bert4x.load(sys.argv[1], "lm", dtype="bfloat16", quantize="int8")
print(json.dumps(high_water() - before))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory(tmp_path):
    """Loading takes little more than the int8 weights, which are half of the file's float16."""
    config = config_of(
        "gpt2", vocab_size=9000, hidden_size=768, num_attention_heads=12, num_hidden_layers=8, intermediate_size=3072
    )
    weights = {path: values.astype("float16") for path, values in draw(config).items()}
    write_checkpoint(tmp_path, "megatron", config, weights, shards=2)
    matrices = sum(values.size for values in weights.values())
    assert matrices > 60e6
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout.splitlines()[-1]) < 1.6 * matrices
