"""Fine-tune an ALBERT as it is, and with a block for every layer: all start as copies of the shared one, and then learn
on their own (Su 2020, kexue.fm/archives/7187). What it computes at the start is the same; how fast it learns is not.

    python recipes/albert_unshared.py
    python recipes/albert_unshared.py --model albert_tiny_google_zh --train train.tsv --valid valid.tsv --repeats 5

The files are those of recipes/text_classification.py. Both ways are trained `--repeats` times, by other seeds; every
training is a run folder in the output folder, and `--resume auto` goes on with those that are not finished.

Without --model it starts from an ALBERT that was never pretrained as one: its block is the first of the small BERT
inside bert4x. That shows how the comparison is made, not what to expect of a real ALBERT.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import bert4x
from bert4x import plots, recipe
from bert4x.tasks.readers import read_labelled
from bert4x.tasks.text_classification import TextClassification
from bert4x.training.loop import read_metrics

TOY = Path(__file__).parent / "data/toy_sentiment.tsv"
WAYS = {"shared": "albert", "unshared": "albert_unshared"}


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-4, "repeats": 1}

    output: Path = recipe.option(Path("runs/albert_unshared"), "folder of the runs, the table and the picture")
    epochs: int = recipe.option(6, "times that every example is seen", least=1)
    max_length: int = recipe.option(64, "tokens of a text", least=8)
    repeats: int = recipe.option(3, "trainings of each way, by other seeds", least=1)
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    text_column: str | None = recipe.option(None, "the text's name, or number from 1; default: by the names")
    label_column: str | None = recipe.option(None, "the label's")
    label_first: bool = recipe.option(False, "the label is in the first column, whatever its name")


def albert_from_bert(folder: Path) -> Path:
    """Writes an ALBERT whose block is the small BERT's first one, and whose embeddings are mapped onto themselves."""
    bert = bert4x.load(with_mlm=True)
    config = bert.config.to_dict() | {"model": "albert"}
    albert = bert4x.build_transformer_model(config, model="albert", with_mlm="linear")
    values = {variable.path: variable for variable in bert.variables}
    for variable in albert.variables:
        if variable.path == "Embedding-Mapping/kernel":
            variable.assign(np.eye(*variable.shape, dtype="float32"))
        elif "Embedding-Mapping" not in variable.path and "seed_generator" not in variable.path:
            variable.assign(values[variable.path.replace("Transformer-", "Transformer-0-")])
    albert.tokenizer = bert.tokenizer
    return bert4x.save(albert, folder)


def train(args, way: str, seed: int):
    """Fine-tunes in one way; returns the scores along the way, (update, accuracy), and the scores before any update."""
    import keras  # after bert4x, with which TensorFlow says less

    args = dataclasses.replace(args, output=args.output / f"{way}-{seed}", seed=seed)
    with recipe.Run(args) as run:

        def read(path):
            return read_labelled(
                path, header=args.header, text_column=args.text_column, label_column=args.label_column, say=run.say,
                label="first" if args.label_first else None,
            )  # fmt: skip

        rows, valid = run.data(read, TOY)
        labels = sorted({label for _, label in [*rows, *valid]})
        backbone = run.load(model=WAYS[way])
        keras.utils.set_random_seed(seed)  # the same head for both ways, whatever was drawn before
        task = TextClassification(backbone, labels, maxlen=args.max_length)
        before = task.scores(task.prepare(valid[:16]))
        run.say(f"{way}, seed {seed}: {task.model.count_params():,} parameters")
        run.fit(task, rows, valid)
    records = read_metrics(args.output / "metrics.jsonl")
    return [(record["update"], record["accuracy"]) for record in records if "accuracy" in record], before


def reached(curve, score: float) -> int | None:
    """The first update whose weights score at least so well."""
    return next((update for update, accuracy in curve if accuracy >= score), None)


def table(curves: dict[str, list]) -> list[str]:
    """For each seed the best score of either way, and when it was as good as the shared one at its best."""
    lines = ["| seed | shared | unshared | updates to shared's best | the same, unshared |", "|---|---|---|---|---|"]
    best = {way: [max(accuracy for _, accuracy in curve) for curve in curves[way]] for way in WAYS}
    for seed, goal in enumerate(best["shared"]):
        when = [reached(curves[way][seed], goal) or "never" for way in WAYS]
        lines.append(f"| {seed} | {goal:.4f} | {best['unshared'][seed]:.4f} | {when[0]} | {when[1]} |")
    mean = [f"{np.mean(best[way]):.4f} ± {np.std(best[way]):.4f}" for way in WAYS]
    return [*lines, f"| mean | {' | '.join(mean)} | | |"]


def main(args):
    if args.model is None:
        print("no --model: an ALBERT made of the small BERT's first block; it was never pretrained as one")
        start = args.output / "start"
        args.model = str(start if start.exists() else albert_from_bert(start))
    curves, before = {way: [] for way in WAYS}, {}
    for seed in range(args.seed, args.seed + args.repeats):
        for way in WAYS:
            curve, before[way] = train(args, way, seed)
            curves[way].append(curve)
        difference = np.abs(before["shared"] - before["unshared"]).max()
        print(f"seed {seed}: before the first update, the scores of both ways differ by {difference:.1e} at most")
    lines = table(curves)
    print("\n".join(lines))
    args.output.joinpath("table.md").write_text("\n".join(lines) + "\n", "utf-8")
    try:
        plots.comparison(curves, args.output / "comparison.png", score="accuracy")
    except plots.MissingMatplotlibError as error:
        print(f"no picture: {error}")
    return curves


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
