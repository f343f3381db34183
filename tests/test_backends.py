"""The parity tests again on every other backend that is installed: the same code must run on all of them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

TESTS = Path(__file__).parent
# one family with shared layers and a mapping, one causal, one of two sides; training; loading; a cache; two directions;
# resuming; gradients in 16 bits; Keras' own attention; labels and ids out of range;
# attention weights; models over ours, and copies; int8
SELECTION = (
    "(TestAlbert or TestGpt2) and not Unshared and (application or conditional or serialization or learns)"
    " or TestGpt2 and mixed_bfloat16 or saved_by_transformers or cpm"
    " or TestTransformer and (application or serialization or learns) or test_transformer and cached"
    " or test_bidirectional and plain and not albert"
    " or killed_run_goes_on"
    " or gradients_are_those_of_float32 and seq2seq"
    " or test_flash_attention and not shared and not lm"
    " or test_limits"
    " or test_attentions and (one_text and not albert or encoder_decoder)"
    " or test_models and (on_top or pickle)"
    " or test_quantized and (equals_the_oracle or product or test_generation) and not albert"
)
FILES = (
    "parity",
    "published",
    "transformer",
    "bidirectional",
    "training_loop",
    "precision",
    "flash_attention",
    "limits",
    "attentions",
    "models",
    "quantized",
)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_parity_on(backend):
    if backend == keras.backend.backend():
        pytest.skip(f"{backend} is the backend of this run: test_parity.py has run on it")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-k", SELECTION, "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, *(TESTS / f"test_{name}.py" for name in FILES)],
        env=os.environ | {"KERAS_BACKEND": backend},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=5400,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
