"""The code of docs/ is run, with tiny checkpoints for the published ones it names; and docs leave nothing out."""

import dataclasses
import json
import re
import runpy
import shutil

import pytest
import safetensors.numpy
from documents import ROOT, blocks, run_python, runnable, without_comments

import bert4x
from bert4x import errors, families
from bert4x.checkpoints.files import default_model
from bert4x.models.builder import TransformerBuilder
from bert4x.models.options import LOADING_OPTIONS

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md") if not path.name.endswith(".zh.md"))


def pages_with(language):
    return [pytest.param(page, id=page.stem) for page in PAGES if runnable(page, language)]


@pytest.fixture
def folder(stand_ins, tmp_path, monkeypatch):
    shutil.copytree(stand_ins, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    families.families()  # imports them
    ours = {name: cls for name, cls in families._CLASSES.items() if cls.__module__.startswith("bert4x.families.")}
    monkeypatch.setattr(families, "_CLASSES", ours)  # a page may register a family; it is gone after the page
    return tmp_path


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    """The embedded model, of which one layer is left: it is traced and compiled in a third of the time."""
    embedded, folder = default_model(), tmp_path_factory.mktemp("embedded") / "default"
    shutil.copytree(embedded, folder)
    config = json.loads((embedded / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}), "utf-8")
    weights = safetensors.numpy.load_file(embedded / "model.safetensors")
    kept = {name: values for name, values in weights.items() if not re.match("Transformer-[1-9]", name)}
    assert len(kept) < len(weights)
    safetensors.numpy.save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.filterwarnings("ignore:the model has")  # the pages show strict=False
@pytest.mark.parametrize("page", pages_with("python"))
def test_python(page, folder, shallow, monkeypatch):
    if page.stem != "training":  # which takes what the third of its layers gives
        monkeypatch.setattr("bert4x.models.build.default_model", lambda: shallow)
    run_python(page)


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands(page, folder, shell):
    run = shell(runnable(page, "bash"), folder)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_both_languages_have_the_page_and_its_code(page):
    chinese = page.with_suffix(".zh.md")
    for language in ("python", "bash"):
        ours, theirs = ([without_comments(b.code) for b in blocks(path, language)] for path in (page, chinese))
        assert ours == theirs
    tables = [len(re.findall(r"^\|", path.read_text(encoding="utf-8"), flags=re.M)) for path in (page, chinese)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("suffix", [".md", ".zh.md"])
def test_every_option_and_error_is_described(suffix):
    loading, errors_page = ((DOCS / f"{name}{suffix}").read_text(encoding="utf-8") for name in ("loading", "errors"))
    options = {*TransformerBuilder.options, *LOADING_OPTIONS} - {"name"}  # Keras' own
    assert [name for name in sorted(options) if f"`{name}`" not in loading] == []
    types = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(types) > 10
    assert [name for name in types if f"`{name}`" not in errors_page and name != "Bert4xError"] == []


@pytest.mark.parametrize("suffix", [".md", ".zh.md"])
def test_every_option_of_generation_is_described(suffix):
    page = (DOCS / f"generation{suffix}").read_text(encoding="utf-8")
    names = [field.name for field in dataclasses.fields(bert4x.GenerationOptions)]
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_public_name_is_described():
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert [name for name in bert4x.__all__ if not name.startswith("__") and name not in text] == []


@pytest.mark.parametrize("name", ["visibility", "house"])
def test_figures_are_what_their_scripts_draw(name):
    draw = runpy.run_path(str(DOCS / f"{name}.py"))["draw"]
    assert (DOCS / "images" / f"{name}.svg").read_text(encoding="utf-8") == draw()


@pytest.mark.parametrize("suffix", [".md", ".zh.md"])
def test_the_page_of_families_is_what_its_script_writes(suffix):
    page = runpy.run_path(str(DOCS / "families.py"))["page"]
    assert (DOCS / f"families{suffix}").read_text(encoding="utf-8") == page(suffix), "python docs/families.py"
