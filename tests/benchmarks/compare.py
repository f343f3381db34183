"""Contenders measured in turn, A B C A B C ..., on the same inputs, and their outputs compared."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.benchmarks import common
from tests.benchmarks.contenders import Contender
from tests.benchmarks.workers import Job, Worker

KEPT_FREE = 0.4  # of the machine's memory: workers that would leave less are started anew in every round


@dataclass
class Figures:
    """What is known of a contender in one run: all timings, peak memory, how far its outputs are off."""

    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    facts: dict = field(default_factory=dict)
    difference: float | None = None

    @property
    def median(self) -> float:
        return common.median(self.seconds)


@dataclass
class Measured:
    """Figures by run and name of a job; errors of those that failed."""

    figures: dict[str, dict[str, Figures]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    apart: dict[str, dict[str, float]] = field(default_factory=dict)  # differences by job and output

    @property
    def differences(self) -> dict[str, float]:
        """The largest difference of every job that has outputs."""
        return {name: max(apart.values()) for name, apart in self.apart.items() if apart}

    def of(self, run: str, library: str) -> dict[str, Figures]:
        """Those of one library."""
        return {name: f for name, f in self.figures.get(run, {}).items() if f"{name}, ".startswith(f"{library}, ")}

    def best(self, run: str, library: str) -> Figures | None:
        """The fastest form of a library."""
        return min(self.of(run, library).values(), key=lambda figures: figures.median, default=None)


def free_memory() -> float:
    """The share of the machine's memory that is free."""
    text = Path("/proc/meminfo").read_text() if Path("/proc/meminfo").exists() else ""
    found = dict(re.findall(r"(MemTotal|MemAvailable):\s+(\d+)", text))
    return int(found["MemAvailable"]) / int(found["MemTotal"]) if len(found) == 2 else 1.0


def measure(jobs: Sequence[Job], rounds: int, calls: Mapping[str, int], *, keep: bool, device: str = "cpu") -> Measured:
    """Asks workers in turn, `rounds` times, for `calls` of each of their runs. With `keep` they stay alive between the
    rounds as long as memory lasts; else every round has fresh processes. The first job whose outputs have a name is
    what the others' outputs of that name are compared with.
    """
    measured, alive, expected = Measured(), {}, {}
    try:
        for turn in range(rounds):
            for job in jobs:
                if job.name in measured.errors:
                    continue
                print(f"round {turn + 1} of {rounds}: {job.name}", flush=True)
                try:
                    worker = alive.pop(job.name, None) or Worker(job, device)
                    ask(worker, calls, measured, expected)
                except RuntimeError as error:
                    measured.errors[job.name] = str(error)
                    print(error, flush=True)
                    continue
                if keep and turn + 1 < rounds and free_memory() > KEPT_FREE:
                    alive[job.name] = worker
                else:
                    worker.stop()
    finally:
        for worker in alive.values():
            worker.stop()
    return measured


def ask(worker: Worker, calls: Mapping[str, int], measured: Measured, expected: dict[str, np.ndarray]) -> None:
    """One worker's turn. Raises: RuntimeError"""
    apart = {name: relative(found, expected.setdefault(name, found)) for name, found in worker.outputs.items()}
    measured.apart[worker.name] = apart
    for run in worker.ready["runs"]:
        told = worker.ask(run, calls.get(run.split()[0], calls.get("", 1)))
        figures = measured.figures.setdefault(run, {}).setdefault(worker.name, Figures())
        figures.seconds += told["times"]
        figures.peak, figures.difference = max(figures.peak, told["peak"]), max(apart.values(), default=None)
        figures.facts |= worker.ready["facts"] | {"ready": worker.ready["seconds"]}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The root mean square of the difference, as a share of that of what was expected; of integers the share that is
    another one; inf for another shape.
    """
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind == "i":
        return float(np.mean(found != expected))
    scale = float(np.sqrt(np.mean(np.square(expected, dtype="float64")))) or 1.0
    apart = float(np.sqrt(np.mean(np.square(found.astype("float64") - expected))))
    return apart / scale if np.isfinite(apart) else float("inf")


def jobs_of(target: str, contenders: Sequence[Contender], arguments: dict) -> list[Job]:
    """A worker for each contender; the target is told who it is."""
    return [
        Job(c.name, target, arguments | {"module": c.module, "library": c.library, "form": c.form}, c.environment,
            c.python)
        for c in contenders
    ]  # fmt: skip


def limits(size: str, dtype: str | None = None) -> list[Job]:
    """Workers that measure what the machine can do: matrix products, or its memory."""
    if dtype is None:
        return [Job("limit", "tests.benchmarks.limits:memory", {"size": size})]
    environment = {"KERAS_BACKEND": "tensorflow"}
    return [Job("limit", "tests.benchmarks.limits:products", {"size": size, "dtype": dtype}, environment)]


def limit(measured: Measured) -> float | None:
    """What was reached by the best of the limit's runs: operations, or bytes, a second."""
    found = [of["limit"].facts[run] / of["limit"].median for run, of in measured.figures.items() if "limit" in of]
    return max(found, default=None)


def is_limit(run: str, measured: Measured) -> bool:
    """Whether a run is one of the limit's."""
    return "limit" in measured.figures[run]


def problems(measured: Measured, what: str, tolerance: float) -> list[str]:
    """What failed, and whose outputs are too far off."""
    found = [f"{what}: {error.splitlines()[0]}: {error.splitlines()[-1]}" for error in measured.errors.values()]
    off = {name: difference for name, difference in measured.differences.items() if difference > tolerance}
    return found + [f"{what}: {name} differs by {difference:.1e}" for name, difference in off.items()]
