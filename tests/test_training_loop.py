"""Steps, batches, averages and runs: against NumPy, and interrupted against not interrupted."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_tiny
from keras import ops
from recipe_runs import load_recipe
from safetensors.numpy import save_file

import bert4x
from bert4x.errors import ConfigError, CorruptFileError, DataError, RunError
from bert4x.recipe import parse
from bert4x.tasks.text_classification import TextClassification
from bert4x.training import loop as loops
from bert4x.training.batches import LENGTHS, Batches, padded_length
from bert4x.training.ema import ExponentialMovingAverage
from bert4x.training.loop import Loop, Schedule, read_metrics
from bert4x.training.trainer import Trainer
from tests.random_models import tiny_config

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"好坏很不东西店家人菜服务差快慢大小多少新旧"]
ROWS = [
    ("很好", "good"),
    ("不好", "bad"),
    ("菜很差", "bad"),
    ("东西好", "good"),
    ("服务快", "good"),
    ("人很坏", "bad"),
] * 3


def new_task(dropout=0.1, **options):
    """A small classifier, the same one every time."""
    keras.utils.set_random_seed(3)
    config = tiny_config("bert", vocab_size=len(VOCAB), num_hidden_layers=1, dropout_rate=dropout)
    backbone = bert4x.build_transformer_model(config | {"attention_probs_dropout_prob": dropout}, **options)
    backbone.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(VOCAB)})
    return TextClassification(backbone, ["good", "bad"], maxlen=16, dropout=dropout)


def new_loop(folder, task=None, observe=lambda record: None, trainer=None, **schedule):
    task = task or new_task()
    trainer = trainer or Trainer(task.model, task.loss, task.optimizer(1e-3), ema=0.9)
    examples = task.prepare(ROWS)
    schedule = Schedule(**{"epochs": 3, "batch_size": 4, "learning_rate": 1e-2} | schedule)
    return Loop(
        folder, trainer, examples, task.batch, schedule, evaluate=lambda: task.evaluate(ROWS),
        keep=lambda scores: task.save(folder), best="accuracy", observe=observe,
    )  # fmt: skip


def values(loop):
    return [ops.convert_to_numpy(v.value) for v in loop.trainer.kept]


class Killed(BaseException):
    """What a test stops a run with, at once."""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_batches_have_every_example_and_few_shapes(backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    lengths = np.random.default_rng(0).integers(3, 500, 1003)
    batches = Batches(lengths, 16, seed=5)
    plan = batches.epoch(2)
    rows = np.concatenate([rows for rows, _ in plan])
    assert {len(rows) for rows, _ in plan} == {16}
    assert len(plan) == len(batches) == 63
    assert set(rows.tolist()) == set(range(1003))
    assert {length for _, length in plan} <= set(LENGTHS if backend == "jax" else range(8, 505, 8))
    assert all(length >= lengths[rows].max() for rows, length in plan)
    filled = sum(lengths[rows].sum() for rows, _ in plan) / sum(16 * length for _, length in plan)
    assert filled > (0.8 if backend == "jax" else 0.93)  # random batches of this data: 0.53
    again = Batches(lengths, 16, seed=5).epoch(2)
    assert all(np.array_equal(one[0], two[0]) for one, two in zip(plan, again, strict=True))
    assert not np.array_equal(batches.epoch(3)[0][0], plan[0][0])
    assert padded_length(513) == (1024 if backend == "jax" else 520)
    assert Batches([100, 90], 2, longest=100).epoch(0)[0][1] == 100


def test_batches_of_few_examples():
    assert sorted(set(np.concatenate([r for r, _ in Batches([5, 6, 7], 8).epoch(0)]).tolist())) == [0, 1, 2]
    with pytest.raises(DataError, match="no examples"):
        Batches([], 8)


def test_moving_average():
    variable = keras.Variable(np.array([1.0, 2.0], "float32"))
    ema = ExponentialMovingAverage([variable], 0.5)
    expected = np.array([1.0, 2.0])
    for n in range(1, 6):
        variable.assign(np.array([n, -n], "float32"))
        ema.update()
        momentum = min(0.5, (1 + n) / (10 + n))
        expected = momentum * expected + (1 - momentum) * np.array([n, -n])
        np.testing.assert_allclose(ops.convert_to_numpy(ema.averages[0].value), expected, rtol=1e-6)
    with pytest.raises(ZeroDivisionError), ema.swapped_in():
        np.testing.assert_allclose(ops.convert_to_numpy(variable.value), expected, rtol=1e-6)
        raise ZeroDivisionError
    assert ops.convert_to_numpy(variable.value).tolist() == [5, -5]
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ExponentialMovingAverage([variable], 1.0)


@pytest.mark.compiled
def test_accumulated_batches_equal_a_large_one():
    """Two halves make the same update as the whole: the same weights, one step of the optimizer."""
    found = []
    for parts in (1, 2):
        task = new_task(dropout=0.0)
        trainer = Trainer(task.model, task.loss, task.optimizer(1e-3), ema=0.9, gathers=parts > 1)
        examples = task.prepare(ROWS[:8])
        for _ in range(3):
            step = 8 // parts
            micro = [task.batch(examples[i : i + step], 16) for i in range(0, 8, step)]
            loss = float(trainer.learn(micro, 1e-2))
        assert int(trainer.optimizer.iterations.value) == 3
        assert int(trainer.ema.updates.value) == 3
        found.append((loss, [ops.convert_to_numpy(v.value) for v in [*task.model.weights, *trainer.ema.averages]]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


def test_learning_rate():
    schedule = Schedule(learning_rate=2.0, warmup=0.25)
    rates = [schedule.rate(update, 99) for update in range(1, 100)]
    assert max(rates) == rates[24] == 2.0
    assert rates[0] == pytest.approx(0.08)
    assert rates[-1] == pytest.approx(2.0 / 75)
    assert Schedule(learning_rate=2.0, decay="constant").rate(99, 99) == 2.0
    assert Schedule(learning_rate=2.0, warmup=0, decay="cosine").rate(50, 99) == pytest.approx(1.0)


@pytest.mark.parametrize("score_every", [None, 2])
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path, score_every):
    """Stopped at several moments, whatever it was doing, and each time gone on with by another process' objects."""
    whole = new_loop(tmp_path / "whole", score_every=score_every)
    (tmp_path / "whole").mkdir()
    whole.resume()
    whole.run()
    expected = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert len([r for r in expected if "loss" in r]) == 15
    folder = tmp_path / "parts"
    folder.mkdir()
    for moment in (3, 11, None):

        def stop(record, moment=moment):
            if record.get("update") == moment:
                raise Killed

        loop = new_loop(folder, observe=stop, save_every=0, score_every=score_every)  # a state after every update
        assert loop.resume() == (moment != 3)
        if moment is None:
            loop.run()
        else:
            with pytest.raises(Killed):
                loop.run()
            with open(folder / "metrics.jsonl", "a") as file:
                file.write('{"update": 999, "lo')  # as a line that was half written
    found = read_metrics(folder / "metrics.jsonl")
    assert [{**r, "seconds": 0} for r in found] == [{**r, "seconds": 0} for r in expected]
    for one, two in zip(values(whole), values(loop), strict=True):
        np.testing.assert_array_equal(one, two)
    assert loop.progress.scores == whole.progress.scores
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_scores_within_an_epoch(tmp_path):
    task, given = new_task(), iter([0.1, 0.2, 0.9, 0.3, 0.2, 0.1])
    loop = new_loop(tmp_path, task, epochs=2, score_every=2, patience=3)  # 5 updates an epoch
    kept = []
    loop.evaluate, loop.keep = lambda: {"accuracy": next(given)}, lambda scores: kept.append(loop.progress.update)
    loop.run()
    scored = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "accuracy" in r]
    assert [(r["epoch"], r["update"]) for r in scored] == [(0.4, 2), (0.8, 4), (1, 5), (1.2, 6), (1.6, 8), (2, 10)]
    assert kept == [2, 4, 5]
    assert (loop.progress.best, loop.progress.best_epoch) == (0.9, 1)
    given = iter([0.5, 0.4, 0.3, 0.2])
    stopped = new_loop(tmp_path, task, epochs=2, score_every=2, patience=3)
    stopped.evaluate, stopped.keep = lambda: {"accuracy": next(given)}, lambda scores: None
    assert (stopped.run().update, stopped.progress.best_epoch) == (6, 0.4)  # in the middle of the second epoch
    again = new_loop(tmp_path, task, epochs=2, score_every=2, patience=3)
    assert again.resume()
    assert again.progress.finished


def test_early_stopping_and_the_last_update(tmp_path):
    loop = new_loop(tmp_path, learning_rate=1e-9, epochs=50, patience=2)
    loop.run()
    assert loop.progress.epoch == 3  # the first was the best, and two were no better
    capped = new_loop(tmp_path, max_steps=7)
    capped.run()
    assert capped.progress.update == 7


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    loop = new_loop(tmp_path, max_steps=5)
    loop.run()
    before = (tmp_path / loops.STATE).read_bytes()

    def full(tensors, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loops, "save_file", full)
    with pytest.raises(RunError, match=r"No space left on device.*make room"):
        loop.save()
    assert (tmp_path / loops.STATE).read_bytes() == before
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["state.safetensors"]


def test_states_that_cannot_be_resumed(tmp_path):
    new_loop(tmp_path, max_steps=5).run()
    other = new_task()
    trainer = Trainer(other.model, other.loss, other.optimizer(1e-3))
    with pytest.raises(ConfigError, match="another model or optimizer"):
        new_loop(tmp_path, other, trainer=trainer).resume()
    for progress in ("[]", "5", "{", '{"update": "3"}', '{"other": 1}', '{"update": NaN}', "[" * 100_000):
        save_file({"0": np.zeros(1)}, tmp_path / loops.STATE, metadata={"progress": progress})
        with pytest.raises(CorruptFileError, match=r"state\.safetensors"):
            new_loop(tmp_path).resume()
    (tmp_path / "metrics.jsonl").write_text('{"update": "x"}\n{"update": 2}\n' + "[" * 100_000)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"update": 2}]
    (tmp_path / loops.STATE).write_bytes(b"nonsense")
    with pytest.raises(CorruptFileError, match="no state of training"):
        new_loop(tmp_path).resume()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    task = new_task()
    trainer = Trainer(task.model, lambda outputs, targets: task.loss(outputs, targets) * np.nan, task.optimizer(1e-3))
    with pytest.raises(RunError, match="loss of update 1 is nan"):
        new_loop(tmp_path, task, trainer=trainer).run()


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_learns(tmp_path, policy):
    task = new_task(dtype=policy)
    optimizer = task.optimizer(1e-3)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loop = new_loop(tmp_path, task, trainer=Trainer(task.model, task.loss, optimizer), epochs=10, learning_rate=5e-3)
    loop.run()
    losses = [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl") if "loss" in record]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.compiled  # as the processes are
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_recipe_killed_and_resumed(tmp_path):
    """The command, killed by SIGKILL, stopped by SIGTERM, then run to its end here: as one that was left alone."""
    recipe = Path(__file__).parents[1] / "recipes/text_classification.py"
    model = write_tiny(tmp_path / "model", num_hidden_layers=1, max_position=64)
    arguments = ["--smoke", "--model", str(model), "--max-length", "32"]
    arguments += ["--max-steps", "20", "--save-every", "0", "--resume", "auto"]
    command = [sys.executable, str(recipe), *arguments]
    environment = os.environ | {"PYTHONPATH": str(recipe.parents[1])}

    def run(folder, kill_at, signal_number):
        log = (tmp_path / "log").open("a")
        process = subprocess.Popen([*command, "--output", str(folder)], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if any(record["update"] >= kill_at for record in read_metrics(folder / "metrics.jsonl")):
                process.send_signal(signal_number)
                break
            time.sleep(0.01)
        return process.wait(timeout=120)

    def run_here(folder):
        module = load_recipe("text_classification")
        module.main(parse(module.Arguments, "", [*arguments, "--output", str(folder)]))

    run_here(tmp_path / "whole")
    assert run(tmp_path / "parts", 6, signal.SIGKILL) == -signal.SIGKILL
    assert run(tmp_path / "parts", 12, signal.SIGTERM) != 0
    run_here(tmp_path / "parts")
    metrics = [[r for r in read_metrics(tmp_path / f / "metrics.jsonl") if "loss" in r] for f in ("whole", "parts")]
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) == 20
    weights = [(tmp_path / f / "model.safetensors").read_bytes() for f in ("whole", "parts")]
    assert weights[0] == weights[1]
    card = (tmp_path / "parts" / "README.md").read_text("utf-8")
    assert json.loads((tmp_path / "parts" / "args.json").read_text())["smoke"] is True
    assert "accuracy" in card
