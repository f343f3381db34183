"""Train sentence vectors: to compare texts, and to search for them.

    python recipes/sentence_embeddings.py
    python recipes/sentence_embeddings.py --train sts.tsv --valid dev.tsv --output runs/vectors
    python recipes/sentence_embeddings.py --rows answers --train questions.jsonl --wrong 1 --learning-rate 2e-5

What a row is decides how it learns. `--rows grades`: `text <tab> text <tab> grade`, by CoSENT (kexue.fm/archives/8847),
for which only the order of grades counts. `--rows answers`: {"query": ..., "pos": [...], "neg": [...]}, two columns, or
pairs labelled entailment and contradiction; by InfoNCE, for which all other answers of the batch are wrong. `--rows
texts`: a text in each line; the same text under two dropouts (SimCSE, Gao et al. 2021). Then:

    import bert4x
    encoder = bert4x.embedder("runs/vectors")
    encoder.search("怎么申请退款", ["如何退货", "今天天气很好"])
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bert4x import recipe
from bert4x.errors import InputError
from bert4x.tasks.readers import read_compared
from bert4x.tasks.sentence_embedding import SentenceEmbedding

TOY = Path(__file__).parent / "data/toy_grades.tsv"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-4}

    output: Path = recipe.option(Path("runs/sentence_embeddings"), "folder of the run")
    rows: Literal["grades", "answers", "texts"] = recipe.option("grades", "what a row of --train is")
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    text_column: str | None = recipe.option(None, "the text's name, or number from 1; default: by the names")
    pair_column: str | None = recipe.option(None, "the second text's, or the answer's")
    label_column: str | None = recipe.option(None, "the grade's")
    wrong: int = recipe.option(0, "of answers: wrong ones in a row", only={"rows": ("answers",)}, least=0)
    pooling: Literal["mean", "cls", "max", "lasttoken"] = recipe.option("mean", "of hidden states")
    dimensions: str = recipe.option("", "sizes of beginnings that are vectors of their own, such as 64,128")
    scale: float = recipe.option(20.0, "of cosines in the loss", above=0)
    batch_size: int = recipe.option(32, "rows of a batch", least=2)
    max_length: int = recipe.option(64, "tokens of a text", least=8)


def main(args):
    with recipe.Run(args) as run:
        # 1. Rows to learn from, and pairs with grades (or answers) to score on.
        def read(path):
            kind = args.rows if path == args.train else "answers" if args.rows == "answers" else "grades"
            return read_compared(
                path, kind, wrong=args.wrong if kind == "answers" else 0, header=args.header, say=run.say,
                text_column=args.text_column, pair_column=args.pair_column, label_column=args.label_column,
            )  # fmt: skip

        train, valid = run.data(read, TOY)
        valid = [row for row in valid if len(row) > 1]

        # 2. A pretrained encoder, whose hidden states are pooled to one vector of length 1.
        task = SentenceEmbedding(
            run.load(), args.pooling, [{"kind": "normalize"}], maxlen=args.max_length, scale=args.scale,
            dimensions=sizes(args.dimensions),
        )  # fmt: skip
        if valid:
            run.say(f"before: {describe(task.evaluate(valid))}")

        # 3. Training: the weights of the epoch that scores best are kept.
        report = run.fit(task, train, valid)

        # 4. What is nearest to texts that it has not seen.
        corpus = list(dict.fromkeys(text for row in valid for text in row[:2] if isinstance(text, str)))
        for text in corpus[:3]:
            near = [(corpus[i], score) for i, score in task.search(text, corpus, 3) if corpus[i] != text]
            run.say(text + "".join(f"\n    {score:.3f}  {other}" for other, score in near))
        return report


def sizes(text):
    """Numbers with commas between them, as a list."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := [part for part in parts if not part.isdecimal()]:
        raise InputError(f"--dimensions {text}: {wrong[0]!r} is no size; expected such as 64,128")
    return [int(part) for part in parts]


def describe(scores):
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
