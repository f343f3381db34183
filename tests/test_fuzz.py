"""A short slice of the fuzzer, and whether it would notice. Each runs in a process of its own, as it sets limits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="limits memory and time as Unix does")
ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_no_mutation_gets_through():
    result = run("-m", "tests.fuzz", "--count", "3400", "--seed", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3400 mutations, 0 failures" in result.stdout


def test_every_mutated_format_is_also_readable():
    """A fuzzer whose mutations never read, or never fail, would test nothing."""
    result = run("-m", "tests.fuzz", "--count", "2310", "--seed", "2")
    lines = [line for line in result.stdout.splitlines() if " failures; " in line]
    assert len(lines) == 17, result.stdout + result.stderr
    for line in lines:
        assert "read " in line and "Error " in line, line


def test_small_files_that_ask_for_much():
    """At most 64 times the file's size and 64 MB, and 5 seconds. A third of them, by the run's turn; all are
    `python -m tests.fuzz --bombs`.
    """
    result = run("-m", "tests.fuzz", "--bombs", "3", "--seed", os.environ["BERT4X_TESTS_TURN"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert " bombs, 0 failures" in result.stdout


NO_BUDGET = """
import multiprocessing
from tests import fuzz_bombs

def hungry(reader, folder):
    return len(bytearray(200 << 20)) and "read"

def idle(reader, folder):
    while True:
        pass

def careless(reader, folder):
    raise KeyError(reader)

if __name__ == "__main__":
    fuzz_bombs.SECONDS = 1
    context = multiprocessing.get_context("fork")
    bomb = "torch", {"x.pt": b"PK"}
    for fuzz_bombs.use in (hungry, idle, careless):
        outcome, seconds, memory, allowed = fuzz_bombs.measured(bomb, context)
        beyond = outcome not in fuzz_bombs.OUTCOMES or seconds > fuzz_bombs.SECONDS or memory > allowed
        print(beyond, outcome, seconds, memory, allowed)
"""


def test_what_costs_too_much_is_noticed():
    result = run("-c", NO_BUDGET)
    assert result.stdout.count("True") == 3, result.stdout + result.stderr


BAD_READERS = """
import os, sys, tempfile
from pathlib import Path
import numpy as np
from bert4x.checkpoints.tensors import LazyTensor, from_array
from bert4x.errors import CorruptFileError
from tests import fuzz
from tests.fuzz_targets import Target

fuzz.SECONDS = 0.5
guard = fuzz.Guard()

def loop(folder):
    while True:
        pass

def swallow(folder):
    os.system("true")
    raise CorruptFileError("refused, but too late")

readers = {
    "KeyError": lambda folder: {}["missing"],
    "Hang": loop,
    "MemoryError": lambda folder: bytearray(3 << 30),
    "os.system": swallow,
    "open": lambda folder: open(folder / "y", "w").close() or {},
    "import": lambda folder: __import__("sched") and {},
    "declared": lambda folder: {"a": LazyTensor("a", (3,), np.dtype("f4"), lambda: np.zeros(2, "f4"))},
    "changed": lambda folder: {"a": LazyTensor("a", (1,), np.dtype("f4"), lambda: np.zeros(1, "f4"), lambda: True)},
}
for name, reader in readers.items():
    with tempfile.TemporaryDirectory() as folder:
        target = Target({"x": b"x"}, "x", reader, checked=True)
        outcome, problem = fuzz.attempt(target, Path(folder), b"y", {}, guard)
        assert name in problem, (name, outcome, problem)
print("all noticed")
"""


def test_what_must_not_happen_is_noticed():
    result = run("-c", BAD_READERS)
    assert "all noticed" in result.stdout, result.stdout + result.stderr
