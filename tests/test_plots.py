"""The picture of a decode in two directions."""

import contextlib
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from bert4x.errors import InputError
from bert4x.generation.bidirectional import Path
from bert4x.plots import MissingMatplotlibError, comparison, curves, decoding_paths
from bert4x.training.report import best_of, is_best

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
    with pytest.raises(MissingMatplotlibError, match="pip install matplotlib"):
        decoding_paths(*paths())


def test_without_a_chinese_font(monkeypatch):
    """It says what to install, and draws."""
    monkeypatch.setattr("bert4x.plots.figures.CJK_FONTS", ("No Such Font",))
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
    same = comparison({name: [[(5, 0.2), (10, 0.5)]] for name in "abc"}).axes[0].lines
    assert [line.get_linestyle() for line in same] == ["-", "--", "--"]
    with pytest.raises(InputError, match="'one' has a run without scores"):
        comparison({"one": [[]]})


# The curves of a run


def run_of(scores, best="accuracy"):
    """The records of a run that scored so after its epochs, 10 updates each."""
    losses = [{"update": update, "loss": 1 / update} for update in range(1, 10 * len(scores) + 1)]
    ends = [{"epoch": n, "update": 10 * n, "seconds": 1.0, best: score} for n, score in enumerate(scores, start=1)]
    return losses + ends


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.2, 0.5, 0.5, 0.4], 2), ([0.0, 0.0, 0.0], 2), ([0.9, 0.1], 0), ([float("nan"), 0.3, 0.2], 1)],
)
def test_the_best_epoch_is_the_same_everywhere(scores, best):
    """In the loop, which keeps weights and tells card and terminal, and in the picture. Of equals it is the last."""
    from bert4x.training import loop

    assert best_of(scores) == best
    kept = loop.Loop.__new__(loop.Loop)  # no training: only what it makes of scores
    kept.schedule, kept.progress, kept.best, kept.updates = loop.Schedule(epochs=9), loop.RunProgress(), "accuracy", 99
    kept.keep, kept.flush, kept.write = (lambda *args: None for _ in range(3))
    kept.trainer = type("Trainer", (), {"averaged": staticmethod(contextlib.nullcontext)})
    for score in scores:
        kept.evaluate = lambda score=score: {"accuracy": score}
        kept.score(ended=True)
    assert kept.progress.best_epoch == best + 1
    axes = curves(run_of(scores), best="accuracy").axes[1]
    (marked,) = (line for line in axes.lines if line.get_markersize() == 8)
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == (10 * (best + 1), scores[best])
    assert [text.get_text() for text in axes.texts] == [f"{scores[best]:.4g}"]


def test_the_rule_of_the_best():
    assert is_best(0.0, None) and is_best(0.5, 0.5) and not is_best(0.4, 0.5) and not is_best(float("nan"), 0.5)


def test_equal_curves_can_all_be_seen():
    """Each shows a part of its own of a whole line below."""
    records = [record | ({"f1": record["accuracy"]} if "accuracy" in record else {}) for record in run_of([0.1, 0.3])]
    lines = {line.get_label(): line.get_linestyle() for line in curves(records, best="f1").axes[1].lines}
    assert (lines["accuracy"], lines["f1"]) == ("-", "--")
    records[-1]["f1"] = 0.2
    lines = {line.get_label(): line.get_linestyle() for line in curves(records, best="f1").axes[1].lines}
    assert (lines["accuracy"], lines["f1"]) == ("-", "-")


# Fonts


def test_pictures_without_chinese_need_no_chinese_font(monkeypatch, tmp_path):
    monkeypatch.setattr("bert4x.plots.figures.CJK_FONTS", ("No Such Font",))
    found, labels = paths()
    latin = [["token"] * len(row) for row in labels]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoding_paths(found, latin, tmp_path / "paths.png", title="naïve")
        curves(run_of([0.1, 0.2]), tmp_path / "curves.png", best="accuracy", title="run")
        comparison({"one": [[(1, 0.5)]]}, tmp_path / "comparison.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        decoding_paths(found, labels, tmp_path / "paths.png", title="春")
    assert len(said) == 1  # not one for every character, too
    assert "fonts-noto-cjk (Debian, Ubuntu)" in str(said[0].message)


def test_labels_of_directions_do_not_overprint():
    """With one row each way they lie beside the rows, one above the other."""
    found, labels = paths()
    rows = [next(n for n, one in enumerate(found) if one.direction == way) for way in ("l2r", "r2l")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = decoding_paths([found[n] for n in rows], [labels[n] for n in rows])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if "right" in text.get_text()]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
    assert all(box.x1 < figure.axes[0].get_window_extent().x0 for box in boxes)
