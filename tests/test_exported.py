"""Exported folders opened again: the answers of Keras, without Keras, by the same calls."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from answers import assert_same_answers
from conftest import write_tiny

import bert4x
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError, UnknownOptionError
from bert4x.runtimes import sessions
from bert4x.runtimes.exported import NotInExportError
from bert4x.runtimes.sessions import MissingRuntimeError
from bert4x.tasks.sentence_embedding import SentenceEmbedding
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.triple_extraction import TripleExtraction

for package in ("onnx", "tf2onnx", "onnxruntime"):
    pytest.importorskip(package)
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow exports")

TEXTS = ["今天天气很好，我们去公园散步吧。", "床前明月光，疑是地上霜。举头望明月，低思故乡。" * 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def tasks(folder):
    """Tasks with random heads, each exported to the folder of its name."""
    load, draw = lambda: bert4x.load(write_tiny(folder / "source")), np.random.default_rng(0)
    dense = {"kind": "dense", "units": 6, "bias": True, "activation": "tanh"}
    found = {
        "text-classification": TextClassification(load(), ["差评", "好评"], maxlen=24),
        "triple-extraction": TripleExtraction(load(), ["作者", "国家"], 24, start_threshold=0.02, end_threshold=0.02),
        "sentence-embedding": SentenceEmbedding(load(), steps=[dense, {"kind": "normalize"}], maxlen=24),
    }
    for name, task in found.items():
        for variable in task.head.values():
            variable.assign(draw.normal(0, 0.3, variable.shape))
        bert4x.export(task, folder / name)
    return found


def test_the_answers_are_those_of_keras(tasks, folder):
    for name in ("text-classification", "triple-extraction"):
        again = bert4x.pipeline(name, folder / name)
        assert_same_answers(tasks[name](TEXTS), again(TEXTS))
        assert_same_answers(tasks[name](TEXTS[0]), pickle.loads(pickle.dumps(again))(TEXTS[0]))
    rows = [(text, label) for text, label in zip(TEXTS, ("好评", "差评"), strict=True)]
    task = tasks["text-classification"]
    assert bert4x.pipeline(task.name, folder / task.name).evaluate(rows) == task.evaluate(rows)
    expected = tasks["sentence-embedding"](TEXTS)
    with pytest.warns(UserWarning, match="are cut there"):
        np.testing.assert_allclose(bert4x.embedder(folder / "sentence-embedding")(TEXTS), expected, atol=2e-5)


def test_no_keras(tasks, folder, command):
    code = f"""
import sys, bert4x
print(len(bert4x.pipeline("triple-extraction", r"{folder / "triple-extraction"}")({TEXTS[0]!r})))
print(bert4x.embedder(r"{folder / "sentence-embedding"}")({TEXTS[0]!r}).shape)
from bert4x.cli import main
assert main(["predict", r"{folder / "text-classification"}", r"{folder / "texts.txt"}", "-"]) == 0
print({{"keras", "tensorflow", "jax", "torch"}} & {{name.partition(".")[0] for name in sys.modules}})
"""
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n", "utf-8")
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert lines[0] == str(len(tasks["triple-extraction"](TEXTS[0])))
    assert lines[1] == "(6,)"
    expected = tasks["text-classification"](TEXTS)
    assert [json.loads(line)["label"] for line in lines[2:4]] == [answer.label for answer in expected]
    assert lines[-1] == "set()"


def test_bad_input(tasks, folder, tmp_path, monkeypatch):
    name = "text-classification"
    with pytest.raises(ConfigError, match="holds a model for 'text-classification'"):
        bert4x.pipeline("ner", folder / name)
    with pytest.raises(ConfigError, match="--application mlm"):
        bert4x.pipeline("fill-mask", folder / name)
    with pytest.raises(UnknownOptionError, match="dtype='bfloat16'"):
        bert4x.pipeline(name, folder / name, dtype="bfloat16")
    with pytest.raises(NotInExportError, match="which has no 'variables'"):
        bert4x.pipeline(name, folder / name).save(tmp_path / "saved")
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in (folder / name).iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    (bad / "model.onnx").write_bytes((bad / "model.onnx").read_bytes()[:5000])
    with pytest.raises(CorruptFileError, match=r"onnxruntime cannot read .*model.onnx"):
        bert4x.pipeline(name, bad)(TEXTS)
    (bad / "model.onnx").unlink()
    with pytest.raises(CorruptFileError, match=r"model.onnx does not exist"):
        bert4x.pipeline(name, bad)(TEXTS)
    (bad / "task.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match="without the head of a task"):
        bert4x.pipeline(name, bad)
    with pytest.raises(ConfigError, match="gives no vectors"):
        bert4x.embedder(bad)
    (bad / "export.json").write_text('{"to": "onnx", "graphs": {"../x": {}, "model": {}}}')
    with pytest.raises(CorruptFileError, match=r"expected what bert4x\.export wrote"):
        bert4x.load(bad)
    monkeypatch.setitem(sessions.PACKAGES, "onnx", "no_such_package")
    with pytest.raises(MissingRuntimeError, match=r"no_such_package.*bert4x\[export\]"):
        bert4x.pipeline(name, folder / name)(TEXTS)
