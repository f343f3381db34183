"""Scores of classes, their picture, and `bert4x evaluate`."""

import json

import keras
import pytest
from conftest import VOCABULARY, refused, write_tiny

import bert4x
from bert4x.errors import DataError, InputError
from bert4x.metrics import Counts, score_classes
from bert4x.tasks.classes import class_scores
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification

GOLD = ["a", "a", "a", "b", "b", "c"]
FOUND = ["a", "a", "b", "b", "a", "a"]


def test_numbers_are_those_of_scikit_learn():
    """Of sklearn.metrics: classification_report and confusion_matrix, here written down."""
    scores = score_classes(FOUND, GOLD, ["a", "b", "c", "d"])
    assert scores.confusion == ((2, 1, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0))
    assert scores.by_label["a"] == Counts(correct=2, predicted=4, gold=3)
    assert (scores.by_label["a"].precision, scores.by_label["a"].recall) == (0.5, pytest.approx(2 / 3))
    assert scores.by_label["c"].f1 == 0 and scores.by_label["d"] == Counts()
    assert scores.scores == {"accuracy": 0.5, "macro_f1": pytest.approx((4 / 7 + 0.5 + 0) / 3)}
    assert scores.to_dict()["confusion"][0] == [2, 1, 0, 0]


def test_several_labels():
    scores = score_classes([["a", "b"], [], ["c"]], [["a"], ["b"], ["c"]], ["a", "b", "c"])
    assert scores.confusion is None
    assert scores.scores == {
        "f1": pytest.approx(4 / 6),
        "exact": pytest.approx(1 / 3),
        "macro_f1": pytest.approx(2 / 3),
    }
    assert "confusion" not in scores.to_dict()


def test_what_cannot_be():
    with pytest.raises(InputError, match="label 'z'; expected one of a, b"):
        score_classes(["a"], ["z"], ["a", "b"])
    with pytest.raises(InputError):
        score_classes(["a"], ["a", "b"], ["a", "b"])


def test_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from bert4x.plots import confusion

    figure = confusion(score_classes(FOUND, GOLD, ["a", "b", "c"]), tmp_path / "confusion.png")
    axes = figure.axes[0]
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    written = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "2", (1, 0): "1", (0, 1): "1", (1, 1): "1", (0, 2): "1"}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.images[0].get_array()[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    with pytest.raises(InputError, match="several labels"):
        confusion(score_classes([["a"]], [["a"]], ["a"]))


TEXTS = ["".join(VOCABULARY[5 + (3 * i + j) % 30] for j in range(2 + i % 20)) for i in range(12)]


class TestEvaluate:
    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory):
        return write_tiny(tmp_path_factory.mktemp("models") / "bert", num_hidden_layers=1)

    @pytest.fixture
    def task(self, model):
        keras.utils.set_random_seed(1)
        return TextClassification(bert4x.load(model), ["正", "负"], maxlen=16)

    def test_a_classifier(self, task, tmp_path, command):
        rows = [(text, "正负"[i % 2]) for i, text in enumerate(TEXTS)]
        folder, file = task.save(tmp_path / "run"), tmp_path / "valid.csv"
        file.write_text("label,text\n" + "".join(f"{label},{text}\n" for text, label in rows), "utf-8")
        status, out, said = command("evaluate", folder, file, "--json")
        found = json.loads(out)
        assert (status, found["rows"]) == (0, 12)
        assert "names the columns" in said
        assert found["scores"]["accuracy"] == task.evaluate(rows)["accuracy"]
        assert found["confusion"] == [list(row) for row in class_scores(task, rows).confusion]
        assert sum(map(sum, found["confusion"])) == 12
        status, out, _ = command("evaluate", folder, file)
        assert out.startswith(f"accuracy {found['scores']['accuracy']:.4g}, macro_f1")
        assert [line.split()[0] for line in out.splitlines()[2:4]] == ["正", "负"]
        refused(command("evaluate", folder, file, "--no-header"), "line 1", "unknown label 'text'")
        with pytest.raises(DataError, match="no rows"):
            class_scores(task, [])

    def test_a_classifier_of_several_labels(self, model, tmp_path, command):
        task = TextClassification(bert4x.load(model), ["正", "负"], maxlen=16, multi_label=True)
        rows = [(text, [["正"], ["正", "负"], []][i % 3]) for i, text in enumerate(TEXTS)]
        file = tmp_path / "valid.tsv"
        file.write_text("".join(f"{text}\t{','.join(labels)}\n" for text, labels in rows), "utf-8")
        _, out, _ = command("evaluate", task.save(tmp_path / "run"), file, "--json")
        scores = json.loads(out)["scores"]
        assert {name: scores[name] for name in ("f1", "exact")} == pytest.approx(task.evaluate(rows))

    def test_entities(self, model, tmp_path, command):
        task = TokenClassification(bert4x.load(model), ["人"], method="softmax", maxlen=16)
        file = tmp_path / "valid.jsonl"
        file.write_text(json.dumps({"text": TEXTS[3], "label": [[0, 2, "人"]]}) + "\n")
        status, out, _ = command("evaluate", task.save(tmp_path / "run"), file, "--json")
        refused(command("evaluate", tmp_path / "run", file, "--plot", tmp_path / "x.png"), "a run for 'token-class")
        expected = task.evaluate([{"text": TEXTS[3], "entities": [("人", 0, 2)]}])
        assert (status, json.loads(out)) == (0, {"rows": 1, "scores": expected})
