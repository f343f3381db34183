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


def test_python(folder, capsys):
    names = run_python(READMES[0])
    printed = capsys.readouterr().out.splitlines()
    assert names["hidden"].shape == (
        1,
        len(names["model"].tokenizer.encode("今天天气很好。")[0]),
        names["model"].config.hidden_size,
    )
    assert names["logits"].shape[-1] == names["model"].config.vocab_size
    assert names["albert"].config.model == "albert_unshared"
    np.testing.assert_allclose(names["probabilities"].sum(), 1, rtol=1e-5)
    for path in READMES:  # what the first lines print is written below them
        assert blocks(path, "")[0].code.strip() == printed[0]


def test_commands(folder, shell):
    run = shell(runnable(READMES[0], "bash"), folder)
    assert run.returncode == 0, run.stderr
    assert "NOT the same" not in run.stdout
    assert (folder / "cpm-hf" / "model.safetensors").is_file()


def test_ci_runs_its_command():
    *_, test = [block.code.strip() for block in blocks(READMES[0], "bash") if block.reason]
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


@pytest.mark.parametrize(
    "path", [*READMES, ROOT / "docs/index.md", ROOT / "docs/index.zh.md"], ids=lambda path: path.name
)
def test_every_page_is_listed(path):
    """In both READMEs and on both front pages, each in its language."""
    suffix = ".zh.md" if path.name.endswith(".zh.md") else ".md"
    pages = {page.name.partition(".")[0] for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert len(pages) > 17
    base = "docs/" if path in READMES else ""
    text = path.read_text(encoding="utf-8")
    assert [page for page in sorted(pages) if f"]({base}{page}{suffix})" not in text] == []


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = sorted(page.name for page in (ROOT / "docs").glob("*.md") if not page.name.endswith(".zh.md"))
    assert [page for page in pages if not re.search(rf": {re.escape(page)}$", nav, re.M)] == []
    translated = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav_translations:")[2]
    names = re.findall(r"^ *- ([A-Z][^:]*):", nav, re.M)
    assert [name for name in names if f" {name}: " not in translated] == []


@pytest.mark.parametrize("path", sorted([READMES[1], *(ROOT / "docs").glob("*.zh.md")]), ids=lambda path: path.name)
def test_chinese_pages_lead_to_chinese_pages(path):
    """As files, too, where a code host shows them; English is only the way to the other language."""
    links = re.findall(r"\]\((?!https?:)([^)#]+\.md)", path.read_text(encoding="utf-8"))
    others = [link for link in links if not link.endswith(".zh.md")]
    assert set(others) <= {"README.md", "CHANGELOG.md", "THIRD_PARTY.md"}


def test_every_extra_is_in_the_table_of_installation():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for page in ("installation.md", "installation.zh.md"):
        rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M)
        assert rows == list(extras)


def test_nothing_is_said_to_come_from_a_package_index():
    """bert4x is on none: `pip install "bert4x[...]"` would install what somebody else put there, or nothing."""
    files = [*READMES, *(ROOT / "docs").glob("*.md"), *(ROOT / "bert4x").rglob("*.py"), ROOT / "bert4x/catalogue.toml"]
    assert [path.name for path in files if re.search(r"pip install \S?bert4x", path.read_text(encoding="utf-8"))] == []
