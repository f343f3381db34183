"""The commands and the code of the READMEs, run; tiny checkpoints stand in for the published ones they name."""

import re
import shutil

import numpy as np
import pytest
from documents import ROOT, blocks, run_python, runnable, without_comments

READMES = [ROOT / "README.md", ROOT / "README.zh.md"]


@pytest.fixture
def folder(stand_ins, tmp_path, monkeypatch):
    shutil.copytree(stand_ins, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python(folder):
    names = run_python(READMES[0])
    assert names["hidden"].shape == (
        1,
        len(names["model"].tokenizer.encode("今天天气很好。")[0]),
        names["model"].config.hidden_size,
    )
    assert names["logits"].shape[-1] == names["model"].config.vocab_size
    assert names["albert"].config.model == "albert_unshared"
    np.testing.assert_allclose(names["probabilities"].sum(), 1, rtol=1e-5)


def test_commands(folder, shell):
    run = shell(runnable(READMES[0], "bash"), folder)
    assert run.returncode == 0, run.stderr
    assert "NOT the same" not in run.stdout
    assert (folder / "cpm-hf" / "model.safetensors").is_file()


def test_the_main_command(folder, shell):
    """What follows the installation in the first of the two commands; its first guess must be the poem's character."""
    main, _ = two_commands(READMES[0])
    run = shell(main.partition(" && ")[2], folder)
    assert run.returncode == 0, run.stderr
    guesses = run.stdout.splitlines()
    assert len(guesses) == 5
    assert re.fullmatch(r" *\d+\.\d\d%  月  床前明月光，疑是地上霜。", guesses[0])


def test_ci_runs_the_other_command():
    _, test = two_commands(READMES[0])
    assert test == 'pip install -e ".[test,jax]" && python -m pytest -n 2 --dist loadfile'
    assert "grep -m 1 'python -m pytest' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first = next(line for line in READMES[0].read_text(encoding="utf-8").splitlines() if "python -m pytest" in line)
    assert first == test


def test_both_languages_show_the_same_code():
    for language in ("python", "bash"):
        english, chinese = ([without_comments(b.code) for b in blocks(path, language)] for path in READMES)
        assert english == chinese


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def two_commands(path):
    """The two blocks that set everything up: the first that are not run."""
    return [block.code.strip() for block in blocks(path, "bash") if block.reason][:2]
