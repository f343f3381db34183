"""TensorFlow's log while it is imported: put aside, shown where it matters."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from documents import ROOT, blocks

LINES = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795992095.810558    9676 cudart_stub.cc:31] Could not find cuda drivers on your machine.
2026-01-01 10:00:00.123456: W tensorflow/core/platform/port.cc:113] oneDNN custom operations are on.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
a line that is none of a log
"""
# A stand-in for TensorFlow: it writes to file descriptor 2 as native code does.
FAKE = f"""import os, sys, types
os.write(2, {LINES.encode()!r})
print("a warning of Python's", file=sys.stderr)
def list_physical_devices():
    os.write(2, b"E0000 00:00:1.1 1 cuda_platform.cc:52] failed call to cuInit\\n")
config = types.SimpleNamespace(list_physical_devices=list_physical_devices)
LEVEL = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
"""


@pytest.fixture
def python(tmp_path):
    """Runs code where `tensorflow` is the stand-in, or code of its own; returns the finished process."""

    def run(code, tensorflow=FAKE, **environment):
        (tmp_path / "tensorflow.py").write_text(tensorflow)
        paths = os.pathsep.join([str(tmp_path), str(ROOT)])
        before = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        environment = before | {"PYTHONPATH": paths} | environment
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)

    return run


def test_only_what_is_no_log_is_seen(python):
    code = "import sys, bert4x, tensorflow; print(tensorflow.LEVEL); print('after', file=sys.stderr)"
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr.splitlines() == ["a line that is none of a log", "a warning of Python's", "after"]


def test_a_failed_import_shows_all(python):
    done = python("import bert4x, tensorflow", FAKE + "raise ImportError('no such symbol')")
    assert done.returncode == 1
    assert done.stderr.startswith(LINES + "a warning of Python's\n")
    assert done.stderr.endswith("ImportError: no such symbol\n")


def test_a_crash_says_where(python):
    done = python("import bert4x, tensorflow", FAKE + "os.abort()")
    assert done.returncode != 0
    assert "Fatal Python error: Aborted" in done.stderr
    assert "quiet.py" in done.stderr


@pytest.mark.parametrize("code", ["import tensorflow, bert4x", "import bert4x, tensorflow"])
def test_everything_is_seen_on_request_or_without_bert4x(python, code):
    environment = {"TF_CPP_MIN_LOG_LEVEL": "0"} if code.startswith("import bert4x") else {}
    assert python(code, **environment).stderr == LINES + "a warning of Python's\n"


def test_looking_for_tensorflow_does_not_use_it_up(python):
    """Libraries ask whether it is installed before they import it; so does a second import after a failed one."""
    code = """
import importlib.util, sys, bert4x
assert importlib.util.find_spec("tensorflow") is not None
assert importlib.util.find_spec("no_such_module") is None
import tensorflow
assert not [finder for finder in sys.meta_path if type(finder).__name__ == "QuietFinder"]
assert "exec_module" not in vars(tensorflow.__spec__.loader)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "cudart_stub" not in done.stderr


def test_without_an_error_stream(python):
    silent = "class config:\n    list_physical_devices = list"
    done = python("import os; os.close(2)\nimport bert4x, tensorflow; print('done')", silent)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_the_first_command_prints_nothing_but_the_answer(python, tmp_path):
    """The README's, with the real TensorFlow, where Keras runs on it: its first guess is the poem's character."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    first = next(block.code.strip() for block in blocks(ROOT / "README.md", "bash"))  # it installs, which CI does
    install, _, command = first.partition(" && ")
    program, *arguments = shlex.split(command)
    assert (install, program) == ("pip install .", "bert4x")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-m", "bert4x", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    guesses = done.stdout.splitlines()
    assert len(guesses) == 5
    assert re.fullmatch(r" *\d+\.\d\d%  月  床前明月光，疑是地上霜。", guesses[0])
    assert done.stderr == ""
