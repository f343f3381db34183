"""`task.fit` and `task.evaluate`: a recipe's run from Python."""

import io
import json
import pickle
import signal
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_tiny

import bert4x
from bert4x.errors import ConfigError, DataError, RunError, UnknownOptionError
from bert4x.tasks.gplinker import GPLinker
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification
from bert4x.tasks.triple_extraction import TripleExtraction
from bert4x.training import report

ROWS = [("今天天气很好", "好评"), ("举头望明月", "差评"), ("我们去公园", "好评"), ("低头思故乡", "差评")] * 4
QUICK = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
POEM = "床前明月光是地上霜。"
MOON = POEM.index("明月")
# Every task, with rows of its own.
TASKS = {
    "text-classification": (lambda m: TextClassification(m, ["差评", "好评"], maxlen=16), ROWS),
    "token-classification": (
        lambda m: TokenClassification(m, ["人"], maxlen=16),
        [{"text": POEM, "entities": [("人", MOON, MOON + 2)]}] * 8,
    ),
    "triple-extraction": (
        lambda m: TripleExtraction(m, ["作者"], maxlen=16),
        [{"text": POEM, "spo_list": [("床前", "作者", "明月")]}] * 8,
    ),
    "gplinker": (
        lambda m: GPLinker(m, ["作者"], maxlen=16),
        [{"text": POEM, "spo_list": [("床前", "作者", "明月")]}] * 8,
    ),
    "reading-comprehension": (
        lambda m: ReadingComprehension(m, maxlen=32),
        [{"question": "什么是霜", "passage": POEM, "answers": [("明月", MOON)]}] * 8,
    ),
    "seq2seq": (lambda m: Seq2Seq(m, max_target=4, maxlen=16, num_beams=1), [(POEM, "明月")] * 8),
}


def made(name="text-classification"):
    """A task on a model of one layer, and its rows."""
    make, rows = TASKS[name]
    with tempfile.TemporaryDirectory() as folder:
        source = write_tiny(Path(folder), num_hidden_layers=1, max_position=64)
        return make(bert4x.load(source, application="unilm" if name == "seq2seq" else None)), rows


def weights(task):
    return [np.array(v) for v in task.model.trainable_variables]


def same(some, others):
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.compiled
@pytest.mark.parametrize("name", TASKS)
def test_every_task(name, capsys):
    """Nothing is written; the loss falls; the history has as many entries as epochs."""
    task, rows = made(name)
    done = task.fit(rows, rows, **(QUICK | {"epochs": 6, "learning_rate": 3e-3}))
    assert done.folder is None and done.updates == 6 * -(-len(rows) // 8)
    history = done.history
    assert history["epoch"] == [1, 2, 3, 4, 5, 6] and len(history["loss"]) == 6
    assert history["loss"][-1] < history["loss"][0]
    assert len(history[task.best]) == 6 and set(done.scores) <= set(history)
    assert done.scores == pytest.approx(task.evaluate(rows), abs=1e-3)
    assert "epoch 6/6: loss" in capsys.readouterr().out


def test_copies():
    """A copy has the same answers, trains by itself, and is one model: what it saves is what it learned. A task may be
    made twice on one model, as by a cell that is run again.
    """
    task, rows = made()
    TASKS["text-classification"][0](task.backbone)
    again = pickle.loads(pickle.dumps(task))
    text = rows[0][0]
    before = task(text)
    assert again(text).probabilities == pytest.approx(before.probabilities, abs=1e-6)
    held, old = weights(task), np.array(again.backbone.get_layer("Embedding-Token").embeddings)
    again.fit(rows, verbose=False, **QUICK)
    assert same(weights(task), held)
    assert not np.array_equal(old, again.backbone.get_layer("Embedding-Token").embeddings)


def test_again_and_without_scores(capsys):
    """The same call goes on from the weights that the task has; the last ones are kept where nothing is scored."""
    task, rows = made()
    before = weights(task)
    first = task.fit(rows, verbose=False, **QUICK)
    assert first.scores == {} and list(first.history) == ["epoch", "loss"]
    learned = weights(task)
    assert not same(before, learned)
    task.fit(rows, verbose=False, **(QUICK | {"epochs": 1, "learning_rate": 1e-9}))
    assert all(np.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(weights(task), learned, strict=True))
    assert capsys.readouterr() == ("", "")


def test_the_best_weights_are_taken():
    task, rows = made()
    scored = []

    def evaluate(rows, batch_size=32):
        scored.append(weights(task))
        return {"accuracy": [0.2, 0.9, 0.1][len(scored) - 1]}

    task.evaluate = evaluate
    done = task.fit(rows, rows, verbose=False, **(QUICK | {"epochs": 3}))
    assert done.best_epoch == 2 and done.scores == {"accuracy": 0.9}
    assert same(weights(task), scored[1])


def test_in_a_folder(tmp_path, capsys, monkeypatch):
    """A recipe's run: opened by pipeline; the cell run again trains nothing; other rows or options are refused."""
    monkeypatch.setattr(sys, "argv", ["the_program.py"])
    task, rows = made()
    done = task.fit(rows, rows, tmp_path / "run", **QUICK)
    for name in ("README.md", "metrics.jsonl", "model.safetensors", "task.json", "args.json"):
        assert (tmp_path / "run" / name).is_file()
    card = (tmp_path / "run/README.md").read_text("utf-8")
    assert "task.fit(rows, valid, output=" in card and "epochs=2" in card and "the_program" not in card
    task_again, _ = made()
    capsys.readouterr()
    again = task_again.fit(rows, rows, tmp_path / "run", **QUICK)
    assert "has ended" in capsys.readouterr().out
    assert again.history == done.history and again.updates == done.updates
    assert same(weights(task_again), weights(task))
    answer = bert4x.pipeline("sentiment-analysis", tmp_path / "run")("今天天气很好")
    assert answer.probabilities == pytest.approx(task("今天天气很好").probabilities, abs=1e-5)
    for other in ({"epochs": 3}, {"batch_size": 4}):
        with pytest.raises(RunError, match="other arguments"):
            task.fit(rows, rows, tmp_path / "run", **(QUICK | other))
    with pytest.raises(RunError, match="other arguments: rows"):
        task.fit(rows[1:], rows, tmp_path / "run", **QUICK)


def test_an_interrupted_run_goes_on(tmp_path, capsys):
    """By the same call on a task made anew: the same losses and weights as of a run that was not interrupted."""
    task, rows = made()
    start = task.save(tmp_path / "start")

    def loaded():
        keras.utils.set_random_seed(0)  # by which dropout begins
        return TextClassification.load(start)

    task = loaded()
    whole = task.fit(rows, rows, tmp_path / "whole", **QUICK)
    stopped, scored = loaded(), []

    def evaluate(rows, batch_size=32):
        if not scored:
            signal.raise_signal(signal.SIGINT)
        scored.append(TextClassification.evaluate(stopped, rows, batch_size))
        return scored[-1]

    stopped.evaluate = evaluate
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(rows, rows, tmp_path / "run", **QUICK)
    assert "the same call goes on from update 2" in capsys.readouterr().out
    resumed = TextClassification.load(start)  # with other dropout, until the state is read
    done = resumed.fit(rows, rows, tmp_path / "run", **QUICK)
    assert "going on from update 2 of 4" in capsys.readouterr().out
    assert done.history == whole.history
    assert same(weights(resumed), weights(task))


def test_adapters():
    task, rows = made()
    before = {v.path: np.array(v) for v in task.backbone.variables}
    count = len(task.model.trainable_variables)
    for _ in range(2):
        task.fit(rows, rows, verbose=False, lora=2, **QUICK)
    assert len(task.model.trainable_variables) == count
    changed = {v.path for v in task.backbone.variables if v.path in before and not np.array_equal(v, before[v.path])}
    assert changed and all("query" in path or "value" in path for path in changed if "seed" not in path)


def test_what_it_refuses():
    task, rows = made()
    with pytest.raises(DataError, match="no rows"):
        task.fit([])
    with pytest.raises(UnknownOptionError, match="did you mean 'epochs'"):
        task.fit(rows, epoch=1)
    with pytest.raises(UnknownOptionError, match="model"):
        task.fit(rows, model="somewhere")
    for wrong in ({"epochs": "3"}, {"epochs": 1.5}, {"learning_rate": True}, {"decay": "steep"}, {"epochs": None}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = .*; expected"):
            task.fit(rows, **wrong)
    with pytest.raises(RunError, match="epochs = 0; expected"):
        task.fit(rows, epochs=0)


def test_a_bar_in_a_notebook(monkeypatch):
    """It begins its line anew, and makes room for the lines of epochs."""
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    task, rows = made()
    task.fit(rows, rows, **QUICK)
    lines = [line.rpartition("\r")[2] for line in out.getvalue().split("\n")]
    assert [line for line in lines if line.startswith("epoch")] == lines[:2]
    assert "4/4" in out.getvalue() and "█" in out.getvalue()
    monkeypatch.delitem(sys.modules, "ipykernel")
    assert report.progress_bar(3) is None or sys.stderr.isatty()


def test_history_is_plain():
    task, rows = made()
    done = task.fit(rows, rows, verbose=False, score_every=1, **QUICK)
    assert json.loads(json.dumps(done.history)) == done.history
    assert done.history["epoch"] == [0.5, 1, 1.5, 2]
