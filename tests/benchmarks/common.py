"""What the benchmarks share: fresh processes and their peak memory, medians of alternated runs, tables, the machine."""

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BACKENDS = ("tensorflow", "jax", "torch")
PEERS = (
    *("transformers", "sentence-transformers", "keras-hub", "bert4keras", "onnxruntime", "openvino", "savedmodel"),
)
PACKAGES = ("numpy", "keras", "tensorflow", "jax", "torch", "transformers", "keras_hub", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Run:
    """One finished process: wall seconds, ru_maxrss in bytes, what it printed."""

    seconds: float
    peak: int
    output: str


def run(*command: str, **environment: str) -> Run:
    """Runs a command to its end. Python ones see this checkout; backends are quiet.

    Raises: RuntimeError with its errors when it fails.
    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **quiet, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} failed with {process.returncode}:\n{output[-3000:]}")
    return Run(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), output)


def python(code: str, **environment: str) -> Run:
    """Runs a program in a fresh interpreter."""
    return run(sys.executable, "-c", code, **environment)


def alternate(runs: Mapping[str, Callable[[], Run]], repeats: int) -> dict[str, list[Run]]:
    """A B C A B C ...: what else the machine does meets all of them alike."""
    results = {name: [] for name in runs}
    for _ in range(repeats):
        for name, start in runs.items():
            results[name].append(start())
    return results


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def seconds(results: list[Run]) -> float:
    """Median wall time."""
    return median(result.seconds for result in results)


def peak(results: list[Run]) -> float:
    """Median peak memory in bytes."""
    return median(result.peak for result in results)


def installed(name: str) -> bool:
    """Whether a peer or backend can be measured here; says so if not."""
    found = importlib.util.find_spec(name) is not None
    if not found:
        print(f"{name} is not installed: skipped")
    return found


def machine() -> dict[str, str]:
    """Processor, memory, versions, date and load, which belong to every figure."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    facts = {
        "date": datetime.date.today().isoformat(),
        "processor": f"{os.cpu_count()} x {names[0].split(':')[1].strip() if names else platform.processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    for name in PACKAGES:
        if importlib.util.find_spec(name) is not None:
            facts[name] = importlib.metadata.version(name)
    return facts


def arguments(description: str, folder: str) -> argparse.ArgumentParser:
    """A parser with the arguments all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(folder), help="scratch space (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, alternated; medians are shown")
    parser.add_argument("--out", type=Path, help="where to write what was measured")
    return parser


def options(description: str) -> argparse.ArgumentParser:
    """A parser with the options of every case of `python -m tests.benchmarks`."""
    parser = arguments(description, "build/benchmarks")
    parser.set_defaults(repeats=3)
    parser.add_argument("--size", choices=("toy", "small", "full"), default="full", help="of models and data")
    parser.add_argument("--against", nargs="*", choices=PEERS, default=list(PEERS), metavar="PEER", help="whom")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=list(BACKENDS), help="of Keras")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--calls", type=int, help="timed calls in each run (default: as the case has it)")
    return parser


def main(parser: argparse.ArgumentParser, measure: Callable, arguments: list[str] | None = None) -> None:
    """One case: prints what it found, and writes it into the folder `--out`."""
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    found = measure(args)
    print(found.markdown(), flush=True)
    if args.out:
        found.write(args.out)
