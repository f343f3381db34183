"""bert4x export: what other runtimes compute equals Keras, or there is an error and no folder."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from answers import assert_same_answers
from conftest import VOCABULARY, refused, write_tiny
from documents import run_python

import bert4x
from bert4x import testing
from bert4x.errors import ConversionError, UnknownOptionError
from bert4x.exporting.export import compare
from bert4x.exporting.forward import difference
from bert4x.exporting.targets import PACKAGES
from bert4x.families import family_of
from bert4x.runtimes.sessions import MissingRuntimeError, runner
from bert4x.tasks.fill_mask import FillMask
from bert4x.tasks.token_classification import TokenClassification

MASKED = "今天天[MASK]很好。"
TWELVE = {"num_attention_heads": 12, "hidden_size": 48}  # heads for which tf2onnx' own passes break the graph
FILES = {"onnx": "model.onnx", "openvino": "model.xml", "savedmodel": "model"}

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow exports")


def target(to, quantize=None):
    missing = [name for name in PACKAGES[to] if importlib.util.find_spec(name) is None]
    skip = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
    return pytest.param(to, quantize, marks=skip, id=f"{to}-{quantize}" if quantize else to)


def padded_batch():
    """Two rows, the second padded; lengths that no export has compared."""
    ids = np.array([[2, 5, 9, 7, 30, 3], [2, 8, 3, 0, 0, 0]], "int32")
    return ids, np.array([[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0]], "int32")


@on_tensorflow
@pytest.mark.parametrize(
    ("to", "quantize"),
    [target("savedmodel"), target("onnx"), target("onnx", "int8"), target("openvino"), target("openvino", "float16")],
)
def test_export(to, quantize, command, tiny, tmp_path, monkeypatch, capsys):
    source, folder = tiny(**TWELVE), tmp_path / "exported"
    options = ["--application", "mlm", *(["--quantize", quantize] if quantize else [])]
    status, out, err = command("export", source, folder, "--to", to, *options)
    assert status == 0, err
    assert "logits" in out
    assert "largest difference" in out
    assert sorted(tmp_path.iterdir()) == sorted([source, folder])
    assert {"README.md", "config.json", "vocab.txt", FILES[to]} <= {path.name for path in folder.iterdir()}

    model = bert4x.load(source, with_mlm=True)
    token_ids, segment_ids = padded_batch()
    expected = keras.ops.convert_to_numpy(model([token_ids, segment_ids]))
    found = runner(to, folder / FILES[to])({"token_ids": token_ids, "segment_ids": segment_ids})["logits"]
    assert (
        np.abs(found - expected).max() < {None: 2e-5, "float16": 0.03, "int8": 0.3}[quantize] * np.abs(expected).max()
    )

    monkeypatch.chdir(folder)
    names = run_python(folder / "README.md")
    assert names["outputs"]["logits"].shape == (1, len(names["token_ids"]), len(VOCABULARY))
    if quantize is None:
        assert_same_answers(FillMask(model)(MASKED), names["task"](MASKED))


@on_tensorflow
@pytest.mark.parametrize(("to", "quantize"), [target("onnx")])
def test_distances_between_tokens(to, quantize, tmp_path):
    config = testing.tiny_config(family_of("deberta_v2"), max_position=130, num_hidden_layers=1, position_buckets=8)
    model = testing.build(family_of("deberta_v2"), config, testing.random_weights(config))
    assert max(bert4x.export(model, tmp_path / "exported", to).differences.values()) < 2e-5


@on_tensorflow
@pytest.mark.parametrize(("to", "quantize"), [target("savedmodel"), target("onnx"), target("openvino")])
def test_a_task_with_all_it_takes(to, quantize, tiny, tmp_path):
    keras.utils.set_random_seed(0)  # of the head, which finds something then
    task = TokenClassification(bert4x.load(tiny()), ["PER", "LOC"], method="crf", maxlen=20)
    result = bert4x.export(task, tmp_path / "exported", to)
    assert dict(result.outputs) == {"scores": (None, None, 5), "transitions": (5, 5)}
    token_ids, segment_ids = padded_batch()
    found = runner(to, result.folder / FILES[to])({"token_ids": token_ids, "segment_ids": segment_ids})
    expected = keras.ops.convert_to_numpy(task.model([token_ids, segment_ids], training=False))
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)
    np.testing.assert_allclose(found["transitions"], keras.ops.convert_to_numpy(task.transitions.trans), atol=1e-6)
    text = "今天天气很好，我们去公园散步吧。" * 3
    assert_same_answers(task(text), bert4x.pipeline("ner", result.folder)(text))


@on_tensorflow
def test_the_mask_is_an_input_where_no_id_is_padding(tiny, tmp_path):
    source = write_tiny(tmp_path / "gpt2", "gpt2")
    result = bert4x.export(source, tmp_path / "unilm", "savedmodel", "unilm")
    assert set(result.inputs) == {"token_ids", "segment_ids", "padding_mask"}
    token_ids, segment_ids = padded_batch()
    run = runner("savedmodel", result.folder / "model")
    masks = [np.ones_like(token_ids), (token_ids > 0).astype("int32")]
    whole, masked = (
        run({"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": mask})["logits"] for mask in masks
    )
    inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": masks[1]}
    expected = keras.ops.convert_to_numpy(bert4x.load(source, "unilm")(inputs))
    np.testing.assert_allclose(masked, expected, atol=1e-5)
    assert np.abs(whole - masked).max() > 0.01
    assert set(bert4x.export(source, tmp_path / "lm", "savedmodel").inputs) == {"token_ids"}


@on_tensorflow
def test_refusals_leave_nothing(command, tiny, tmp_path):
    source, folder = tiny(), tmp_path / "exported"
    refused(command("export", source, folder, "--to", "savedmodel", "--tolerance", "-1"), "differs from Keras")
    refused(command("export", source, folder, "--to", "savedmodel", "--quantize", "int8"), "int8 of onnx")
    refused(command("export", tmp_path / "absent", folder, "--to", "savedmodel"), "absent")
    assert sorted(tmp_path.iterdir()) == [source]
    folder.mkdir()
    (folder / "mine").write_text("kept")
    refused(command("export", source, folder, "--to", "savedmodel"), "there already")
    assert [path.name for path in folder.iterdir()] == ["mine"]
    model = bert4x.load(source)
    with pytest.raises(UnknownOptionError, match="fixed"):
        bert4x.export(model, tmp_path / "other", "savedmodel", "mlm")
    with pytest.raises(ConversionError, match="Embedding-Token"):
        ids = keras.Input((None,), dtype="int32")
        bert4x.export(keras.Model(ids, keras.layers.Embedding(9, 2)(ids)), tmp_path / "other", "savedmodel")
    assert not (tmp_path / "other").exists()


def test_a_missing_package_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "onnx", ("no_such_package",))
    with pytest.raises(MissingRuntimeError, match=r"no_such_package.*pip install .*no_such_package"):
        bert4x.export(tiny(), tmp_path / "exported", "onnx")


def test_what_differs():
    hidden = np.array([1.0, -2.0, -1e12], "float32")
    assert difference(hidden, hidden + np.array([0, 0.5, 1e6], "float32")) == (0.5, 2.0)
    for wrong in ([1.0, -2.0, 0.0], [1.0, np.nan, -1e12], [1.0, -2.0], [1.0, -1e12, -1e12]):
        assert difference(hidden, np.array(wrong, "float32"))[0] == float("inf")
    inputs = [{"token_ids": np.zeros((1, 3), "int32")}]
    with pytest.raises(ConversionError, match=r"differs from Keras by inf in x on token ids \(1, 3\)"):
        compare(lambda _: {"x": np.zeros(3, "float32")}, inputs, [{"x": hidden}], 1e-4, "onnx")
    with pytest.raises(ConversionError, match=r"lacks \['x'\]"):
        compare(lambda _: {"y": hidden}, inputs, [{"x": hidden}], 1e-4, "onnx")


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_is_told_what_to_do(tiny, tmp_path):
    script = f"""
import bert4x
from bert4x.errors import ConversionError
try:
    bert4x.export({str(tiny())!r}, {str(tmp_path / "exported")!r}, "savedmodel")
except ConversionError as error:
    assert "KERAS_BACKEND=tensorflow" in str(error), error
else:
    raise SystemExit("no error")
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"KERAS_BACKEND": "jax"}, cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert not (tmp_path / "exported").exists()
