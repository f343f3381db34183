"""Train a model to find entities in texts: people, places, organisations, or whatever is labelled.

    python recipes/sequence_labeling.py
    python recipes/sequence_labeling.py --train train.bio --valid dev.bio --output runs/ner
    python recipes/sequence_labeling.py --train train.bio --method efficient-global-pointer \\
        --model chinese_L-12_H-768_A-12 --learning-rate 2e-5

A file has a character and its BIO tag in every line, `北 B-LOC`, with an empty line after each text, as CoNLL's do;
or it is JSON, as exported by doccano and Label Studio, or as of CLUENER. All may be .xz. Without --train it learns from
toy data. Then:

    import bert4x
    recognize = bert4x.pipeline("token-classification", "runs/ner")
    recognize("张三昨天去了北京")

The methods: "softmax" tags each token on its own, "crf" all of a text together, "memm" and "bi-memm" each by its
neighbours; the global pointers score every pair of a start and an end, so their entities may overlap.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bert4x import recipe
from bert4x.tasks.readers import read_entities
from bert4x.tasks.token_classification import TokenClassification

TOY = Path(__file__).parent / "data/toy_entities.bio"
METHODS = Literal["softmax", "crf", "memm", "bi-memm", "global-pointer", "efficient-global-pointer"]


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-3}

    output: Path = recipe.option(Path("runs/sequence_labeling"), "folder of the run")
    epochs: int = recipe.option(10, "times that every text is seen", least=1)
    learning_rate: float = recipe.option(3e-4, "its peak; for a large pretrained model rather 2e-5", above=0)
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    method: METHODS = recipe.option("crf", "how entities are found")
    lr_multiplier: float | None = recipe.option(
        None, "how much faster than the rest the transitions between tags learn; default: 100",
        only={"method": ("crf", "memm", "bi-memm")}, above=0,
    )  # fmt: skip


def main(args):
    with recipe.Run(args) as run:
        # 1. Texts with their entities, and the labels there are.
        train, valid = run.data(lambda path: read_entities(path, header=args.header, say=run.say), TOY)
        labels = sorted({entity.label for row in [*train, *valid] for entity in row["entities"]})

        # 2. A pretrained encoder; on each hidden state the scores of tags, or on each two that of a span.
        task = TokenClassification(
            run.load(), labels, method=args.method, lr_multiplier=args.lr_multiplier, maxlen=args.max_length
        )

        # 3. Training: the weights of the epoch with the best F1 are kept.
        report = run.fit(task, train, valid)

        # 4. What it finds in texts that it has not seen.
        sample = valid[:5]
        for row, found in zip(sample, task([row["text"] for row in sample]), strict=True):
            run.say(row["text"])
            gold, ours = set(task.entities(row)), {(entity.label, entity.start, entity.end) for entity in found}
            for mark, some in (("right", ours & gold), ("wrong", ours - gold), ("missed", gold - ours)):
                for label, start, end in sorted(some, key=lambda entity: entity[1:]):
                    run.say(f"    {mark:>6}: {row['text'][start:end]} ({label}, {start}-{end})")
        return report


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
