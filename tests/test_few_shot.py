"""Prompts from examples, their answers and choices: on a model that is written down here, and on the embedded one."""

from types import SimpleNamespace

import numpy as np
import pytest

import bert4x
from bert4x.errors import GenerationError
from bert4x.generation.detokenize import byte_characters
from bert4x.generation.few_shot import FewShot
from bert4x.tokenizers import BpeTokenizer

EXAMPLES = [{"text": "真好", "label": "积极"}, {"text": "太差", "label": "消极"}]


class Recorder:
    """Stands for a model: one token a byte, answers with what it was asked."""

    def __init__(self, positions=10_000):
        self.tokenizer = BpeTokenizer(byte_characters(), [])
        config = SimpleNamespace(model="gpt2", max_position=positions, hierarchical_position=False)
        start = {"bare_prompts": True, "target_start": lambda tokenizer: None}
        self.config, self.builder = config, SimpleNamespace(config=config, application="lm", **start)
        self.calls = []

    def generate(self, text, **options):
        self.calls.append((text, options))
        n = options.get("num_return_sequences", 1)
        answers = [[f" {prompt[-2:]} {number}\t" for number in range(n)] for prompt in text]
        return answers if n > 1 else [answer[0] for answer in answers]

    def score(self, prompts, choices, normalize=False):
        self.calls.append((prompts, {"choices": choices, "normalize": normalize}))
        return np.array([[-abs(len(prompt) - len(choice)) for choice in choices] for prompt in prompts], "float32")


def test_prompts():
    few = FewShot(Recorder(), "{text} ->{label}", EXAMPLES)
    assert (
        few.prompt(text="一般")
        == few.prompt("一般")
        == few.prompt({"text": "一般"})
        == "真好 ->积极\n太差 ->消极\n一般 ->"
    )
    assert FewShot(Recorder()).prompt("一般") == "一般 ->"
    several = FewShot(
        Recorder(),
        "{{{a}}} + {b} = {c}。完",
        [{"a": 1, "b": 2.5, "c": "三"}],
        separator=" | ",
    )
    assert several.prompt(a=3, b=4) == "{1} + 2.5 = 三。完 | {3} + 4 = "
    assert several.prompt("x", b="{c}") == "{1} + 2.5 = 三。完 | {x} + {c} = "
    assert FewShot(Recorder(), "城市：{城市}", [{"城市": "北京"}]).prompt() == "城市：北京\n城市："
    twice = FewShot(Recorder(), "{x}{x}:{y}", [])
    assert twice.prompt("a") == "aa:"


def test_generate():
    lm = Recorder()
    few = FewShot(lm, examples=EXAMPLES)
    assert few.generate("一般", top_p=0.9, seed=3) == "-> 0"
    prompts, options = lm.calls[0]
    assert prompts == ["真好 ->积极\n太差 ->消极\n一般 ->"]
    assert options == {"max_new_tokens": 32, "stop": "\n", "top_p": 0.9, "seed": 3}
    assert few.generate(["甲", {"text": "乙"}], max_new_tokens=5) == ["-> 0", "-> 0"]
    assert lm.calls[1][1]["max_new_tokens"] == 5
    assert few.generate("一般", num_return_sequences=2) == ["-> 0", "-> 1"]
    few.generate("一般", stop=["。"])
    assert lm.calls[-1][1]["stop"] == ["。"]
    FewShot(lm, stop=None).generate("一般")
    assert lm.calls[-1][1]["stop"] == ()


def test_choices():
    lm = Recorder()
    few = FewShot(lm, examples=EXAMPLES[:1])
    length = len(few.prompt("一般"))
    choices = ["x" * (length - 3), "x" * (length + 1), "x"]
    scores = few.scores("一般", choices)
    assert scores.shape == (3,) and scores.tolist() == [-3, -1, 1 - length]
    assert few.scores(["一般", "很一般"], choices).shape == (2, 3)
    assert few.choose("一般", choices) == choices[1]
    assert few.choose([{"text": "一般"}], choices, normalize=True) == [choices[1]]
    assert lm.calls[-1][1] == {"choices": choices, "normalize": True}
    for bad in ([], "积极", ()):
        with pytest.raises(GenerationError, match="expected a list of texts"):
            few.scores("一般", bad)


@pytest.mark.parametrize(
    ("template", "examples", "message"),
    [
        ("没有字段", [], "has no field"),
        ("{text} -> {{label}}", [{"text": "a", "label": "b"}], "example 1 has 'label'"),
        ("{text ->", [], "braces themselves"),
        ("{text} } {label}", [], "braces themselves"),
        ("{} -> {label}", [], "plain name"),
        ("{0} -> {label}", [], "plain name"),
        ("{text.__class__} -> {label}", [], "plain name"),
        ("{text!r} -> {label}", [], "plain name"),
        ("{text:>9999999999} -> {label}", [], "plain name"),
        ("{label} {text} {label}", [], "shows its answer"),
        (3, [], "template 3"),
        ("{text}{label}", [*EXAMPLES, {"text": "a"}], "example 3 lacks 'label'.*it has .'text'"),
        ("{text}{label}", [{"text": "a", "label": "b", "lable": "c"}], "example 1 has 'lable'; did you mean 'label'"),
        ("{text}{label}", [{"text": "a", "label": None}], "'label' is a NoneType"),
        ("{text}{label}", ["a -> b"], "example 1 is a str"),
    ],
)
def test_bad_templates_and_examples(template, examples, message):
    with pytest.raises(GenerationError, match=message):
        FewShot(Recorder(), template, examples)


def test_bad_queries():
    few = FewShot(Recorder(), "{a} {b} {label}")
    with pytest.raises(GenerationError, match="one text for the fields"):
        few.prompt("x")
    with pytest.raises(GenerationError, match="the query lacks 'b'"):
        few.prompt(a="x")
    with pytest.raises(GenerationError, match="the query has 'label'"):
        few.prompt(a="x", b="y", label="z")
    with pytest.raises(GenerationError, match="not int"):
        few.prompt(3)
    with pytest.raises(GenerationError, match="the query lacks 'a'"):
        few.generate(None)


def test_positions():
    query, shown = len(b"x ->"), len("真好 ->积极\n".encode())
    lm = Recorder(positions=query + 2 * shown + 10)
    assert FewShot(lm, examples=EXAMPLES).generate("x", max_new_tokens=10)
    with pytest.raises(GenerationError, match=f"of {query + 2 * shown} tokens.*need {query + 2 * shown + 11} .*has"):
        FewShot(lm, examples=EXAMPLES).generate("x", max_new_tokens=11)
    assert FewShot(lm, examples=EXAMPLES).generate("x", max_new_tokens=11, sliding_window=True)
    dropping = FewShot(lm, examples=EXAMPLES, drop_examples=True)
    dropping.generate(["x", "x" * (shown + 5)], max_new_tokens=10)
    assert lm.calls[-1][0] == [dropping.prompt("x"), "x" * (shown + 5) + " ->"]
    dropping.generate("x", max_new_tokens=11)
    assert lm.calls[-1][0] == ["太差 ->消极\nx ->"], "the oldest goes first"
    with pytest.raises(GenerationError, match="shorten the query"):
        dropping.generate("x" * 100)
    with pytest.raises(GenerationError, match="a choice of 11 tokens"):
        FewShot(lm, examples=EXAMPLES).scores("x", ["a", "b" * 11])
    dropping.scores("x", ["a", "b" * 11])
    assert lm.calls[-1][0] == ["太差 ->消极\nx ->"]


def test_on_a_model():
    lm = bert4x.load(application="lm")
    few = FewShot(lm, "请问{text}？{label}", [{"text": "你叫什么名字", "label": "我叫小明"}], separator="。", stop="。")
    answer = few.generate("你去哪里", max_new_tokens=12, seed=1, top_p=0.9)
    assert isinstance(answer, str) and "。" not in answer
    assert answer == lm.generate(few.prompt("你去哪里"), max_new_tokens=12, seed=1, top_p=0.9, stop="。").strip()
    choices = ["我去学校", "我喜欢音乐", "##"]
    scores = few.scores(["你去哪里", "你喜欢什么"], choices)
    assert scores.shape == (2, 3) and (scores < 0).all()
    np.testing.assert_allclose(
        scores[1], lm.score(few.prompt("你喜欢什么"), ["我去学校", "我喜欢音乐", "##"]), atol=1e-4
    )
    best = few.choose(["你去哪里", "你喜欢什么"], choices[:2], normalize=True)
    means = [lm.score(few.prompt(text), choices[:2], normalize=True) for text in ("你去哪里", "你喜欢什么")]
    assert best == [choices[mean.argmax()] for mean in means] and best[1] == "我喜欢音乐"
