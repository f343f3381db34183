"""Tests run again in a process whose backend is another one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from exhaustive import in_turn

TESTS = Path(__file__).parent
BACKENDS = ("tensorflow", "jax", "torch")
FILES = ("some files", pytest.param("all files", marks=pytest.mark.exhaustive))


def some(files: str, always: str, others: tuple[str, ...], count: int) -> tuple[str, ...]:
    """A file of every run, and some of the others, whose turn it is (tests/exhaustive.py); or all of them."""
    if files == "all files":
        return (always, *others)
    return (always, *in_turn(others, int(os.environ["BERT4X_TESTS_TURN"]), count))


# Tests build the same tiny models again and again: JAX finds there what it has compiled for an equal one.
CACHED = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def run_on(backend: str, files: tuple[str, ...], selection: str, cache: Path) -> None:
    """Runs what `-k` selects of files, `parity` for tests/test_parity.py; all of it must pass. What JAX compiles is
    kept in the folder `cache`.
    """
    if backend == keras.backend.backend():
        pytest.skip(f"{backend} is the backend of this run")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-k", selection, "-p", "no:cacheprovider"]
        + [TESTS / f"test_{name}.py" for name in files],
        env=os.environ | CACHED | {"JAX_COMPILATION_CACHE_DIR": str(cache), "KERAS_BACKEND": backend},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=5400,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
