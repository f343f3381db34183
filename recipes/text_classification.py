"""Train a classifier of texts, or of pairs of texts: sentiment, topics, intents, paraphrases.

    python recipes/text_classification.py
    python recipes/text_classification.py --train train.tsv --valid valid.tsv --output runs/sentiment
    python recipes/text_classification.py --train lcqmc.tsv --pairs --model chinese_L-12_H-768_A-12 --learning-rate 2e-5

A file is TSV, `text <tab> label` in every line, or CSV, JSON lines or a JSON array, by its name; all may be .xz.
Columns are found by their names (text, label, 标签 ...), or by `--text-column`, `--label-column`; `--pairs` wants two
texts, and `--several ,` says what stands between several labels of one text. Without --train it learns from toy data.
Then:

    import bert4x
    classify = bert4x.pipeline("text-classification", "runs/sentiment")
    classify("味道不错，价格也公道")
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bert4x import recipe
from bert4x.plots import confusion
from bert4x.tasks.classes import class_scores
from bert4x.tasks.readers import read_labelled
from bert4x.tasks.text_classification import TextClassification

TOY = Path(__file__).parent / "data/toy_sentiment.tsv"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 8, "batch_size": 8, "learning_rate": 5e-4}

    output: Path = recipe.option(Path("runs/text_classification"), "folder of the run")
    pairs: bool = recipe.option(False, "two texts in a line")
    several: str | None = recipe.option(None, "a text has several labels, with this between them")
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    text_column: str | None = recipe.option(None, "the text's name, or number from 1; default: by the names")
    pair_column: str | None = recipe.option(None, "the second text's", only={"pairs": True})
    label_column: str | None = recipe.option(None, "the label's")
    long: Literal["average", "maximum", "first"] = recipe.option(
        "average", "of texts longer than --max-length: the scores of windows joined so, or only the first tokens read"
    )
    label_first: bool = recipe.option(False, "the label is in the first column, whatever its name")


def main(args):
    with recipe.Run(args) as run:

        def read(path):
            return read_labelled(
                path, texts=2 if args.pairs else 1, separator=args.several, header=args.header, say=run.say,
                text_column=args.text_column, pair_column=args.pair_column, label_column=args.label_column,
                label="first" if args.label_first else None,
            )  # fmt: skip

        # 1. Texts, and the labels there are.
        train, valid = run.data(read, TOY)
        labels = sorted({label for *_, found in [*train, *valid] for label in (found if args.several else [found])})

        # 2. A pretrained encoder; on the hidden state of its first token, a dense layer.
        task = TextClassification(
            run.load(), labels, multi_label=bool(args.several), maxlen=args.max_length, long=args.long
        )

        # 3. Training: the weights of the epoch that scores best are kept.
        report = run.fit(task, train, valid)

        # 4. How well it tells each class, in numbers and as a picture.
        if valid:
            classes = class_scores(task, valid)
            recipe.write_json(run.folder / "classes.json", classes.to_dict())
            if classes.confusion:
                run.draw("confusion.png", confusion, classes)

        # 5. What it makes of texts that it has not seen.
        for *texts, truth in valid[:5]:
            run.say(f"{' | '.join(texts)}\n    {truth} -> {describe(task(tuple(texts)))}")
        return report


def describe(answer):
    """A label with its probability, or several."""
    return ", ".join(f"{one.label} {one.probability:.2f}" for one in (answer if isinstance(answer, list) else [answer]))


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
