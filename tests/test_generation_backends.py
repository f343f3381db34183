"""Decoding on the other backends: every test on PyTorch, where nothing is compiled; one of each kind on the rest."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

TESTS = Path(__file__).parent
FILES = (
    "generation",
    "generation_text",
    "generation_transformers",
    "sampling",
    "cpm_generation",
    "stop_strings",
    "auto_regressive",
)
SOME = (
    "(bert-unilm or gpt2-lm) and (cached or streamed) or test_streams and lm and not unilm or test_scores and lm"
    " or test_stop_strings or test_rules and all or test_beams and never or draws_have or a_prompt or twice or cpm"
    " or test_auto_regressive and (bert-unilm and not albert or script or states or filters)"
)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_generation_on(backend):
    if backend == keras.backend.backend():
        pytest.skip(f"{backend} is the backend of this run")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    selection = [] if backend == "torch" else ["-k", SOME]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *selection]
        + [TESTS / f"test_{name}.py" for name in FILES],
        env=os.environ | {"KERAS_BACKEND": backend},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=5400,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
