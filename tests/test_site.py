"""The site of the documentation: its search, what fits on its pages, and the pictures that scripts draw."""

import re
import runpy
import unicodedata
import warnings

import pytest
from documents import BLOCK, ROOT

DOCS = ROOT / "docs"
COLUMNS = 112  # of a block of code on a page that is 1280 pixels wide: see docs/styles/site.css


def columns(line):
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def test_search_finds_chinese_words():
    """The plugin puts U+200B between the words of Chinese text; the search must part them there."""
    separator = re.search(r"separator: '(.*)'", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))[1]
    words = re.split(separator, "文本\u200b生成 bert4x.load(with_mlm=True), 显存\u200b占用 1.5")
    assert {"生成", "显存", "load", "with_mlm", "1.5"} <= set(words)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_code_fits_its_block(page):
    """Where it does not, put comments above the code, or break the line."""
    code = [line for match in BLOCK.finditer(page.read_text(encoding="utf-8")) for line in match["code"].splitlines()]
    assert [line for line in code if columns(line) > COLUMNS] == []


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    pictures = runpy.run_path(str(DOCS / "pictures.py"))["PICTURES"]
    assert all((DOCS / "images" / name).is_file() for name in pictures)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fonts
        pictures["triples.png"](tmp_path / "triples.png")
        pictures["growth.svg"](tmp_path / "growth.svg")
    assert (tmp_path / "triples.png").read_bytes().startswith(b"\x89PNG")
    labels = re.findall(r"<!-- (.*?) -->", (tmp_path / "growth.svg").read_text(encoding="utf-8"))
    assert {"tokens", "batch", "layers", "seconds", "peak memory, GB", "4,096"} <= set(labels)
    assert not any("times" in label for label in labels)  # of 1.2 x 10^0


def test_the_picture_of_decoding_belongs_to_the_code_above_it():
    """docs/pictures.py runs that code; what it draws is what a reader gets."""
    page = (DOCS / "bidirectional.md").read_text(encoding="utf-8")
    above = page.partition("![Four hypotheses of the small model")[0]
    assert above.rstrip().endswith("```")
    assert 'decoding_paths(paths, seq.tokenizer, "paths.png"' in above.rpartition("```python")[2]
