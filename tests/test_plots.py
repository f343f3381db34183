"""The picture of a decode in two directions."""

import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from bert4x.errors import InputError
from bert4x.generation.bidirectional import Path
from bert4x.plots import MissingMatplotlibError, comparison, decoding_paths

TEXTS = {"l2r": [["我", "爱", "[SEP]"], ["我", "[SEP]"]], "r2l": [["[SEP]", "他", "也", "爱"], ["[SEP]"]]}


def paths():
    """Paths, best first, and their labels."""
    draw = np.random.default_rng(0)
    found = [
        (Path(way, np.arange(len(texts)), -draw.random(len(texts)), score), texts)
        for (way, texts), score in zip(
            [(way, texts) for way, rows in TEXTS.items() for texts in rows], (-1.0, -2.5, -0.5, -4.0), strict=True
        )
    ]
    found.sort(key=lambda pair: -pair[0].score)
    return [one for one, _ in found], [texts for _, texts in found]


def columns(figure):
    """Label -> columns at which it is written, row by row."""
    return [(text.get_text(), *text.get_position()) for text in figure.axes[0].texts]


def test_both_begin_on_their_own_side(tmp_path):
    """Left to right from column 0; right to left up to the last one; the best score has the star and the frame."""
    file = tmp_path / "paths.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts
        figure = decoding_paths(*paths(), file, title="I love")
    assert file.read_bytes().startswith(b"\x89PNG")
    written = columns(figure)
    assert written[:3] == [("我", 0, 0), ("爱", 1, 0), ("[SEP]", 2, 0)]
    assert [row for row in written if row[2] == 2][:4] == [("[SEP]", 0, 2), ("他", 1, 2), ("也", 2, 2), ("爱", 3, 2)]
    assert ("[SEP]", 3, 3) in written
    assert [(text, y) for text, _, y in written if "★" in text] == [("-0.50 ★", 2)]
    frames = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(frames) == 1
    assert frames[0].get_width() == 4


def test_sums_of_log_probabilities():
    """Each line begins at 0 on its side and ends at the log-probability of the whole."""
    found, labels = paths()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = decoding_paths(found, labels)
    lines = figure.axes[1].lines
    ends = sorted(float(line.get_ydata()[-1]) for line in lines)
    np.testing.assert_allclose(ends, sorted(one.log_probabilities.sum() for one in found))
    assert {float(line.get_xdata()[0]) for line in lines} == {-0.5, 3.5}
    assert all(line.get_ydata()[0] == 0 for line in lines)


def test_labels_from_a_tokenizer():
    class Tokenizer:
        def ids_to_tokens(self, ids):
            return [f"t{i}" for i in ids]

    found, _ = paths()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = decoding_paths(found, Tokenizer())
    assert ("t1", 1, 0) in columns(figure)


def test_bad_input():
    found, labels = paths()
    with pytest.raises(InputError, match="got 0 paths"):
        decoding_paths([], [])
    with pytest.raises(InputError, match="labels have lengths"):
        decoding_paths(found, labels[:-1])
    with pytest.raises(InputError, match="direction 'up'"):
        decoding_paths([found[0]._replace(direction="up")], labels[:1])


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingMatplotlibError, match="bert4x\\[plot\\]"):
        decoding_paths(*paths())


def test_without_a_chinese_font(monkeypatch):
    """It says what to install, and draws."""
    monkeypatch.setattr("bert4x.plots.CJK_FONTS", ("No Such Font",))
    with pytest.warns(UserWarning, match="fonts-noto-cjk"):
        decoding_paths(*paths())


def test_comparison(tmp_path):
    """The mean of the runs, where all of them have a score; the band around it."""
    runs = {"one": [[(5, 0.2), (10, 0.5), (15, 0.7)], [(5, 0.4), (10, 0.7)]], "two": [[(5, 0.1), (10, 0.9)]]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = comparison(runs, tmp_path / "comparison.png", score="accuracy")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    first, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [[5, 0.3], [10, 0.6]])
    np.testing.assert_allclose(second.get_xydata(), [[5, 0.1], [10, 0.9]])
    assert [line.get_label() for line in (first, second)] == ["one, 2 runs", "two"]
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.2, 0.7)
    with pytest.raises(InputError, match="'one' has a run without scores"):
        comparison({"one": [[]]})
