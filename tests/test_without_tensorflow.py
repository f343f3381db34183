"""Where Keras runs on another backend, TensorFlow need not be installed (docs/installation.md)."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib

import pytest
from documents import ROOT, blocks

# Run before each command: an environment in which TensorFlow is not installed.
WITHOUT = """
import importlib.machinery, sys

class Others(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path = [Others if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""
LOAD_CONVERT_GENERATE = """
import bert4x
one = {"application": "unilm", "num_hidden_layers": 1}
text = bert4x.load(**one).generate("床前明月光", max_new_tokens=3)
assert bert4x.fill_mask("床前明[MASK]光，疑是地上霜。")[0][0].token == "月"
folder = bert4x.convert(bert4x.default_model(), "tf1", "tf1")
assert bert4x.load(folder, **one).generate("床前明月光", max_new_tokens=3) == text
"""
RECIPE = """
import runpy
sys.argv = [RECIPE, "--smoke", "--output", "run", "--model", "tf1", "--max-length", "32", "--max-steps", "8"]
runpy.run_path(RECIPE, run_name="__main__")
import bert4x
assert bert4x.pipeline("text-classification", "run")("味道不错").label
assert "tensorflow" not in sys.modules
"""


def test_load_convert_generate_and_train(tmp_path):
    backend = next((name for name in ("torch", "jax") if importlib.util.find_spec(name)), None)
    if backend is None:
        pytest.skip("neither PyTorch nor JAX is installed")
    recipe = f"RECIPE = {str(ROOT / 'recipes/text_classification.py')!r}\n" + RECIPE
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT + LOAD_CONVERT_GENERATE + recipe],
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.parametrize("page", ["installation.md", "installation.zh.md"])
def test_the_command_installs_everything_else(page):
    """What the package needs but TensorFlow, and a backend."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    needed = {re.match(r"[\w-]+", name)[0] for name in needed}
    command = next(block.code for block in blocks(ROOT / "docs" / page, "bash") if "--no-deps" in block.code)
    assert set(re.findall(r"[\w-]+", command.partition("&& pip install")[2])) == needed - {"tensorflow"} | {"jax"}
