"""`bert4x extract`, the picture of triples, and the recipes that end in both."""

import json
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from conftest import refused

import bert4x
from bert4x.errors import DataError, InputError
from bert4x.tasks.gplinker import GPLinker
from bert4x.tasks.heads import read_task
from bert4x.tasks.triple_extraction import TripleExtraction
from bert4x.tasks.triples import Found, Triple

RECIPES = Path(__file__).parents[1] / "recipes"
TASKS = {"triple_extraction": TripleExtraction, "triple_extraction_gplinker": GPLinker}
TEXT = "床前明月光，疑是地上霜"  # one token a character


def find(self, pieces):
    """In every text the triple of its characters 1 and 2, 主, and 6 and 7; with none in a short one."""
    return [[Found((2, 3), 0, (7, 8), 0.75)] if piece.length > 9 else [] for piece in pieces]


@pytest.fixture(scope="module", params=TASKS.values(), ids=TASKS)
def saved(request, tmp_path_factory):
    """The folder of a task whose model is tiny and random."""
    from conftest import write_tiny

    folder = tmp_path_factory.mktemp("extract")
    task = request.param(bert4x.load(write_tiny(folder / "model")), [{"predicate": "主[b]"}], maxlen=16)
    return request.param, task.save(folder / "run")


@pytest.fixture
def run(saved, monkeypatch, command):
    """`run(...)` is `bert4x extract FOLDER ...`, on a model that finds what `find` says."""
    kind, folder = saved
    monkeypatch.setattr(kind, "find", find)
    return lambda *arguments: command("extract", folder, *arguments)


def test_table(run):
    status, out, _ = run(TEXT, "山[CLS]")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == TEXT
    assert lines[1].split() == ["subject", "predicate", "object", "subject", "at", "object", "at", "score"]
    assert lines[2].split() == ["前明", "主[b]", "疑是", "1-3", "6-8", "0.75"]
    assert lines[3:] == ["山[CLS]", "  nothing found"]


def test_json_lines_of_a_file(run, tmp_path):
    """Texts of the command line, then those of the file, whatever its line ends."""
    file = tmp_path / "texts.txt"
    file.write_bytes(b"\xef\xbb\xbf" + f"低头\r\n\r\n思{TEXT}\r\n".encode())
    status, out, _ = run("山", "--file", file, "--json", "--batch-size", 1)
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["text"] for row in rows] == ["山", "低头", "思" + TEXT]
    (triple,) = rows[2]["triples"]
    assert triple == {
        "subject": "床前",
        "predicate": "主[b]",
        "object": "，疑",
        "subject_span": [1, 3],
        "object_span": [6, 8],
        "score": 0.75,
    }
    assert not rows[0]["triples"] and not rows[1]["triples"]


def test_picture(run, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts
        status, _, err = run(TEXT, "山", "--plot", tmp_path / "out.png")
    assert status == 0 and "out.png" in err
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    refused(run(TEXT, "--plot", tmp_path / "out.doc"), "out.doc", "png")
    refused(run(TEXT, "--plot", tmp_path / "none" / "out.png"), "no folder")


def test_bad_input(run, command, saved, tmp_path):
    refused(run(TEXT, "--batch-size", 0), "--batch-size is 0")
    refused(run("--file", tmp_path / "none"), "no such file")
    refused(command("extract", tmp_path / "none", TEXT), "CheckpointNotFoundError", "does not exist")
    (tmp_path / "task.json").write_text('{"task": "text-classification", "settings": {}}', "utf-8")
    refused(command("extract", tmp_path, TEXT), "text-classification", "triple-extraction")


def test_without_matplotlib(run, monkeypatch, tmp_path):
    """It says so before anything is computed."""
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(run(TEXT, "--plot", tmp_path / "out.png"), "pip install matplotlib")


def drawn(texts, found, **options):
    """The characters that a picture shows, line by line, and the predicates; and the figure."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from bert4x.plots import triples

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = triples(texts, found, **options)
    lines, labels = {}, []
    for text in figure.axes[0].texts:
        if text.get_fontsize() == 9:
            labels.append(text.get_text())
        else:
            x, y = text.get_position()
            lines.setdefault(y, []).append((x, text.get_text()))
    return ["".join(c for _, c in sorted(line)) for _, line in sorted(lines.items(), reverse=True)], labels, figure


def triple(text, subject, predicate, object):
    spans = [(text.index(part), text.index(part) + len(part)) for part in (subject, object)]
    return Triple(subject, predicate, object, *spans, 1.0)


def test_picture_breaks_lines_only_where_no_arrow_is_crossed():
    texts = ["《甲》的作者是乙", "山" * 30 + "水" * 60 + "火" * 30, ""]
    found = [[triple(texts[0], "甲", "作者", "乙")], [triple(texts[1], "山水", "近", "水火")], []]
    lines, labels, figure = drawn(texts, found, title="题")
    assert lines[0] == texts[0]
    assert "".join(lines[1:]) == texts[1]
    assert any("山" + "水" * 60 + "火" in line for line in lines)
    assert sorted(labels) == ["作者", "近"]
    assert len(figure.axes[0].patches) == 4


def test_arrows_over_the_same_characters_do_not_meet():
    text = "甲的丈夫乙和女儿丙"
    found = [triple(text, "甲", "丈夫", "乙"), triple(text, "甲", "女儿", "丙"), triple(text, "乙", "女儿", "丙")]
    _, labels, figure = drawn(text, found)
    tops = [label.get_position()[1] for label in figure.axes[0].texts if label.get_fontsize() == 9]
    assert sorted(labels) == ["丈夫", "女儿", "女儿"]
    assert tops[0] == tops[1] < tops[2]  # the one over both is the longest, and comes last


def test_a_long_text_is_drawn_in_part():
    text = "山" * 5000 + "甲的丈夫是乙"
    lines, labels, _ = drawn(text, [triple(text, "甲", "丈夫", "乙")])
    assert len(lines) == 40 and labels == ["丈夫"]
    assert any("甲的丈夫是乙" in line for line in lines)


def test_every_predicate_has_its_colour():
    text = "甲的丈夫乙和女儿丙"
    found = [triple(text, "甲", "丈夫", "乙"), triple(text, "甲", "女儿", "丙"), triple(text, "乙", "女儿", "丙")]
    _, _, figure = drawn(text, found)
    colours = [(label.get_text(), label.get_color()) for label in figure.axes[0].texts if label.get_fontsize() == 9]
    assert len(set(colours)) == 2 and len({colour for _, colour in set(colours)}) == 2
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert sorted(line.get_color() for line in lines) == sorted(colour for _, colour in colours)


def test_arrows_of_one_word_stand_side_by_side():
    """So that each can be followed; and their feet stay within the word."""
    text = "甲甲甲的丈夫乙乙和女儿丙"
    found = [
        triple(text, "甲甲甲", "丈夫", "乙乙"),
        triple(text, "甲甲甲", "女儿", "丙"),
        triple(text, "丙", "父亲", "乙乙"),
    ]
    _, _, figure = drawn(text, found)
    ends = [(line.get_xdata()[0], line.get_xdata()[3]) for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    feet = [x for pair in ends for x in pair]
    assert len({round(x, 3) for x in feet}) == 6
    assert sum(0 < x < 3 for x in feet) == 2 and sum(6 < x < 8 for x in feet) == 2


def test_right_and_wrong_are_told_apart():
    text = "甲的丈夫乙和女儿丙"
    found = [triple(text, "甲", "丈夫", "乙"), triple(text, "乙", "女儿", "丙")]
    gold = [("甲", "丈夫", "乙"), ("甲", "女儿", "丙"), ("甲", "父亲", "丁")]  # the last is not in the text
    _, labels, figure = drawn(text, found, gold=gold)
    assert sorted(labels) == sorted(["✓ 丈夫", "✗ 女儿", "? 女儿"])
    styles = [line.get_linestyle() for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert sorted(styles) == ["-", "--", "--"]
    colours = {label.get_text(): label.get_color() for label in figure.axes[0].texts if label.get_fontsize() == 9}
    assert len(set(colours.values())) == 3
    with pytest.raises(InputError, match="2 texts, and right ones of 1"):
        drawn(["山", "水"], [[], []], gold=[[]])


def test_spans_that_are_not_in_the_text():
    with pytest.raises(InputError, match="text of 3 characters"):
        drawn("山和水", [Triple("山", "近", "水", (0, 1), (2, 4), 1.0)])
    with pytest.raises(InputError, match="2 texts, and triples of 1"):
        drawn(["山", "水"], [[]])


@pytest.mark.parametrize("name", TASKS)
def test_recipes_run(name, tiny, tmp_path):
    """From files to a folder that `extract` takes."""
    script = runpy.run_path(str(RECIPES / f"{name}.py"))
    train = tmp_path / "train.jsonl"
    rows = (RECIPES / "data" / "toy_triples.jsonl").read_text("utf-8").splitlines()[:12]
    train.write_text("\n".join(rows), "utf-8")
    common = {
        "model": str(tiny(max_position=64, num_hidden_layers=1)),
        "max_length": 32,
        "batch_size": 4,
        "train": train,
    }
    args = script["Arguments"](**common, output=tmp_path / "run", max_steps=1, epochs=1)
    report = script["main"](args)
    assert report.updates == 1
    assert report.scores["gold"] > 0
    _, settings = read_task(report.folder)
    assert set(settings["schema"][0]) == {"predicate"}
    assert (report.folder / "task.json").exists() and (report.folder / "metrics.jsonl").exists()
    schema = tmp_path / "schema"
    schema.write_text('{"predicate": "面积"}', "utf-8")
    args = script["Arguments"](**common, output=tmp_path / "other", schema=schema)
    with pytest.raises(DataError, match="valid: 面积"):
        script["main"](args)
