"""Only one run at a time is at work in a folder, and a run that died keeps nobody out."""

import subprocess
import sys

import pytest

from bert4x import recipe
from bert4x.errors import RunError

HOLD = """
import sys
from bert4x.recipe import alone
with alone(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that is at work in a folder."""
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert held.stdout.readline() == "held\n"
    yield held
    held.kill()
    held.communicate()


def arguments(folder):
    return recipe.parse(recipe.Arguments, argv=["--smoke", "--output", str(folder)])


def test_a_second_run_is_refused_and_changes_nothing(other, tmp_path):
    with pytest.raises(RunError, match="another run is at work"):
        recipe.Run(arguments(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_the_lock_of_a_killed_run_is_free(other, tmp_path):
    other.kill()
    other.wait()
    with recipe.Run(arguments(tmp_path / "run")):
        assert (tmp_path / "run" / "args.json").exists()


def test_a_run_that_ends_or_fails_frees_the_folder(tmp_path):
    with recipe.Run(arguments(tmp_path)), pytest.raises(RunError, match="another run is at work"):
        recipe.Run(arguments(tmp_path))
    (tmp_path / "training").mkdir()
    (tmp_path / "training/state.safetensors").write_bytes(b"")
    (tmp_path / "args.json").write_text("{}", "utf-8")
    for _ in range(2):  # the first refusal left the folder free for the second
        with pytest.raises(RunError, match="holds a run"):
            recipe.Run(arguments(tmp_path))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("", "utf-8")
    with pytest.raises(RunError, match="is a file"):
        recipe.Run(arguments(tmp_path / "run"))


@pytest.mark.parametrize("smoke", [True, False])
def test_a_smoke_run_ends_by_saying_what_it_shows(smoke, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recipe.py", *(["--smoke"] if smoke else [])])
    recipe.run(lambda args: print("accuracy 0.5"), recipe.Arguments)
    assert capsys.readouterr().out.splitlines() == ["accuracy 0.5", *([recipe.SMOKE] if smoke else [])]
