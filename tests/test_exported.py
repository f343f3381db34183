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
from random_models import tiny_config

import bert4x
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError, UnknownOptionError
from bert4x.runtimes import sessions
from bert4x.runtimes.exported import NotInExportError
from bert4x.runtimes.sessions import MissingRuntimeError
from bert4x.tasks.sentence_embedding import SentenceEmbedding
from bert4x.tasks.seq2seq import Seq2Seq
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
    load, draw = lambda: bert4x.load(write_tiny(folder / "source", num_hidden_layers=1)), np.random.default_rng(0)
    dense = {"kind": "dense", "units": 6, "bias": True, "activation": "tanh"}
    found = {
        "triple-extraction": TripleExtraction(load(), ["作者", "国家"], 24, start_threshold=0.02, end_threshold=0.02),
        "sentence-embedding": SentenceEmbedding(load(), steps=[dense, {"kind": "normalize"}], maxlen=24),
    }
    for name, task in found.items():
        for variable in task.head.values():
            variable.assign(draw.normal(0, 0.3, variable.shape))
        bert4x.export(task, folder / name)
    return found


def test_the_answers_are_those_of_keras(tasks, folder):
    task, again = tasks["triple-extraction"], bert4x.pipeline("triple-extraction", folder / "triple-extraction")
    assert_same_answers(task(TEXTS), again(TEXTS))
    assert_same_answers(task(TEXTS[0]), pickle.loads(pickle.dumps(again))(TEXTS[0]))
    rows = [{"text": text, "spo_list": [("天", "作者", "好")]} for text in TEXTS]
    assert again.evaluate(rows) == task.evaluate(rows)
    with pytest.warns(UserWarning, match="are cut there"):
        expected = tasks["sentence-embedding"](TEXTS)
    with pytest.warns(UserWarning, match="are cut there"):
        np.testing.assert_allclose(bert4x.embedder(folder / "sentence-embedding")(TEXTS), expected, atol=2e-5)


def test_no_keras(tasks, folder):
    code = f"""
import sys, bert4x, bert4x.generation.score, bert4x.generation.text, bert4x.runtimes.decoding
print(bert4x.embedder(r"{folder / "sentence-embedding"}")({TEXTS[0]!r}).shape)
from bert4x.cli import main
assert main(["predict", r"{folder / "triple-extraction"}", r"{folder / "texts.txt"}", "-"]) == 0
print({{"keras", "tensorflow", "jax", "torch"}} & {{name.partition(".")[0] for name in sys.modules}})
"""
    (folder / "texts.txt").write_text(f"{TEXTS[0]}\n", "utf-8")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    shape, answer, loaded = run.stdout.splitlines()
    assert shape == "(6,)"
    assert len(json.loads(answer)["triples"]) == len(tasks["triple-extraction"](TEXTS[0])) > 0
    assert loaded == "set()"


DECODING = [
    {},
    {"do_sample": True, "seed": 1, "top_k": 20, "top_p": 0.9, "temperature": 1.3, "num_return_sequences": 2},
    {"num_beams": 3, "no_repeat_ngram_size": 2},
]


def check_ids(model, again, **more):
    """Both continue prompts by the same ids, with the same scores."""
    prompts = [[7, 5, 9], [8, 6, 4, 30, 12, 11, 10]]
    for options in DECODING:
        options = options | more | {"max_new_tokens": 6, "return_scores": True}
        both = [m.generate_ids(prompts, **options) for m in (model, again)]
        np.testing.assert_array_equal(*(ids for ids, _ in both))
        np.testing.assert_allclose(*(scores for _, scores in both), atol=2e-5)


def test_generation_is_that_of_keras(tmp_path):
    unilm = bert4x.load(write_tiny(tmp_path / "bert", num_hidden_layers=1), "unilm")
    task = Seq2Seq(unilm, max_target=4, maxlen=16, num_beams=2)
    again = bert4x.pipeline("seq2seq", bert4x.export(task, tmp_path / "exported").folder)
    assert again(TEXTS) == task(TEXTS)
    assert [piece.text for piece in again.backbone.stream(TEXTS[0], max_new_tokens=4)]
    scores = [m.score("今天", ["天", "天气"]) for m in (unilm, again.backbone)]
    np.testing.assert_allclose(*scores, atol=2e-5)
    check_ids(unilm, again.backbone)


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", ["gpt2", "nezha", "roformer"])
def test_a_language_model_writes_as_keras(family, tmp_path):
    model = bert4x.load(write_tiny(tmp_path / family, family, num_hidden_layers=1), "lm")
    check_ids(model, bert4x.load(bert4x.export(model, tmp_path / "writer").folder))


@pytest.mark.exhaustive
def test_an_encoder_decoder_writes_as_keras(tmp_path):
    """By two graphs: one reads the source, one the target with its cache."""
    config = tiny_config("t5", num_hidden_layers=1)
    model = bert4x.build_transformer_model(config, model="t5", application="seq2seq", with_mlm="linear")
    again = bert4x.load(bert4x.export(model, tmp_path / "writer").folder)
    assert set(again.graphs) == {"model", "decoder", "source"}
    check_ids(model, again, start_id=1)


def test_bad_input(tasks, folder, tmp_path, monkeypatch):
    name = "triple-extraction"
    with pytest.raises(ConfigError, match="holds a model for 'triple-extraction'"):
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
