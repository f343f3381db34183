"""The GPU benchmark at toy sizes on the CPU: it runs, keeps its rows, goes on, and counts by its formulas."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import gpu
from documents import ROOT

pytest.importorskip("jax", reason="the GPU benchmark measures bert4x on JAX")

OPTIONS = ["--size", "toy", "--seconds", "0.01", "--repeats", "1", "--against", "bert4x", "bert4x, flash"]
# All rows in one process: a fresh one for each would take most of the time of this test.
HERE = "from tests.benchmarks import gpu, gpu_contenders; gpu.start = gpu_contenders.run; gpu.main({0!r})"


def run(*command, **environment):
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment = os.environ | quick | environment
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    options = [*OPTIONS, "--folder", str(folder), "--out", str(folder / "gpu.json"), "--only", "base-inference-128"]
    options += ["base-training-128-mixed_float16", "gpt2-generation-1", "gpt2-lora"]
    done = run("-c", HERE.format(options), KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr[-3000:]
    return SimpleNamespace(
        folder=folder, data=json.loads((folder / "gpu.json").read_text("utf-8")), printed=done.stdout
    )


@pytest.mark.sweep("runs of benchmarks")
def test_every_task_is_measured(measured):
    told = {name: row["told"]["bert4x"][0] for name, row in measured.data["rows"].items()}
    assert set(told) == {
        *("limits", "bert-base-inference-128", "bert-base-training-128-mixed_float16"),
        *("gpt2-generation-1", "gpt2-lora"),
    }
    assert all(min(of["times"]) > 0 for of in told.values())
    assert {"bfloat16", "float16", "float32", "bandwidth"} <= set(told["limits"]["limits"])
    assert np.std(told["bert-base-inference-128"]["outputs"]) > 0.1  # normalised, of 64 numbers
    assert told["gpt2-lora"]["outputs"][0] == pytest.approx(np.log(gpu.TOY[-1]), abs=0.5)
    assert len(told["gpt2-generation-1"]["outputs"]) == told["gpt2-generation-1"]["tokens"][1]
    assert all(name in measured.printed for name in told)
    flash = {
        name: row["told"]["bert4x, flash"][0]
        for name, row in measured.data["rows"].items()
        if "bert4x, flash" in row["told"]
    }
    assert set(flash) == {"bert-base-inference-128", "gpt2-lora"}  # elsewhere it would change nothing
    for name, of in flash.items():
        assert of["outputs"] == pytest.approx(told[name]["outputs"], abs=0.05)


@pytest.mark.sweep("runs of benchmarks")
def test_a_run_goes_on_where_it_was_cut_off_in_fresh_processes(measured):
    out = measured.folder / "cut.json"
    rows = {name: row for name, row in measured.data["rows"].items() if name in ("limits", "gpt2-lora")}
    out.write_text(json.dumps(measured.data | {"rows": rows}), "utf-8")
    options = [*OPTIONS, "--folder", str(measured.folder), "--out", str(out), "--resume"]
    done = run("-m", "tests.benchmarks.gpu", *options, "--only", "gpt2-lora", "bert-base-inference-128")
    assert done.returncode == 0, done.stderr[-3000:]
    after = json.loads(out.read_text("utf-8"))["rows"]
    assert {name: after[name] for name in rows} == rows
    assert after["bert-base-inference-128"]["told"]["bert4x"][0]["times"]
    assert "gpt2-lora: about" not in done.stdout


def test_without_a_gpu_a_full_row_says_so(measured):
    options = ["--only", "limits", "--against", "bert4x", "--repeats", "1", "--out", str(measured.folder / "full.json")]
    done = run("-m", "tests.benchmarks.gpu", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "JAX sees no GPU" in done.stdout


def test_the_names_of_rows_are_all_different():
    names = [row.name for row in gpu.rows()]
    assert len(names) == len(set(names)) and "bert-large-training-512" in names


def test_operations_and_bytes_are_those_of_the_papers():
    by_name = {row.name: row for row in gpu.rows()}
    row = by_name["bert-base-training-128"]
    config = gpu.config_of("bert-base", "full")
    tokens = row.batch * row.length
    # 85 million weights in dense layers, 6 operations a weight and token; attention adds 128 / 768 / 6 of it.
    assert gpu.operations(row, config) == pytest.approx(6 * tokens * 84.93e6 * (1 + 128 / 768 / 6), rel=1e-3)
    row = by_name["cpm-generation-1"]
    read = gpu.bytes_read(row, gpu.config_of("cpm", "full"), (97, 128))
    assert read == pytest.approx(2 * 2.594e9, rel=0.01)  # the weights; keys and values of 150 tokens are little


def test_figures_compare_the_contenders():
    row = next(row for row in gpu.rows() if row.name == "bert-large-training-512")
    config = gpu.config_of("bert-large", "full")

    def told(times, outputs):
        return {"times": times, "first": 9.0, "peak": 1e9, "outputs": outputs}

    measured = {
        "told": {
            "bert4x": [told([1.0, 1.0], [2.0, 4.0]), told([1.0, 3.0], [])],
            "bert4x, flash": [told([9.0], [2.0, 4.0]), told([9.0], [])],  # slower: not compared with
            "transformers": [told([2.0, 2.0], [2.0, 3.0]), told([3.0, 3.0], [])],
        },
        "reasons": {"transformers, compiled": "torch not installed"},
    }
    limits = {"bfloat16": gpu.operations(row, config) * 2}
    found = gpu.figures(row, measured, limits, "full")
    assert found["bert4x"]["share"] == 0.5 and found["bert4x"]["seconds"] == 1.0
    assert found["transformers"]["ratios"] == [1.5, 2.0]  # of each pair of processes
    assert found["transformers"]["difference"] == 0.25
    printed = gpu.table(gpu.lines(row, measured, limits, "full"))
    assert ">= 1.2" in printed and "50%" in printed and "skipped: torch not installed" in printed
