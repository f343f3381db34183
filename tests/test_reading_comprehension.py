"""Answers in passages: CMRC 2018's scores by hand, windows against a slow search, a tiny model that learns to read."""

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
from bert4x.metrics.reading import answer_f1, exact_match, score_answers, segments
from bert4x.tasks.reading_comprehension import Answer, ReadingComprehension, Window
from bert4x.training.trainer import Trainer

TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *dict.fromkeys("张三李四王五北京上海广州在去了哪谁？，。了"),
    "york",
]
PEOPLE, PLACES = ["张三", "李四", "王五"], ["北京", "上海", "York", "广 鑫"]


def toy_rows():
    """Two people and where they are, and a question about either."""
    rows = []
    for (a, b), (x, y) in itertools.product(itertools.permutations(PEOPLE, 2), itertools.permutations(PLACES, 2)):
        passage = f"😀{a}在 {x}。{b}去了{y}，"
        for person, place in ((a, x), (b, y)):
            answers = [(place, passage.index(place)), ("外国", None)]
            rows.append({"id": "", "question": f"{person}在哪？", "passage": passage, "answers": answers})
    return rows


ROWS = toy_rows()[::3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"vocab_size": len(TOKENS), "max_position": 64, "num_hidden_layers": 1}
    folder = write_tiny(tmp_path_factory.mktemp("models") / "bert", **sizes)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    return folder


def make(folder, **settings):
    keras.utils.set_random_seed(0)
    return ReadingComprehension(bert4x.load(folder), **{"dropout": 0.0, "maxlen": 32, "stride": 8} | settings)


class TestScores:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("《三体》是Liu Cixin写的。", ["三", "体", "是", "liu", "cixin", "写", "的"]),
            ("光荣和ω-force", ["光", "荣", "和", "ωforce"]),  # what is punctuation joins, as in the official evaluation
            ("Mr.", ["mr", "."]),
            ("3,000人, (1999)", ["3,000", "人", ",", "(", "1999", ")"]),
            ("It's 3.5% ok. don't stop...", ["it", "'s", "3.5", "%", "ok", ".", "do", "n't", "stop", "..."]),
            ("  ，。 ", []),
            ("v1.0", ["v1.0"]),
            ("𠮷a", ["𠮷a"]),  # beyond the block that counts as Chinese
        ],
    )
    def test_segments(self, text, expected):
        assert segments(text) == expected

    def test_exact_match(self):
        assert exact_match("《ABC》。", "abc")
        assert exact_match("北京", " 北京！")
        assert not exact_match("北京市", "北京")
        assert not exact_match("a, b", "a b"), "the comma of ASCII counts"

    @pytest.mark.parametrize(
        ("prediction", "answer", "expected"),
        [
            ("北京市", "北京", 2 * 2 / 5),  # 2 in common, of 3 and of 2
            ("北京市", "北京，市", 1.0),
            ("京北", "北京", 2 * 1 / 4),  # the longest common run has 1; a bag would have 2
            ("甲乙x丙丁", "甲乙丙丁", 2 * 2 / 9),  # 甲乙 or 丙丁
            ("上海", "北京", 0.0),
            ("", "北京", 0.0),
            ("，", "。", 0.0),
            ("Windows 95 系统", "windows 95", 2 * 2 / 6),
        ],
    )
    def test_f1(self, prediction, answer, expected):
        assert answer_f1(prediction, answer) == pytest.approx(expected)
        assert answer_f1(answer, prediction) == pytest.approx(expected)

    def test_best_of_several_answers(self):
        scores = score_answers(["北京市", "上海", ""], [["北京", "北京市"], ["上海滩", "海"], ["广州"]])
        assert scores.exact_match == pytest.approx(1 / 3)
        assert scores.f1 == pytest.approx((1 + 4 / 5 + 0) / 3)
        assert scores.average == pytest.approx((1 / 3 + 0.6) / 2)

    @pytest.mark.parametrize("references", [[], ["北京"], [[]], [["北京"], ["上海"]]])
    def test_bad_input(self, references):
        with pytest.raises(InputError):
            score_answers(["北京"], references)


class TestWindows:
    def test_short(self, folder):
        (window,) = make(folder).windows("谁？", "张三在 York。", [(0, 2), (4, 8), (4, 6)])
        assert "".join(TOKENS[i] for i in window.token_ids) == "[CLS]谁？[SEP]张三在york。[SEP]"
        assert window.first == 4
        assert window.offsets == [(0, 1), (1, 2), (2, 3), (4, 8), (8, 9)]
        assert window.answers == ((4, 5), (7, 7)), "and none that ends within a token"

    def test_long(self, folder):
        task = make(folder, maxlen=16, longest_question=5, stride=6)
        passage = "张三去了北京，" * 5
        windows = list(task.windows("张三在哪？" * 3, passage, [(4, 6), (9, 13)]))
        room = 16 - 3 - 5
        assert [window.offsets[0][0] for window in windows] == [0, 6, 12, 18, 24, 30]
        assert all(window.length <= 16 and len(window.offsets) <= room for window in windows)
        assert windows[-1].offsets[-1] == (34, 35)
        for window in windows:
            texts = {"".join(TOKENS[i] for i in window.token_ids[a : b + 1]) for a, b in window.answers}
            begin, end = window.offsets[0][0], window.offsets[-1][1]
            assert texts == {passage[a:b] for a, b in [(4, 6), (9, 13)] if begin <= a and b <= end}
        assert sum(len(window.answers) for window in windows) == 2

    @pytest.mark.parametrize(("stride", "maxlen"), [(1000, 9), (1, 12), (8, 32)])
    def test_every_token_is_read(self, folder, stride, maxlen):
        task = make(folder, stride=stride, maxlen=maxlen)
        passage = "张三去了北京，" * 5
        windows = list(task.windows("张三在哪？" * 30, passage))
        assert {place for window in windows for place in window.offsets} == {(i, i + 1) for i in range(35)}
        assert all(window.length <= maxlen for window in windows)

    def test_arrays(self, folder):
        task = make(folder, maxlen=16)
        windows = [*task.windows("谁？", "张三在", [(0, 2), (2, 3)]), *task.windows("张三在哪？", "北京")]
        (ids, segments), (places,) = task.batch(windows, 16, np.random.default_rng(0))
        assert ids.shape == segments.shape == (2, 16)
        assert segments.tolist() == [[0] * 4 + [1] * 4 + [0] * 8, [0] * 7 + [1] * 3 + [0] * 6]
        assert places[1].tolist() == [0, 0]
        draws = {tuple(task.batch(windows, 16, np.random.default_rng(i))[1][0][0]) for i in range(9)}
        assert draws == {(4, 5), (6, 6)}

    def test_padding_changes_nothing(self, folder):
        task = make(folder)
        examples = task.prepare(ROWS[:5])
        losses = []
        for length in (32, 48):
            inputs, targets = task.batch(examples, length)
            outputs = keras.ops.convert_to_numpy(task.model(inputs))
            assert np.isfinite(outputs).all()
            losses.append(float(keras.ops.convert_to_numpy(task.loss(outputs, targets))))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_likeliest(self, folder):
        task = make(folder, longest_answer=3)
        generator = np.random.default_rng(0)
        for _ in range(20):
            offsets = [(i, i + 1) for i in range(10, 16)]
            window = Window([0] * 12, [0] * 12, 4, offsets)
            scores = generator.normal(0, 3, (2, 32))
            allowed = [0, *range(4, 10)]
            start, end = (np.exp(s) / np.exp(s[allowed]).sum() for s in scores)
            best = max((start[i] * end[j], i, j) for i in range(4, 10) for j in range(i, min(i + 3, 10)))
            score, first, last = task.likeliest(window, scores)
            assert (first, last) == (best[1] - 4 + 10, best[2] - 4 + 11)
            assert score == pytest.approx(best[0])


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_best_of_all_windows(folder, monkeypatch, batch_size):
    """With a model that finds 北 and 京, surer of itself where 了 is before them."""

    def predict(model, arrays):
        ids = arrays[0]
        before = np.roll(ids, 1, axis=1) == TOKENS.index("了")
        return np.stack(
            [(ids == TOKENS.index("北")) * (5.0 + before), (ids == TOKENS.index("京")) * (5.0 + np.roll(before, 1, 1))],
            axis=1,
        )

    task = make(folder, maxlen=16, stride=5)
    monkeypatch.setattr(task, "predict", predict)
    filler = "上海 广州😀\n" * 5
    pairs = [
        ("谁？", filler + "北京" + filler + "去了北京。" + filler + "北京" + filler),
        ("谁？", filler),
        ("谁？", filler + "京" + filler + "北"),
        ("北京？", "上海在北京"),
    ]
    found = task.answers(pairs, batch_size)
    first = 2 * len(filler) + 4
    assert (found[0].text, found[0].start, found[0].end) == ("北京", first, first + 2)
    assert found[0].score > 0.9 > found[1].score
    assert len(found[2].text) <= task.longest_answer
    assert found[2].score < 0.5
    assert (found[3].text, found[3].start) == ("北京", 3), "of the passage, not of the question"
    assert [answer.start for answer in task.answers(pairs[::-1], 2)] == [answer.start for answer in found[::-1]]

    @pytest.mark.parametrize(("maxlen", "stride"), [(32, None), (32, 40), (16, None), (48, None), (48, 128)])
    def test_overlap(self, folder, maxlen, stride):
        """Wherever it stands, an answer is in some window, if it is no longer than windows are to overlap."""
        task = make(folder, maxlen=maxlen, stride=stride, longest_answer=8)
        passage = "张三去了北京，李四" * 15
        longest = min(8, (maxlen - 7) // 2 + 1)  # 4 tokens of question, 3 special ones
        for start in range(len(passage) - longest + 1):
            place = (start, start + longest)
            assert any(window.answers for window in task.windows("谁在哪？", passage, [place])), place
        first, second = list(task.windows("谁在哪？", passage))[:2]
        assert second.offsets[0][0] - first.offsets[0][0] == task.step(maxlen - 7) > 1

    def test_what_lies_in_no_window_is_said(self, folder):
        task, passage = make(folder, maxlen=16, stride=8), "张三去了北京，李四" * 5  # room for 9 tokens
        rows = [
            {"question": "谁在哪？", "passage": passage, "answers": [(passage[start : start + 4], start)]}
            for start in range(9)
        ]
        rows[0]["answers"].append((passage[6:11], 6))
        examples = task.prepare(rows)
        lost = {start for start in range(9) if start % 8 > 5}
        assert sum(bool(window.answers) for window in examples) == 9 - len(lost)
        ((reason, count),) = task.skipped.items()
        assert "in no window" in reason and count == len(lost) + 1
        with pytest.warns(UserWarning, match=f"answers of {len(lost)} of 9 questions lie in no window"):
            task.evaluate(rows)


class TestInputs:
    def test_settings(self, folder):
        with pytest.raises(ConfigError, match="stride = 0"):
            make(folder, stride=0)

    def test_rows(self, folder):
        task = make(folder)
        row = {"question": "谁？", "passage": "张三在York"}
        assert task.prepare([row | {"answers": [("李四", None)]}, row | {"answers": [("张三在Y", 0)]}]) == []
        assert task.skipped.total() == 2
        with pytest.raises(DataError, match="answer at 3 to 9"):
            task.prepare([row | {"answers": [("York。。", 3)]}])
        with pytest.raises(DataError, match="no questions with answers"):
            task.evaluate([row | {"answers": []}])

    def test_texts(self, folder):
        task = make(folder)
        for wrong in [("谁？",), ([("谁？",)],), ([("谁？", 3)],)]:
            with pytest.raises(InputError, match="expected a question and a passage"):
                task(*wrong)
        assert task("谁？", "") is None
        assert task([("谁？", " "), ("", "张")])[0] is None
        assert task([("谁？", " "), ("", "张")])[1].text == "张"
        assert task([]) == []


def test_learns_saves_and_finds(folder, tmp_path):
    task = make(folder)
    examples = task.prepare(ROWS)
    trainer = Trainer(task.model, task.loss, task.optimizer(0.01))
    before = task.evaluate(ROWS)
    batch = task.batch(examples, 32, np.random.default_rng(0))
    losses = [float(keras.ops.convert_to_numpy(trainer.learn([batch], 0.01))) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]
    assert before["f1"] < 0.5
    assert task.evaluate(ROWS, batch_size=7) == {"f1": 1.0, "exact_match": 1.0, "average": 1.0}

    found = task([(row["question"], row["passage"]) for row in ROWS])
    for row, answer in zip(ROWS, found, strict=True):
        assert (answer.text, answer.start) == row["answers"][0]
        assert row["passage"][answer.start : answer.end] == answer.text
        assert 0.5 < answer.score <= 1

    again = ReadingComprehension.load(task.save(tmp_path / "saved"))
    assert (again.stride, again.maxlen) == (8, 32)
    same = [again(row["question"], row["passage"]) for row in ROWS[::9]]
    assert [(a.text, a.start) for a in same] == [(a.text, a.start) for a in found[::9]]
    assert [a.score for a in same] == pytest.approx([a.score for a in found[::9]], rel=1e-4)
    assert isinstance(same[0], Answer)


@pytest.mark.sweep("runs of recipes")
def test_recipe(folder, tmp_path, capsys):
    ours = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "reading_comprehension.py"))
    given = f"--smoke --epochs 1 --max-steps 2 --max-length 64 --model {folder} --output {tmp_path / 'run'}"
    report = ours["main"](recipe.parse(ours["Arguments"], argv=given.split()))
    assert report.updates == 2
    task = bert4x.pipeline("reading-comprehension", tmp_path / "run")
    assert task("张三在哪？", "张三在北京。").text in "张三在北京。"
    said = capsys.readouterr().out
    assert "2 updates" in said and " -> " in said
