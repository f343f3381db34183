"""Entity recognition: tags and their best paths against all paths, and tiny models that learn a toy language."""

import itertools
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_tiny

import bert4x
from bert4x import recipe
from bert4x.errors import ConfigError, DataError, InputError
from bert4x.layers.crf import ConditionalRandomField, MaximumEntropyMarkovModel
from bert4x.tasks.tagging import Bio, independent
from bert4x.tasks.text import encode_pieces
from bert4x.tasks.token_classification import METHODS, POINTERS, Entity, TokenClassification
from bert4x.training.trainer import Trainer

PEOPLE, PLACES = ["张三", "李四四", "Bob"], ["北京", "上海市", "York"]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys("张三李四北京上海市去了看见在，。！和bobyork")]
TOKENS += [f"##{c}" for c in "bobyrk" if f"##{c}" not in TOKENS]
TOKENS = list(dict.fromkeys(TOKENS))


def toy_rows():
    """Sentences of a few forms, with what no vocabulary has, spaces, and entities side by side."""
    rows = []
    for person, place in itertools.product(PEOPLE, PLACES):
        for form in ("{p}去了{q}。", "😀 在{q}看见 {p}{p}！", "{p}和{p}，", "\u3000鑫{q} ，{p}  在"):
            parts, text, entities = form.replace("{", "|{").replace("}", "}|").split("|"), "", []
            for part in parts:
                label, value = {"{p}": ("人", person), "{q}": ("地", place)}.get(part, (None, part))
                if label:
                    entities.append((label, len(text), len(text) + len(value)))
                text += value
            rows.append({"text": text, "entities": entities})
    return rows


ROWS = toy_rows()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"vocab_size": len(TOKENS), "max_position": 64, "num_hidden_layers": 1}
    folder = write_tiny(tmp_path_factory.mktemp("models") / "bert", **sizes)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    return folder


def make(folder, method="crf", **settings):
    keras.utils.set_random_seed(0)
    settings = {"labels": ["人", "地"], "dropout": 0.0, "maxlen": 16} | settings
    settings |= {"head_size": 8} if method in POINTERS else {}
    return TokenClassification(bert4x.load(folder), method=method, **settings)


def train(task, rows, steps=60, rate=0.01):
    """The losses of so many updates on all rows at once."""
    trainer = Trainer(task.model, task.loss, task.optimizer(rate))
    examples = task.prepare(rows)
    batch = task.batch(examples, 32, np.random.default_rng(0))
    return [float(keras.ops.convert_to_numpy(trainer.learn([batch], rate))) for _ in range(steps)]


class TestBio:
    bio = Bio(["x", "y"])

    def test_tags(self):
        assert self.bio.tags == ["O", "B-x", "I-x", "B-y", "I-y"]
        tags, left_out = self.bio.encode([("x", 1, 3), ("y", 4, 4), ("y", 3, 5)], 6)
        assert tags.tolist() == [0, 1, 2, 2, 3, 0]
        assert left_out == 1

    def test_what_may_follow(self):
        may = {(a, b) for a, b in itertools.product(range(5), range(5)) if self.bio.steps[a, b] == 0}
        names = {(self.bio.tags[a], self.bio.tags[b]) for a, b in may}
        assert {b for a, b in names if a == "O"} == {"O", "B-x", "B-y"}
        assert {b for a, b in names if a == "B-x"} == {b for a, b in names if a == "I-x"} == {"O", "B-x", "I-x", "B-y"}
        assert (self.bio.first == 0).tolist() == [True, True, False, True, False]

    @pytest.mark.parametrize("kind", ["softmax", "crf", "memm", "bi-memm"])
    def test_against_all_paths(self, kind):
        generator = np.random.default_rng(3)
        for length in (1, 2, 4):
            places, steps = self.potentials(kind, generator.normal(0, 2, (length, 5)), generator)
            paths = {}
            for path in itertools.product(range(5), repeat=length):
                if self.bio.first[path[0]] or any(self.bio.steps[a, b] for a, b in itertools.pairwise(path)):
                    continue
                total = sum(places[t, tag] for t, tag in enumerate(path))
                between = np.broadcast_to(steps, (length - 1, 5, 5))
                paths[path] = total + sum(between[t, a, b] for t, (a, b) in enumerate(itertools.pairwise(path)))
            best = max(paths, key=paths.get)
            weights = {path: np.exp(score) for path, score in paths.items()}
            found = self.bio.decode(places, steps)
            assert self.bio.encode([span for span, _ in found], length)[0].tolist() == list(best)
            assert self.bio.decode(places, steps, scored=False) == [(span, 1.0) for span, _ in found]
            for (_, first, last), probability in found:
                same = sum(w for path, w in weights.items() if path[first : last + 1] == best[first : last + 1])
                assert probability == pytest.approx(same / sum(weights.values()), rel=1e-6)

    @staticmethod
    def potentials(kind, scores, generator):
        if kind == "softmax":
            return independent(scores)
        layers = {"crf": ConditionalRandomField(), "memm": MaximumEntropyMarkovModel(bidirectional=False)}
        layer = layers.get(kind) or MaximumEntropyMarkovModel(bidirectional=True)
        return layer.potentials(scores, generator.normal(0, 2, (5, 5)))


class TestInputs:
    def test_settings(self, folder):
        with pytest.raises(ConfigError, match="no method 'crv'; did you mean 'crf'"):
            make(folder, "crv")
        for labels in ([], ["人", "人"]):
            with pytest.raises(ConfigError, match="labels"):
                make(folder, labels=labels)

    def test_rows(self, folder):
        task = make(folder)
        for entity, message in [(("物", 0, 1), "label '物'"), (("人", 1, 1), "entity"), (("人", 0, 4), "entity")]:
            with pytest.raises(DataError, match=message):
                task.prepare([{"text": "张三去", "entities": [entity]}])
        with pytest.raises(InputError, match="expected a text"):
            task(["张三", 3])

    def test_labels_and_spans_are_the_same_in_training_and_in_scores(self, folder):
        """Labels that are no str, and spans with white space at their ends: what a perfect model finds has F1 1."""
        task = make(folder, labels=[1, 2], maxlen=8)
        text = "张三 \u3000去了上海。张三在 北京 看见"
        rows = [{"text": text, "entities": [(1, 0, 4), (1, 0, 2), ("2", 6, 8), (2, 12, 16)]}]
        expected = [("1", 0, 2), ("2", 6, 8), ("2", 13, 15)]
        assert task.entities(rows[0]) == expected
        spans = [
            (label, *example.piece.characters(first, last))
            for example in task.prepare(rows)
            for label, first, last in example.spans
        ]
        assert sorted(spans, key=lambda span: span[1]) == expected and not task.skipped
        task.recognize = lambda texts, *_, **__: [[Entity(*e, text[e[1] : e[2]], 1.0) for e in expected]]
        assert task.evaluate(rows) == {"f1": 1.0, "precision": 1.0, "recall": 1.0}
        with pytest.raises(DataError, match="label 3"):
            task.evaluate([{"text": text, "entities": [(3, 0, 2)]}])

    def test_examples(self, folder):
        task = make(folder)
        text = "Bob在bo去张三四。"
        entities = [("人", 0, 2), ("人", 4, 6), ("地", 7, 9), ("人", 8, 10), ("人", 7, 10), ("人", 7, 10)]
        (example,) = task.prepare([{"text": text, "entities": entities}])
        assert [TOKENS[i] for i in example.piece.token_ids[1:6]] == ["b", "##o", "##b", "在", "b"]
        assert [task.bio.tags[tag] for tag in example.tags[1:-1]] == (
            ["B-人", "I-人", "O", "O", "B-人", "I-人", "O", "B-人", "I-人", "I-人", "O"]
        )
        assert example.tags[0] == example.tags[-1] == -1
        assert task.skipped == {"entities that overlap with others": 2}
        task.prepare([{"text": "york", "entities": []}])
        assert task.skipped.total() == 2
        assert len(task.prepare([{"text": "去" * 13 + "张三", "entities": [("人", 13, 15)]}])) == 2
        assert task.skipped["entities that do not begin and end with tokens of one piece"] == 1

    def test_only_written_tokens_count(self, folder):
        task = make(folder)
        examples = task.prepare([{"text": "张三", "entities": []}, {"text": "张三去了", "entities": []}])
        (ids, _), (tags,) = task.batch(examples, 16)
        written = keras.ops.convert_to_numpy(bert4x.layers.WrittenTokens([0, 2, 3])(ids))
        assert written.tolist() == (tags >= 0).tolist()
        assert written.sum(1).tolist() == [2, 4]

    @pytest.mark.parametrize("method", ["crf", "global-pointer"])
    def test_padding_changes_nothing(self, folder, method):
        task = make(folder, method)
        examples = task.prepare(ROWS[:3])
        losses = []
        for length in (16, 48):
            inputs, targets = task.batch(examples, length)
            losses.append(float(task.loss(task.model(inputs), targets)))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    @pytest.mark.parametrize("method", METHODS)
    def test_divergence(self, folder, method):
        task = make(folder, method)
        (inputs, _) = task.batch(task.prepare(ROWS[:3]), 16)
        outputs = task.model(inputs)
        assert float(task.divergence(outputs, outputs)) == pytest.approx(0, abs=1e-6)
        assert float(task.divergence(outputs, outputs * 0.9)) > 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_learns_saves_and_finds(folder, tmp_path, method):
    task = make(folder, method)
    before = task.evaluate(ROWS)["f1"]
    losses = train(task, ROWS)
    scores = task.evaluate(ROWS, batch_size=7)
    assert before < 0.5
    assert losses[-1] < 0.2 * losses[0]
    assert scores == {"f1": 1.0, "precision": 1.0, "recall": 1.0}

    found = task([row["text"] for row in ROWS])
    for row, entities in zip(ROWS, found, strict=True):
        assert [(e.label, e.start, e.end) for e in entities] == row["entities"]
        assert all(e.text == row["text"][e.start : e.end] and 0.5 < e.score <= 1 for e in entities)

    text = "李四四去了北京。" * 9 + "Bob和Bob，\n" + "😀 在York看见 张三张三！\ud83d"
    again = TokenClassification.load(task.save(tmp_path / "saved"))
    assert again.settings == task.settings and again.method == method
    assert len(encode_pieces(task.tokenizer, text, task.maxlen)) == 11
    first, second = task(text), again(text)
    assert [e.text for e in first] == ["李四四", "北京"] * 9 + ["Bob", "Bob", "York", "张三", "张三"]
    assert all(text[e.start : e.end] == e.text for e in first)
    assert [(e.label, e.start, e.end) for e in first] == [(e.label, e.start, e.end) for e in second]
    assert [e.score for e in first] == pytest.approx([e.score for e in second])


def test_overlapping_entities(folder):
    rows = [{"text": "张三在北京上海市。", "entities": [("人", 0, 2), ("地", 3, 5), ("地", 5, 8), ("地", 3, 8)]}]
    task = make(folder, "efficient-global-pointer")
    train(task, rows)
    assert [(e.label, e.text) for e in task(rows[0]["text"])] == [
        ("人", "张三"), ("地", "北京"), ("地", "北京上海市"), ("地", "上海市"),
    ]  # fmt: skip
    tagger = make(folder, "softmax")
    tagger.prepare(rows)
    assert tagger.skipped == {"entities that overlap with others": 2}


def test_nothing_to_find(folder):
    task = make(folder)
    assert task("") == task(" \n") == []
    assert task([]) == []
    assert task(["", "张[SEP]三", "[PAD]"])[0] == []
    assert all(isinstance(e, Entity) for e in task("张[SEP]三"))
    with pytest.raises(DataError):
        task.prepare([{"text": "", "entities": [("人", 0, 1)]}])
    assert task.prepare([{"text": "", "entities": []}]) == []


@pytest.mark.sweep("runs of recipes")
def test_scores_of_zero_come_with_what_to_do(folder):
    task = make(folder)
    said = task.remark({"f1": 0.0, "precision": 0.0, "recall": 0.0})
    assert said.startswith("nothing is right yet") and "--head-learning-rate" in said
    assert task.remark({"f1": 0.01, "precision": 1.0, "recall": 0.005}) is None


def test_recipe(folder, tmp_path, capsys):
    ours = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "sequence_labeling.py"))
    given = f"--smoke --epochs 1 --max-steps 2 --max-length 64 --model {folder} --output {tmp_path / 'run'}"
    report = ours["main"](recipe.parse(ours["Arguments"], argv=given.split()))
    assert report.updates == 2
    task = bert4x.pipeline("token-classification", tmp_path / "run")
    assert isinstance(task("张三去了北京。"), list)
    said = capsys.readouterr().out
    assert "2 updates" in said and "missed" in said
