"""The recipes of generation run as their first lines say, on the embedded model; and what they compute is right."""

import json
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import bert4x
from bert4x.recipe import SMOKE
from bert4x.tasks.triples import read_schema
from bert4x.training.command_line import parse

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def lm():
    return bert4x.load(application="lm")


@pytest.fixture
def recipe(monkeypatch, capsys, lm):
    """`recipe(name, *arguments)` runs one as a program, in this process and on a model that is compiled already: the
    lines it prints.
    """

    def load(source, *, application, dtype, quantize):
        assert (source, application, dtype, quantize) == (None, "lm", None, None)
        return lm

    def run(name, *arguments):
        monkeypatch.setattr(bert4x, "load", load)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(RECIPES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(scope="module")
def few_shot():
    return SimpleNamespace(**runpy.run_path(str(RECIPES / "few_shot_generation.py")))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.mark.sweep("runs of recipes")
def test_continue_text(recipe, lm):
    lines = recipe("continue_text.py", "--smoke", "--prompt", "白日依山尽，")
    greedy = lm.generate("白日依山尽，", max_new_tokens=12)
    drawn = lm.generate("白日依山尽，", max_new_tokens=12, top_p=0.9, seed=0, num_return_sequences=2)
    assert lines[0] == "白日依山尽，" + greedy
    assert lines[lines.index("== greedy") + 1] == f"白日依山尽， | {greedy}"
    assert lines[lines.index("== nucleus") + 1 :][:2] == [f"白日依山尽， | {text}" for text in drawn]
    table = [cells(line) for line in lines if line.startswith("|")]
    assert table[0] == ["way", "texts", "tokens", "tokens/s", "log p a token", "distinct pairs", "came to an end"]
    assert [row[:2] for row in table[2:]] == [["greedy", "1"], ["nucleus", "2"]]
    for row in table[2:]:
        assert int(row[2]) <= 12 * int(row[1])
        assert float(row[3]) > 0 > float(row[4])


def test_the_ways_differ_in_what_they_should():
    recipe = SimpleNamespace(**runpy.run_path(str(RECIPES / "continue_text.py")))
    args = SimpleNamespace(max_new_tokens=8, repetition_penalty=1.0, no_repeat_ngram_size=0, seed=3, samples=4)
    draws = {way: bert4x.GenerationOptions(**recipe.options_of(way, args)).samples for way in recipe.WAYS}
    assert draws == {way: way not in ("greedy", "beams") for way in recipe.WAYS}
    assert recipe.distinct_pairs(["甲乙甲乙"]) == pytest.approx(2 / 3)
    assert recipe.distinct_pairs(["甲"]) == 0


@pytest.mark.sweep("runs of recipes")
def test_the_four_published_tasks(recipe, few_shot):
    lines = recipe("few_shot_generation.py", "--smoke")
    rows = [cells(line) for line in lines[2:-1]]
    assert lines[-1] == SMOKE
    assert [row[0] for row in rows] == list(few_shot.TASKS)
    assert [row[3] for row in rows] == ["北京", "bird", "杨振宁", "张红,体重,140斤"]
    between = few_shot.separator(SimpleNamespace(encode=list))  # a vocabulary with line breaks, as CPM-LM's
    template, cases, question, _ = few_shot.TASKS["knowledge"]
    examples = [dict(zip(("country", "capital"), case, strict=True)) for case in cases]
    prompt = bert4x.FewShot(None, template, examples, between).prompt(question)
    assert prompt == "美国的首都是华盛顿\n法国的首都是巴黎\n日本的首都是东京\n中国的首都是"


def test_extraction_by_generation(recipe):
    pytest.importorskip("llguidance")
    lines = recipe("extraction_by_generation.py", "--smoke")
    assert lines[-3] == "2 texts, 9 predicates, 1 shown: 2 answers have the form" and lines[-1] == SMOKE
    predicates = {entry["predicate"] for entry in read_schema(RECIPES / "data/toy_schema.jsonl")}
    for answer in lines[1:6:3]:
        assert all(len(subject) <= 6 and predicate in predicates for subject, predicate, _ in json.loads(answer))


def test_own_examples(recipe, lm, tmp_path):
    path = tmp_path / "cases.tsv"
    path.write_text("text\tlabel\n菜太咸了\t差\n下次还来\t好\n", encoding="utf-8")
    given = ["--examples", path, "--template", "{text}，味道很{label}", "--text", "汤很鲜", "--choices", "好", "差"]
    (line,) = recipe("few_shot_generation.py", *given)
    few = bert4x.FewShot(
        lm,
        "{text}，味道很{label}",
        [{"text": "菜太咸了", "label": "差"}, {"text": "下次还来", "label": "好"}],
        "。",
    )
    assert line == f"汤很鲜 | {few.choose('汤很鲜', ['好', '差'])}"


def test_accuracy_on_fewclue(few_shot, tmp_path, capsys):
    """On files of FewCLUE's form, with a judge of known accuracy in place of the model."""
    folder = tmp_path / "eprstmt"
    folder.mkdir()
    labels = ["Positive", "Negative", "Negative", "Negative"]
    rows = [{"id": n, "sentence": f"第{n}句" * 30, "label": label} for n, label in enumerate(labels)]
    for name in ("train_0.json", "test_public.json"):
        (folder / name).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    template, words, train, test = few_shot.read_fewclue(folder, 10)
    assert (template, words) == (few_shot.FEWCLUE["eprstmt"][0], ["好", "差"])
    assert (
        train
        == test
        == [{"sentence": row["sentence"][:10], "label": words[row["label"] != "Positive"]} for row in rows]
    )
    args = SimpleNamespace(max_chars=10, limit=None, seeds=2, shots=2, calibrate=False)
    judged = dict(zip((row["sentence"][:10] for row in rows), [0, 0, 1, 1], strict=True))  # three of four are right
    judge = few_shot.fewclue.__globals__
    judge["choose"] = lambda few, sentences, *_: np.array([judged[sentence] for sentence in sentences])
    few_shot.fewclue(SimpleNamespace(tokenizer=SimpleNamespace(encode=list)), folder, args)
    assert cells(capsys.readouterr().out) == ["eprstmt", "4", "75.0% (75.0%, 75.0%)", "75.0%"]


def test_calibration_takes_a_preference_away(few_shot):
    class Few:
        def scores(self, query, labels):
            answers = {"甲": [-1.0, -2.0], "乙": [-1.5, -1.6], "无": [-1.0, -1.8]}
            return np.array([answers[one] for one in query] if isinstance(query, list) else answers[query])

    assert few_shot.choose(Few(), ["甲", "乙"], ["好", "差"], calibrate=False).tolist() == [0, 0]
    assert few_shot.choose(Few(), ["甲", "乙"], ["好", "差"], calibrate=True).tolist() == [0, 1]


IDLE = {
    "sequence_labeling": [["--method", "softmax", "--lr-multiplier", "9"], ["--lora-plus", "4"], ["--valid", "x"]],
    "text_classification": [["--pair-column", "b"]],
    "distillation": [["--method", "theseus", "--share", "0.3"], ["--start", "0.3"]],
    "pretraining": [
        ["--model", "m", "--layers", "3"],
        ["--vocab-size", "3000"],
        ["--minutes", "3", "--max-steps", "4"],
    ],
    "reranker": [["--given", "--miner", "x"]],
    "sentence_embeddings": [["--wrong", "3"]],
    "bidirectional_decoding": [["--task", "titles", "--hidden", "16"]],
}


@pytest.mark.parametrize("name", IDLE)
def test_arguments_that_would_do_nothing(name, capsys):
    arguments = runpy.run_path(str(RECIPES / f"{name}.py"))["Arguments"]
    for argv in IDLE[name]:
        with pytest.raises(SystemExit):
            parse(arguments, argv=argv)
        assert re.search(r"does nothing with|is for --\w+ ", capsys.readouterr().err), argv
