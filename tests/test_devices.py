"""Models and batches divided over eight virtual devices, against one; and what is refused."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest

import bert4x
from bert4x import devices, recipe
from bert4x.errors import ConfigError, RunError

pytest.importorskip("jax", reason="keras.distribution is real on JAX only")
NOISE = 2e-5
LAYERS = 1
ONE = "--xla_backend_optimization_level=0"
VIRTUAL = f"--xla_force_host_platform_device_count=8 {ONE}"


@pytest.fixture(scope="module")
def figures() -> dict:
    """What tests/eight_devices.py found, in a process of its own."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": VIRTUAL}
    script = Path(__file__).with_name("eight_devices.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("n", ["2", "8"])
def test_a_divided_model_writes_what_a_whole_one_does(figures, n):
    assert figures["loading"][n]["difference"] < NOISE
    assert figures["loading"][n]["same_ids"]


@pytest.mark.parametrize("n", ["2", "8"])
def test_no_device_and_no_buffer_ever_holds_more_than_a_part(figures, n):
    found = figures["loading"][n]
    assert len(found["divided"]) == 1 + 10 * LAYERS  # the table; five kernels... and the biases of what has columns
    assert found["held"] == [found["whole"] // int(n)] * int(n)
    assert found["foreseen"] == found["all_held"]
    assert found["largest"]["put"] == found["largest_part"]
    assert found["largest"]["read"] <= found["largest_part"]


@pytest.mark.parametrize("n", ["2", "8"])
def test_devices_add_up_twice_a_layer(figures, n):
    assert figures["loading"][n]["all_reduces"] == 2 * LAYERS + 1  # and once for the divided table


def test_other_families(figures):
    assert all(figures["families"][family]["difference"] < NOISE for family in ("bert", "albert"))
    assert "Embedding-Token/embeddings" not in figures["families"]["bert"]["divided"]  # 93 rows
    assert {"Embedding-Token/embeddings", "MLM-Bias/bias"} < set(figures["families"]["albert"]["divided"])


@pytest.mark.parametrize("mesh", ["8 x 1", "1 x 8", "2 x 4"])
def test_training_is_that_on_one_device(figures, mesh):
    found = figures["training"][mesh]
    assert found["losses"] < NOISE
    assert found["values"] < NOISE


@pytest.mark.parametrize(("mesh", "most"), [("8 x 1", 1), ("1 x 8", 0.2), ("2 x 4", 0.33)])
def test_what_training_holds_is_divided_too(figures, mesh, most):
    assert figures["training"][mesh]["share"] <= most


@pytest.mark.exhaustive
def test_two_hosts_are_one(tmp_path):
    """Two processes that find each other by TCP, a copy of the model in each, train and write as one does."""
    from eight_devices import checkpoint

    source, script = checkpoint(tmp_path), Path(__file__).with_name("two_hosts.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    here = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ONE}
    two = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    hosts = [here | two | {"KERAS_DISTRIBUTION_PROCESS_ID": str(number)} for number in range(2)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, script, source], env=env, **pipes) for env in (*hosts, here)]
    try:
        said = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0, 0], "\n".join(err[-2000:] for _, err in said)
    first, second, alone = (json.loads(out.splitlines()[-1]) for out, _ in said)
    assert (first["hosts"], first["copies"], alone["hosts"], alone["copies"]) == (2, 2, 1, 1)
    assert first == second and first["ids"] == alone["ids"]
    assert first["losses"] == pytest.approx(alone["losses"], abs=NOISE)


@pytest.fixture
def machine(monkeypatch):
    """A machine with eight devices, as far as asking goes."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: [f"gpu:{i}" for i in range(8)])


def test_all_devices_are_used(machine):
    found = bert4x.distribution(model=4)
    assert (found.data, found.model, found.num_model_replicas) == (2, 4, 2)
    assert bert4x.distribution(data=1, model=2).device_mesh.devices.ravel().tolist() == ["gpu:0", "gpu:1"]
    assert recipe.distribution(8, 4, 16).device_mesh.shape == (2, 4)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: bert4x.distribution(data=3, model=4), "3 x 4 .* 8 found: gpu:0"),
        (lambda: bert4x.distribution(model=16), "1 x 16 .* 8 found"),
        (lambda: bert4x.distribution(model=0), "model=0; expected"),
        (lambda: recipe.distribution(3, 2, 16), "--devices 3 .* --model-parallel 2"),
        (lambda: recipe.distribution(6, 2, 16), "--batch-size 16 .* 3 copies"),
    ],
)
def test_too_many_devices(machine, ask, words):
    with pytest.raises(RunError, match=words):
        ask()


@pytest.mark.parametrize(("backend", "words"), [("tensorflow", "MirroredStrategy"), ("torch", "KERAS_BACKEND=jax")])
def test_other_backends_say_what_to_do(monkeypatch, backend, words):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(RunError, match=words):
        bert4x.distribution()


def test_heads_and_units_must_divide(machine, monkeypatch):
    monkeypatch.setattr(keras.distribution, "distribution", lambda: bert4x.distribution(model=8))
    config = SimpleNamespace(num_attention_heads=12, intermediate_size=3072)
    with pytest.raises(ConfigError, match=r"12 attention heads .* over 8 devices; expected model = 1, 2, 3, 4, 6, 12$"):
        devices.check(config)
    config.num_attention_heads = 16
    devices.check(config)
    with pytest.raises(ConfigError, match="quantize='int8' is for"):
        devices.check(config, "int8")
