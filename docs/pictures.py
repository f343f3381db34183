"""Draws pictures of these pages and of the README into images/: `python docs/pictures.py [NAME ...]`, all by default.

Chinese characters need a font that has them (the package fonts-noto-cjk). images/visibility.svg has a script of its
own; images/decoding_paths_trained.png is from a run of an hour, described below it.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).parent / "images"
SENTENCES = (
    "周望舒毕业于临海大学，代表作有《北方的灯》和《旧车站》",
    "《灯塔以西》的主演罗一鸣说，导演叶青很严格",
    "钱国梁拍了《老街茶馆》，主演是罗一鸣和苏曼",
)
TABLE = re.compile(
    r"^\| (tokens|batch|layers),[^|]*\|(.*)\| slope \|$\n.*$\n^\| seconds \|(.*)$\n^\| peak, GB \|(.*)$", re.M
)


def triples(path: Path) -> None:
    """Of the README: what is stated by sentences of the toy data, which were written for this project."""
    from bert4x.plots import triples as draw
    from bert4x.tasks.triples import Triple

    lines = (ROOT / "recipes" / "data" / "toy_triples.jsonl").read_text("utf-8").splitlines()
    stated = {row["text"]: row["spo_list"] for row in map(json.loads, lines)}
    found = [[] for _ in SENTENCES]
    for text, triples_of in zip(SENTENCES, found, strict=True):
        for one in stated[text]:
            words = one["subject"], one["predicate"], one["object"]
            spans = [(text.index(word), text.index(word) + len(word)) for word in words[::2]]
            triples_of.append(Triple(*words, *spans, 1.0))
    draw(SENTENCES, found, path)


def decoding_paths(path: Path) -> None:
    """Of bidirectional.md: what the code above the picture draws."""
    page = (ROOT / "docs" / "bidirectional.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page.partition(f"images/{path.name}")[0], re.M | re.S)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            exec("\n".join(blocks), {"__name__": "bidirectional"})
            path.write_bytes(Path("paths.png").read_bytes())
        finally:
            os.chdir(before)


def growth(path: Path) -> None:
    """Of benchmarks.md: the figures of its tables "How cost grows"."""
    sys.path.insert(0, str(ROOT))
    from tests.benchmarks.report import Curves, Report, draw

    page, curves = (ROOT / "docs" / "benchmarks.md").read_text("utf-8"), []
    for axis, *cells in TABLE.findall(page):
        values, seconds, peaks = ([float(x) for x in re.findall(r"[\d.]+", row.replace(",", ""))] for row in cells)
        for name, found in (("seconds", seconds), ("peak memory, GB", peaks)):
            curves.append(Curves(axis, name, {"bert4x": list(zip(values, found[: len(values)], strict=True))}))
    draw(Report("growth", "", [], curves=curves, machine={}), path)


PICTURES = {"triples.png": triples, "decoding_paths.png": decoding_paths, "growth.svg": growth}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](IMAGES / name)
