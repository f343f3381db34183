"""Tiny checkpoints in the published layouts, made without a backend, for the tests of commands and documents."""

import ctypes
import gc
import os
import random
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from exhaustive import IN_TURN, in_turn
from random_models import random_weights, tiny_config

from bert4x.checkpoints.tensors import from_array
from bert4x.checkpoints.write import write, write_config
from bert4x.cli import main
from bert4x.config import TransformerConfig

# XLA, of TensorFlow and JAX, compiles in less time so; at level 0 some tests of accuracy fail. Tests compile
# hundreds of functions and run most of them once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")

# Graphs are made of many objects that live long: Python need not look through all of them so often.
gc.set_threshold(100_000, 20, 50)

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = "床前明月光疑是地上霜今天天气很好我们去公园散步吧举头望低思故乡语言模型，。"
VOCABULARY = [*SPECIALS, *dict.fromkeys(CHARACTERS), *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "aeiou")]
SIZES = {"vocab_size": len(VOCABULARY), "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 52}
# Folders of the documents' examples -> the family and layout of the checkpoint of that name.
STAND_INS = {
    "chinese_L-12_H-768_A-12": ("bert", "tf1"),
    "albert_small_zh_google": ("albert", "tf1"),
    "bert-base-chinese": ("bert", "hf"),
    "CPM-1-Generate": ("gpt2", "megatron"),
}


# They start processes of several GB, and workers grow to as much: together at the end they would fill 24 GB.
OTHER_BACKENDS = ("test_backends.py", "test_generation_backends.py")

TURN = "BERT4X_TESTS_TURN"  # by this, workers and the runs on other backends have the turn of the run that starts them


def pytest_configure(config):
    """pytest-xdist keeps the order of files, instead of taking those with the most tests first; a turn is drawn."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    drawn = os.environ.get(TURN, random.SystemRandom().randrange(10000))
    asked = config.getoption("--turn", None)
    os.environ[TURN] = str(drawn if asked is None else asked)


def pytest_addoption(parser):
    parser.addoption("--compiled", action="store_true", help="compile all of decoding (tests/uncompiled.py)")
    parser.addoption("--turn", type=int, help="which cases of long sweeps are tried (tests/exhaustive.py)")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"the cases of long sweeps were those of --turn {os.environ[TURN]}")


@pytest.hookimpl(tryfirst=True)  # before fixtures decode
def pytest_runtest_setup(item):
    """Tests compile little, but those marked `compiled` (tests/uncompiled.py)."""
    if "keras" in sys.modules:  # files of tests that need no backend do not wait for one
        import uncompiled

        uncompiled.use(not (item.config.getoption("--compiled", False) or item.get_closest_marker("compiled")))


LARGE = 3 << 30  # bytes that a worker may hold without clearing up after a file


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """After a file, a large worker drops its models and compiled functions: they hold themselves in circles."""
    result = yield
    if nextitem is not None and nextitem.path != item.path and resident() > LARGE:
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
    return result


def resident() -> int:
    """Bytes of memory of this process; 0 where only Linux could say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    """Leaves only some cases of long sweeps (tests/exhaustive.py); runs on other backends come first."""
    items.sort(key=lambda item: item.path.name not in OTHER_BACKENDS)
    asked = config.option.markexpr
    for item in items:
        if asked == "exhaustive" and sweep(item) in IN_TURN:
            item.add_marker(pytest.mark.exhaustive)
    result = yield  # pytest leaves out what `-k` and `-m` do not ask for
    if asked == "not exhaustive":
        cases = defaultdict(list)
        for item in items:
            cases[sweep(item)].append(item)
        turn = int(os.environ[TURN])
        stay = {item for name, of in cases.items() for item in in_turn(of, turn, IN_TURN.get(name, len(of)))}
        config.hook.pytest_deselected(items=[item for item in items if item not in stay])
        items[:] = [item for item in items if item in stay]
    return result


def sweep(item) -> str:
    """The test whose case it is, as tests/exhaustive.py names it, or the name of its mark."""
    mark = item.get_closest_marker("sweep")
    return mark.args[0] if mark else f"{item.path.name}::{getattr(item, 'originalname', '')}"


def write_tiny(folder, model="bert", format="hf", *, seed=0, heads=True, shards=None, **sizes) -> Path:
    """A random checkpoint of a few thousand weights in a published layout, with its config and a vocab.txt."""
    changes = SIZES | sizes
    if format == "megatron":  # every size is divided over two or four ranks
        changes = changes | {"vocab_size": changes["vocab_size"] // 4 * 4}
        shards = shards or 2
    described = tiny_config(model, **changes)
    config = TransformerConfig(**described)
    ours = {path: from_array(path, values) for path, values in random_weights(described, heads, seed).items()}
    folder = Path(folder)
    write(folder, format, config, ours, shards=shards)
    write_config(folder, format, config, ours)
    if model != "gpt2":
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    return folder


@pytest.fixture
def tiny(tmp_path):
    """`tiny("name", ...)` writes a checkpoint of that name; see `write_tiny`."""
    return lambda name="source", *args, **kwargs: write_tiny(tmp_path / name, *args, **kwargs)


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory) -> Path:
    """A folder in which tiny checkpoints bear the names of the published ones that the documents speak of."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, (model, format) in STAND_INS.items():
        write_tiny(folder / name, model, format)
    return folder


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    """`shell(script, folder)` runs bash there, with `python` and `bert4x` being those under test."""
    tools = tmp_path_factory.mktemp("bin")
    for name, command in {"python": "", "bert4x": "-m bert4x "}.items():
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command}"$@"\n', encoding="utf-8")
        tool.chmod(0o755)
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(script: str, folder, timeout: float = 300) -> subprocess.CompletedProcess:
        command = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture
def command(capsys):
    """`command(...)` runs bert4x in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            status = exit.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out, captured.err

    return run


def refused(result, *words):
    """An error is one status, one line to stderr, and names what matters."""
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.startswith("bert4x: ")
    for word in words:
        assert str(word) in err


@pytest.fixture
def put(tmp_path):
    """Writes bytes as a PyTorch file; returns its path."""

    def put(data: bytes) -> Path:
        path = tmp_path / "weights.pt"
        path.write_bytes(data)
        return path

    return put
