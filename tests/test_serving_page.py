"""The page of `bert4x serve`: whole in one file, in two languages; used in a browser where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import write_tiny
from test_serving import LIMITS, running

import bert4x
from bert4x.serving.abilities import ATTENTION, SCORES, TASKS, VECTORS, WRITING
from bert4x.serving.app import create_app
from bert4x.serving.models import open_models
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification
from bert4x.tasks.triple_extraction import TripleExtraction

PAGE = (Path(bert4x.__file__).parent / "serving" / "page.html").read_text("utf-8")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_no_other_host_is_named():
    assert set(re.findall(r"https?://[^\s\"'`]+", PAGE)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=\"(?!data:)", PAGE)


def test_both_languages_have_all_words():
    chinese, english = (
        set(re.findall(r"(?:^\s*|[{,]\s*)\"?([\w-]+)\"?: \"", PAGE.split(f"\n  {one}: {{")[1].split("\n  },")[0], re.M))
        for one in ("zh", "en")
    )
    assert chinese == english and len(chinese) > 30
    used = set(re.findall(r"\bt\(\"([\w-]+)\"\)|data-t=\"([\w-]+)\"", PAGE))
    assert {one or other for one, other in used} <= chinese


def test_panes_ask_for_what_servers_have():
    needs = dict(re.findall(r"\"?([\w-]+)\"?: \"([\w-]+)\"", PAGE.split("const NEEDS = {")[1].split("};")[0]))
    assert set(needs.values()) == {*TASKS, VECTORS, SCORES, WRITING, ATTENTION} and set(needs) == set(PANES)


PANES = {
    "fill-mask": "bar", "write": "written", "fewshot": "written", "chat": "written", "similarity": "<td",
    "entities": "<p", "classes": "bar", "rerank": "bar", "reading": "<", "titles": "<strong", "triples": "<",
    "attention": "<td",
}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    base = tmp_path_factory.mktemp("page")
    write_tiny(base / "small", max_position=128)
    backbone = bert4x.load(base / "small")
    TextClassification(backbone, ["坏", "好"], maxlen=32).save(base / "judge")
    TokenClassification(backbone, ["人", "地"], method="softmax", maxlen=32).save(base / "finder")
    TripleExtraction(backbone, ["作者", "生于"], maxlen=32).save(base / "triples")
    ReadingComprehension(backbone, maxlen=64).save(base / "reader")
    Seq2Seq(bert4x.load(base / "small", application="unilm"), maxlen=64, max_target=8).save(base / "titles")
    names = ("small", "judge", "finder", "triples", "reader", "titles")
    models = open_models([f"{name}={base / name}" for name in names], LIMITS)
    with running(create_app(models, LIMITS), LIMITS) as address:
        yield address


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("pane", PANES)
def test_every_pane_is_used_once(address, pane, tmp_path):
    """A link that runs a pane at once; what a browser then holds, without an error on its console."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom",
         "--enable-logging=stderr", "--virtual-time-budget=30000", f"{address}/?run#{pane}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console
    trouble = re.search(r'id="trouble"[^>]*>([^<]*)<', done.stdout)[1]
    assert trouble == ""
    out = done.stdout.split('id="out"')[1]
    assert PANES[pane] in out and "curl " in out and f'data-pane="{pane}"' in done.stdout
