"""Tasks by example, without training: a language model is shown solved cases and continues with the next answer.

    python recipes/few_shot_generation.py
    python recipes/few_shot_generation.py --model CPM-1-Generate --dtype bfloat16
    python recipes/few_shot_generation.py --examples cases.tsv --template "{text} ->{label}" --text "..."
    python recipes/few_shot_generation.py --fewclue fewclue/eprstmt fewclue/tnews --shots 4 --seeds 3 --calibrate

The idea is GPT-3's (Brown et al. 2020); CPM-LM with its 2.6 billion parameters was the first published Chinese model of
which it was shown, by the four tasks below. The default model is the small one inside the package, which can NOT do
it: its answers are poor, and only show that the machinery runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

import bert4x
from bert4x import recipe
from bert4x.generation.examples import read_examples
from bert4x.generation.few_shot import parse_template

# name: (template, solved cases, question, what CPM-LM was published to answer). The first prompt is the published one;
# the others have its form, with cases of our own, so that other answers are no fault.
# fmt: off
TASKS = {
    "knowledge": (
        "{country}的首都是{capital}", [("美国", "华盛顿"), ("法国", "巴黎"), ("日本", "东京")], "中国", "北京"),
    "translation": ("{chinese} {english}", [("狗", "dog"), ("猫", "cat"), ("鱼", "fish")], "鸟", "bird"),
    "subjects": ("{sentence} {subject}", [
        ("一九二一年，鲁迅在北京写成了《阿Q正传》", "鲁迅"),
        ("从康桥回来以后，徐志摩写下了他最有名的诗", "徐志摩"),
        ("那几年里，李四光走遍了南方的山岭", "李四光"),
    ], "在普林斯顿，杨振宁提出宇称在弱相互作用中不守恒", "杨振宁"),
    "triples": ("{sentence} ->{triple}", [
        ("小李身高180厘米，是校队的中锋。", "小李,身高,180厘米"),
        ("这座桥全长1200米，去年才通车。", "桥,全长,1200米"),
        ("我的老师王芳今年52岁，还在上课。", "王芳,年龄,52岁"),
    ], "张红体重140斤，她想再瘦一点。", "张红,体重,140斤"),
}
# fmt: on
# FewCLUE's tasks (Xu et al. 2021, arXiv 2107.07498): template, and the label in words
FEWCLUE = {
    "eprstmt": ("{sentence}。这次购物很{label}", {"Positive": "好", "Negative": "差"}),
    "tnews": ("{sentence}。这是一条{label}新闻", None),
}


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {}

    model: str | None = recipe.option(None, "a checkpoint; default: the model inside the package")
    dtype: str | None = recipe.option(None, "of its weights, such as bfloat16")
    quantize: Literal["int8"] | None = recipe.option(None, "a quarter of float32's memory")
    examples: Path | None = recipe.option(None, "solved cases: JSON, JSON lines, or tab-separated with field names")
    template: str = recipe.option("{text} ->{label}", "one case; its last field is the answer")
    text: tuple[str, ...] = recipe.option((), "questions to the examples")
    choices: tuple[str, ...] = recipe.option((), "answers to choose from, instead of writing freely")
    fewclue: tuple[Path, ...] = recipe.option((), "folders of FewCLUE tasks: eprstmt, tnews")
    shots: int = recipe.option(4, "cases shown, drawn from the 32 or 240 of the training set", least=1)
    seeds: int = recipe.option(3, "draws of them", least=1)
    calibrate: bool = recipe.option(False, "subtract what the model answers to an empty question")
    limit: int | None = recipe.option(None, "questions drawn from the test set; default: all", least=1)
    max_chars: int = recipe.option(60, "texts are cut off here, so that the cases fit", least=1)
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    smoke: bool = recipe.option(False, "the four tasks, whatever else is given: does it run?")


def separator(tokenizer) -> str:
    """A line break, where the vocabulary has one; WordPiece drops it."""
    return "\n" if tokenizer.encode("甲\n乙") != tokenizer.encode("甲乙") else "。"


def published_tasks(lm) -> None:
    """The four prompts, the model's answers, and those CPM-LM is known for."""
    print("| task | question | answer | CPM-LM, as published |\n|---|---|---|---|")
    for name, (template, cases, question, published) in TASKS.items():
        fields = [field for _, field in parse_template(template) if field is not None]
        between = separator(lm.tokenizer)
        few = bert4x.FewShot(lm, template, [dict(zip(fields, case, strict=True)) for case in cases], between, between)
        print(f"| {name} | {question} | {few.generate(question, max_new_tokens=16)} | {published} |")


def own_examples(lm, args) -> None:
    """Any task: answers to questions by the cases of a file."""
    fields = [field for _, field in parse_template(args.template) if field is not None]
    between = separator(lm.tokenizer)
    few = bert4x.FewShot(lm, args.template, read_examples(args.examples, fields), between, between)
    answers = few.choose(args.text, args.choices) if args.choices else few.generate(args.text, max_new_tokens=32)
    for text, answer in zip(args.text, answers, strict=True):
        print(f"{text} | {answer}")


def read_fewclue(folder: Path, max_chars: int) -> tuple[str, list[str], list[dict], list[dict]]:
    """Template, labels in words, training and test cases of a task."""
    template, words = FEWCLUE[folder.name]
    name = "label" if words else "label_desc"
    if not words:
        words = {row["label_desc"]: row["label_zh"] for row in read_examples(folder / "label_index2en2zh.json")}

    def cases(file):
        rows = read_examples(folder / file)
        return [{"sentence": row["sentence"][:max_chars], "label": words[row[name]]} for row in rows]

    return template, list(words.values()), cases("train_0.json"), cases("test_public.json")


def choose(few, sentences: list[str], labels: list[str], calibrate: bool) -> np.ndarray:
    """The number of the likeliest label. A model prefers some labels whatever is asked, and those shown last or most
    often; calibration takes that away (Zhao et al. 2021, arXiv 2102.09690). Shape: N texts -> (N,)
    """
    scores = few.scores(sentences, labels)
    return (scores - few.scores("无", labels) if calibrate else scores).argmax(axis=1)


def fewclue(lm, folder: Path, args) -> None:
    """Accuracy over several draws of the cases shown; always answering the most frequent label is the least to beat."""
    template, labels, train, test = read_fewclue(folder, args.max_chars)
    test = [test[i] for i in np.random.default_rng(0).permutation(len(test))[: args.limit]]  # files are sorted
    gold = np.array([labels.index(case["label"]) for case in test])
    sentences, between, accuracies = [case["sentence"] for case in test], separator(lm.tokenizer), []
    for seed in range(args.seeds):
        shown = np.random.default_rng(seed).permutation(len(train))[: args.shots]
        few = bert4x.FewShot(lm, template, [train[i] for i in shown], between, between, drop_examples=True)
        accuracies.append((choose(few, sentences, labels, args.calibrate) == gold).mean())
    often = np.bincount(gold).max() / len(gold)
    each = ", ".join(f"{accuracy:.1%}" for accuracy in accuracies)
    print(f"| {folder.name} | {len(test)} | {np.mean(accuracies):.1%} ({each}) | {often:.1%} |", flush=True)


def main(args):
    lm = bert4x.load(args.model, application="lm", dtype=args.dtype, quantize=args.quantize)
    if args.examples and not args.smoke:
        own_examples(lm, args)
    elif args.fewclue and not args.smoke:
        print("| task | questions | accuracy (each draw) | most frequent label |\n|---|---|---|---|")
        for folder in args.fewclue:
            fewclue(lm, folder, args)
    else:
        published_tasks(lm)


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
