"""`bert4x predict`: what is read and written for every task, and what a killed run leaves."""

import json

import pytest
from conftest import VOCABULARY, refused, write_tiny

import bert4x
from bert4x.tasks.readers.labelled import read_texts
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification
from bert4x.tasks.triple_extraction import TripleExtraction

LETTERS = [token for token in VOCABULARY if len(token) == 1 and token >= "\u2e80"]
TEXTS = ["".join(LETTERS[(7 * i + j * (i + 1)) % len(LETTERS)] for j in range(1 + i % 11)) for i in range(30)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of tiny random tasks, by name."""
    folder = tmp_path_factory.mktemp("runs")
    model = write_tiny(folder / "model", max_position=64, num_hidden_layers=1)
    tasks = {
        "classes": lambda: TextClassification(bert4x.load(model), ["正", "负"], maxlen=16),
        "others": lambda: TextClassification(bert4x.load(model), ["好", "坏"], maxlen=16),
        "entities": lambda: TokenClassification(bert4x.load(model), ["人"], method="softmax", maxlen=16),
        "triples": lambda: TripleExtraction(bert4x.load(model), ["作者"], maxlen=16),
        "reading": lambda: ReadingComprehension(bert4x.load(model), maxlen=32),
        "titles": lambda: Seq2Seq(bert4x.load(model, application="unilm"), max_target=4, maxlen=16),
    }
    made = {}

    def run(name):
        if name not in made:
            made[name] = tasks[name]().save(folder / name)
        return made[name]

    return run


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("\n".join(TEXTS) + "\n", "utf-8")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_answers_are_those_of_the_pipeline_in_order(runs, texts, tmp_path, command):
    out = tmp_path / "out.jsonl"
    status, printed, said = command("predict", runs("classes"), texts, out, "--batch-size", "2")
    assert (status, printed) == (0, "")
    assert f"30 answers in {out}" in said
    answers = bert4x.pipeline("text-classification", runs("classes"))(TEXTS)
    for found, text, answer in zip(lines(out), TEXTS, answers, strict=True):
        assert (found["text"], found["label"]) == (text, answer.label)
        assert found["probabilities"] == pytest.approx(answer.probabilities, rel=1e-5)


@pytest.mark.parametrize("kept", [0, 1, 7.5, 8, 20.3, 29.9, 30])
def test_goes_on_where_it_was_killed(runs, texts, tmp_path, command, kept):
    """With so many lines left, the last maybe in part, the file becomes what one run writes."""
    out = tmp_path / "out.jsonl"
    arguments = ("predict", runs("classes"), texts, out, "--batch-size", "2")
    assert command(*arguments)[0] == 0
    whole = out.read_bytes()
    ends = [0, *(i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))]
    cut = ends[int(kept)] + int((kept % 1) * 100)
    out.write_bytes(whole[:cut])
    status, _, said = command(*arguments)
    assert status == 0
    assert out.read_bytes() == whole
    assert ("going on" in said) == (8 <= kept < 30)


def test_refuses_what_was_made_of_something_else(runs, texts, tmp_path, command):
    out = tmp_path / "out.jsonl"
    first = ("predict", runs("classes"), texts, out)
    assert command(*first)[0] == 0
    whole = out.read_bytes()
    refused(command("predict", runs("others"), texts, out), out, "another model")
    refused(command(*first, "--batch-size", "3"), out, "another options")
    texts.write_text("\n".join(TEXTS[:-1]), "utf-8")
    refused(command(*first), out, "another input", "delete it")
    assert out.read_bytes() == whole
    strange = tmp_path / "strange.jsonl"
    strange.write_text("mine\n")
    refused(command("predict", runs("classes"), texts, strange), "is there already")
    assert strange.read_text() == "mine\n"


def test_an_error_in_the_last_line_comes_first(runs, tmp_path, command):
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS) + '{"text": null}\n')
    refused(command("predict", runs("classes"), path, out), "line 31, column 'text': found None")
    assert not out.exists()
    refused(command("predict", runs("classes"), tmp_path / "none.txt", out), "no such file")
    refused(command("predict", tmp_path, path, out), "no weights in")
    refused(command("predict", runs("classes"), path, tmp_path / "no" / "out.jsonl"), "is no folder")


class TestInputs:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("in.txt", "text\n很好,真的\n\n 床 前\n", 0),
            ("in.tsv", "text\n很好,真的\n 床 前\n", 1),
            ("in.csv", '标签,文本\n正,"很好,真的"\n负, 床 前\n', 1),
            ("in.tsv", "很好,真的\t正\n 床 前\t负", 1),
            ("in.jsonl", '{"id": 1, "text": "很好,真的"}\n{"id": 2, "text": " 床 前"}', 0),
            ("in.json", '[{"text": "很好,真的"}, {"text": " 床 前"}]', 0),
        ],
    )
    def test_texts(self, tmp_path, name, content, said):
        path, told = tmp_path / name, []
        path.write_text(content, "utf-8")
        found = [text for (text,) in read_texts(path, say=told.append)]
        assert found[-2:] == ["很好,真的", " 床 前"]
        assert found[:-2] == (["text"] if name == "in.txt" else [])
        assert len(told) == said

    def test_which_column(self, tmp_path, runs, command):
        path = tmp_path / "in.tsv"
        path.write_text("1\t床前\t正\n2\t明月\t负", "utf-8")
        refused(command("predict", runs("classes"), path, "-"), "which of 3 columns is the text? say --text-column")
        status, out, _ = command("predict", runs("classes"), path, "-", "--text-column", "2")
        assert (status, [json.loads(line)["text"] for line in out.splitlines()]) == (0, ["床前", "明月"])
        status, out, _ = command("predict", runs("classes"), path, "-", "--text-column", "2", "--pair-column", "3")
        assert json.loads(out.splitlines()[0])["pair"] == "正"


@pytest.mark.parametrize("name", ["entities", "triples", "reading", "titles"])
def test_every_task(runs, tmp_path, command, name):
    path = tmp_path / "in.jsonl"
    row = {"question": "今天好吗", "passage": "床前明月光，疑是地上霜。"} if name == "reading" else {"text": TEXTS[9]}
    path.write_text(json.dumps(row) + "\n")
    status, out, said = command("predict", runs(name), path, "-")
    assert status == 0, said
    found = json.loads(out)
    if name == "reading":
        answer = found["answer"]
        assert found["question"] == row["question"]
        assert answer["text"] == row["passage"][answer["start"] : answer["end"]]
    elif name == "titles":
        assert found.keys() == {"source", "target"} and found["source"] == TEXTS[9]
    else:
        assert found.keys() == {"text", name}
        for one in found[name]:
            assert "score" in one
