"""Processes that stay: each loads one library, warms up, and is then asked in turn for timings while the others sleep.

A worker runs `MODULE:FUNCTION` with keyword arguments. The function returns a `Prepared`, whose outputs go to the
parent for comparison. Lines of JSON go in and out by the pipes; what libraries print goes to the log.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
CPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
PATIENCE = 1800  # seconds that an answer may take


@dataclass
class Prepared:
    """What a worker has, once it is warm: calls to time, the outputs to compare, and other facts of JSON. Where a call
    is long and everything is compiled, `first` says not to spend one before those that count.
    """

    runs: dict[str, Callable[[], object]]
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    first: bool = True


@dataclass(frozen=True)
class Job:
    """A worker to start: `target` is MODULE:FUNCTION."""

    name: str
    target: str
    arguments: dict
    environment: dict = field(default_factory=dict)
    python: str = sys.executable


class Worker:
    """A started worker, and what it said when it was ready. Raises: RuntimeError when it fails."""

    def __init__(self, job: Job, device: str = "cpu"):
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **QUIET, **(CPU if device == "cpu" else {}), **job.environment}
        self.name, self.log = job.name, tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            self.process = subprocess.Popen(
                [job.python, "-m", "tests.benchmarks.workers", json.dumps(asdict(job)), f"{folder}/outputs.npz"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                env=environment | {"PYTHONPATH": paths},
            )  # fmt: skip
            self.ready = self.receive() | {"seconds": time.perf_counter() - begin}
            with np.load(f"{folder}/outputs.npz") as outputs:
                self.outputs = dict(outputs)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()

    def ask(self, run: str, calls: int) -> dict:
        """Seconds of some calls, by default after one that does not count; peak memory of the process in bytes."""
        try:
            self.process.stdin.write(json.dumps({"run": run, "calls": calls}) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has died: receiving says so
        return self.receive()

    def receive(self) -> dict:
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            self.stop()
            self.log.seek(0)
            lines = self.log.read().decode(errors="replace").strip().splitlines() or ["no word"]
            raise RuntimeError("\n".join([f"{self.name}: exit status {self.process.returncode}", *lines[-12:]]))
        return json.loads(line)

    def stop(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def resolve(target: str) -> Callable:
    """The function MODULE:FUNCTION."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def peak() -> int:
    """Most memory this process has held, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(run: Callable, calls: int, first: bool) -> list[float]:
    """Seconds of each call, after a first one that does not count."""
    if first:
        run()
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times


def serve(job: dict, outputs: str) -> None:
    """The process of a worker: prepares, tells, and answers until its input ends."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(message: dict) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    prepared = resolve(job["target"])(**job["arguments"])
    np.savez(outputs, **{name: np.asarray(array) for name, array in prepared.outputs.items()})
    tell({"runs": list(prepared.runs), "facts": prepared.facts, "peak": peak()})
    for line in sys.stdin:
        request = json.loads(line)
        tell({"times": timed(prepared.runs[request["run"]], request["calls"], prepared.first), "peak": peak()})
    channel.close()
    os._exit(0)  # some libraries hang while they are taken down


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), sys.argv[2])
