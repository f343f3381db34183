"""The benchmark command at toy sizes, its workers in this process: figures are printed, and only what does not depend
on a clock is asserted, counts of what is computed, read and held among it.
"""

import contextlib
import io
import json
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import write_tiny
from recipe_runs import load_recipe

import bert4x
from bert4x import recipe
from bert4x.checkpoints.formats import common as formats
from tests.benchmarks import __main__ as command
from tests.benchmarks import checkpoints, common, compare, contenders, epoch, growth, report, results, workers

BACKEND = keras.backend.backend()
TOY = ["--size", "toy", "--against", "--backend", BACKEND, "--repeats", "1", "--calls", "2"]


class Here:
    """A worker in this process."""

    def __init__(self, job, device):
        self.name, self.prepared = job.name, workers.resolve(job.target)(**job.arguments)
        self.outputs = self.prepared.outputs
        self.ready = {"runs": list(self.prepared.runs), "facts": self.prepared.facts, "seconds": 0.0}

    def ask(self, run, calls):
        times = workers.timed(self.prepared.runs[run], calls, self.prepared.first)
        return {"times": times, "peak": workers.peak()}

    def stop(self):
        pass


def run_here(*words, **environment):
    """`common.run`, of Python programs and commands of bert4x in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if words[1] == "-c":
            exec(words[2], {})
        else:
            assert words[1:3] == ("-m", "bert4x")
            command_line(list(words[3:]))
    return common.Run(0.1, workers.peak(), output.getvalue())


def command_line(words):
    from bert4x.cli import main

    assert main(words) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture
def measured(monkeypatch, folder):
    """Runs a case, and returns what it wrote."""
    monkeypatch.setattr(compare, "Worker", Here)

    def run(name, *options):
        command.main([name, *TOY, "--folder", str(folder), "--out", str(folder / "out"), *options])
        found = json.loads((folder / "out" / f"{name}.json").read_text("utf-8"))
        assert (folder / "out" / f"{name}.md").read_text("utf-8").startswith(f"### {found['title']}")
        failed = [line for line in found["problems"] if "exit status" in line or " differs by " in line]
        assert not failed
        return found

    return run


@pytest.mark.sweep("runs of benchmarks")
def test_inference(measured, folder):
    forms, peers = (("XLA", "graph"), ["savedmodel"]) if BACKEND == "tensorflow" else (("",), [])
    found = measured("inference", "--dtypes", "float32", "--against", *peers)
    names = {", ".join(filter(None, ("bert4x", BACKEND, form))) for form in forms} | set(peers)
    assert set(found["bars"]["2x16, float32"]) == names
    assert all(len(times) == 2 for times in found["bars"]["2x16, float32"].values())
    pytest.importorskip("matplotlib")
    assert (folder / "out" / "inference.svg").read_text("utf-8").count("<svg") == 1


def test_pipelines(measured):
    found = measured("pipelines", "--sentences", "12")
    speeds = {name: float(speed) for name, speed, _ in found["tables"][1]["rows"]}
    assert list(speeds) == [f"bert4x, {BACKEND}"]
    (seconds,) = found["bars"]["1x32, texts"].values()
    assert speeds[f"bert4x, {BACKEND}"] == pytest.approx(12 / np.median(seconds), rel=0.01, abs=0.1)


@pytest.mark.compiled
def test_training_compiles_little(measured, monkeypatch):
    """TensorFlow compiles one graph for the first length and one for all others; JAX one for each; and none twice."""
    from bert4x.training.trainer import Trainer

    traced, learn_once = [], Trainer.learn_once

    def counted(self, inputs, targets):
        traced.append(tuple(inputs[0].shape))
        return learn_once(self, inputs, targets)

    monkeypatch.setattr(Trainer, "learn_once", counted)
    found = measured("training", "--dtypes", "float32", "--no-check", "--shapes", "2x8", "2x16", "2x24")
    assert [len(times) for of in found["bars"].values() for times in of.values()] == [2, 2, 2]
    if BACKEND != "torch":  # which compiles nothing
        assert len(traced) <= (2 if BACKEND == "tensorflow" else 3)


def test_epoch(measured, monkeypatch):
    from tests.benchmarks.libraries import ours

    learned = []
    monkeypatch.setattr(ours, "classifier", lambda setup: (None, lambda ids, *_: learned.append(ids)))
    found = measured("epoch", "--sentences", "40")
    (row,) = found["tables"][1]["rows"]
    tokens, filled = np.concatenate([ids.ravel() for ids in learned]), float(row[1])
    assert 0.5 < filled <= 1 and filled == pytest.approx((tokens != 0).mean(), abs=0.2)
    assert all(len(ids) == 32 for ids in learned)
    lengths = np.array([10, 50, 20, 30])
    assert [n for _, n in epoch.plan_of("keras-hub", lengths, 2)] == [128, 128]
    assert max(n for _, n in epoch.plan_of("transformers", lengths, 2)) == 50
    ours = sorted(n for _, n in epoch.plan_of("bert4x", lengths, 2))  # 10 with 20, 30 with 50
    assert ours == ([32, 64] if BACKEND == "jax" else [24, 56])


def test_growth(measured, monkeypatch):
    from tests.benchmarks.libraries import ours

    monkeypatch.setattr(ours, "encoder", lambda setup: lambda ids, segments: ids)
    found = measured("growth", "--axes", "length")
    ((name, points),) = found["curves"][0]["points"].items()
    assert name.startswith("bert4x") and [x for x, _ in points] == [8, 16]
    assert growth.slope([(1.0, 9.0), (2.0, 1.0), (4.0, 4.0)]) == pytest.approx(2)


def test_tokenization(measured):
    found = measured("tokenization")
    assert set(found["bars"]) == {"lower-cased", "cased"}


@pytest.mark.parametrize("name", ["start", "loading"])
def test_cases_of_whole_processes(measured, monkeypatch, name):
    if name == "loading" and not sys.platform.startswith("linux"):
        pytest.skip("the peak before and after loading is read from /proc")
    monkeypatch.setattr(common, "run", run_here)
    assert measured(name)["tables"][0]["rows"]


def test_every_case_has_its_options_and_unknown_ones_are_named():
    for name in command.CASES:
        case = __import__(f"tests.benchmarks.{name.replace('-', '_')}", fromlist=["measure"])
        assert case.arguments().parse_args(["--size", "toy"]).size == "toy" and callable(case.measure)
    with pytest.raises(SystemExit, match="no case 'speed'; expected some of inference"):
        command.main(["speed"])


def test_a_worker_answers_until_it_is_stopped_and_says_why_it_failed():
    job = workers.Job("limit", "tests.benchmarks.limits:memory", {"size": "toy"})
    with workers.Worker(job) as worker:
        assert worker.ready["facts"]["memory"] == 1 << 22
        assert [len(worker.ask("memory", n)["times"]) for n in (1, 3)] == [1, 3]
    assert worker.process.returncode == 0
    with pytest.raises(RuntimeError, match=r"(?s)limit: exit status 1.*KeyError: 'huge'"):
        workers.Worker(workers.Job("limit", "tests.benchmarks.limits:memory", {"size": "huge"}))


def test_outputs_that_differ_are_told_and_failures_do_not_stop_the_rest(monkeypatch):
    values = {"a": 1.0, "b": 1.0, "c": 1.1}

    def start(job, device):
        if job.name == "d":
            raise RuntimeError("d: exit status 1\nValueError: no")
        ready = {"runs": ["x"], "facts": {}, "seconds": 0.0}
        answer = {"times": [0.1], "peak": 1}
        return SimpleNamespace(
            name=job.name, outputs={"x": np.full(3, values[job.name])}, ready=ready, ask=lambda *_: answer,
            stop=lambda: None,
        )  # fmt: skip

    monkeypatch.setattr(compare, "Worker", start)
    found = compare.measure([workers.Job(name, "", {}) for name in "dabc"], 2, {}, keep=True)
    assert {name: len(f.seconds) for name, f in found.figures["x"].items()} == {"a": 2, "b": 2, "c": 2}
    assert compare.problems(found, "f32", 1e-3) == [
        "f32: d: exit status 1: ValueError: no",
        "f32: c differs by 1.0e-01",
    ]
    assert compare.relative(np.ones(2), np.ones(3)) == float("inf")
    assert compare.relative(np.array([1, 2]), np.array([1, 3])) == 0.5


def test_verdicts_and_spread():
    assert report.verdict(1.2, least=1.1) == ("1.20", "at least 1.10, reached")
    assert report.verdict(1.2, most=1.1) == ("1.20", "at most 1.10, **missed**")
    assert report.spread([1.0, 2.0, 3.0]) == "2.00 s (1.50 to 2.50)"
    peers = contenders.contenders([], [BACKEND], {"bert4x, tensorflow": ("XLA",)})
    assert len(peers) == 1 and peers[0].library == "bert4x"


def test_operations_of_a_forward_pass():
    """1024 tokens of BERT-base, counted by hand: 12 x 1024 x (8 H^2 + 4 H I + 4 T H)."""
    assert checkpoints.flops(checkpoints.BERT_BASE, 8, 128) == 12 * 1024 * (4718592 + 9437184 + 393216)


# Counts.


def matrix_products(layers: int) -> tuple[int, int]:
    """Matrix products, and casts, in the graph of a forward pass of TensorFlow."""
    import tensorflow as tf

    config = checkpoints.bert("toy", num_hidden_layers=layers)
    sizes = {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "num_attention_heads")}
    model = bert4x.build_transformer_model(
        model="bert", num_hidden_layers=layers, intermediate_size=128, max_position=64, **sizes
    )
    graph = tf.function(lambda ids, segments: model([ids, segments], training=False))
    spec = tf.TensorSpec((None, None), "int32")
    kinds = [node.type for node in graph.get_concrete_function(spec, spec).graph.get_operations()]
    return sum("MatMul" in kind or kind == "Einsum" for kind in kinds), kinds.count("Cast")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="counts the nodes of TensorFlow's graph")
def test_products_and_casts_of_a_layer():
    """A layer multiplies matrices 8 times, or less if some are fused (query, key, value, scores, context, output, and
    two of the feed-forward), and in float32 casts nothing.
    """
    one, two = matrix_products(1), matrix_products(2)
    assert 5 <= two[0] - one[0] <= 8
    assert two[1] == one[1]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="bytes read are counted by /proc")
def test_conversion_reads_every_byte_once_and_holds_few_tensors(tmp_path, monkeypatch):
    sizes = {"vocab_size": 4096, "hidden_size": 128, "num_hidden_layers": 8, "num_attention_heads": 4}
    source = write_tiny(tmp_path / "source", "gpt2", "megatron", **sizes, intermediate_size=512)
    size = sum(path.stat().st_size for path in source.rglob("*.pt"))
    largest = 4096 * 128 * 2  # bytes of float16
    monkeypatch.setattr(formats, "AHEAD", largest)
    held, most = 0, 0

    def release(size):
        nonlocal held
        held -= size

    def tracked(tensor):
        nonlocal held, most
        values = tensor_bytes(tensor)
        held += values.nbytes
        most = max(most, held)
        weakref.finalize(values.obj, release, values.nbytes)
        return values

    tensor_bytes = formats.tensor_bytes
    monkeypatch.setattr(formats, "tensor_bytes", tracked)

    def bytes_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    bert4x.convert(source, tmp_path / "warm", "hf")  # what is imported is read here
    before = bytes_read()
    bert4x.convert(source, tmp_path / "target", "hf")
    read = bytes_read() - before
    print(f"{size / 1e6:.1f} MB: {read / size:.2f} of it read, at most {most / largest:.2f} largest tensors held")
    assert read < 1.1 * size + 200_000
    assert 0 < most <= 3.1 * largest < size / 2
    assert held == 0


def test_results_on_real_data_are_of_the_runs_they_name(tmp_path):
    """Every job's command is one its recipe takes, and writes where the scores are read; the table has them all."""
    args = SimpleNamespace(data=tmp_path, output=tmp_path / "out", precisions=["float32", "mixed_float16"])
    args.model, args.short = None, False
    args.no_peer, args.seeds, args.only = False, [0, 1], list(results.JOBS)
    args.output.mkdir()
    for job, found in results.JOBS.items():
        name = f"{job}-0-float32"
        module = load_recipe(found["recipe"])
        parsed = recipe.parse(module.Arguments, argv=results.command(job, 0, name, args))
        assert parsed.output == args.output / name and parsed.learning_rate == found["options"]["learning_rate"]
        assert set(results.SHORT[job][0]) <= set(vars(parsed))
        for kind, score in (("float32", 0.5), ("mixed_float16", 0.25), ("peer", 0.125)):
            for seed in args.seeds:
                records = [{found["score"]: 0.0, "seconds": 1.0}, {found["score"]: score + 0.01 * seed, "seconds": 2.0}]
                results.write(args.output / f"{job}-{seed}-{kind}.json", records)
    lines = results.table(args).splitlines()
    assert len(lines) == 2 + len(results.JOBS) and lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2] == "| sentiment | accuracy | 2 | 50.50 ± 0.71 | 25.50 ± 0.71 | 13.00 ± 0.71 | 2 | 2 | 2 |"
    assert lines[2 + args.only.index("crf")] == "| crf | f1 | 2 | 50.50 ± 0.71 | 25.50 ± 0.71 |  | 2 | 2 |  |"
