"""Train a model to find triples (subject, predicate, object) in texts, by global pointers.

    python recipes/triple_extraction_gplinker.py
    python recipes/triple_extraction_gplinker.py --train train.jsonl --valid dev.jsonl --schema all_50_schemas
    python recipes/triple_extraction_gplinker.py --train train.jsonl --schema all_50_schemas \\
        --model chinese_L-12_H-768_A-12 --learning-rate 2e-5 --epochs 20

The files are those of recipes/triple_extraction.py, and so is what can be done with the run:

    bert4x extract runs/gplinker "《忘了所有》是由王杰作词、作曲并演唱的歌曲" --plot triples.png

    import bert4x
    extract = bert4x.pipeline("triple-extraction", "runs/gplinker")

The method is Su Jianlin's GPLinker (kexue.fm/archives/8888): all spans of a text are scored as subjects and as objects,
and for every predicate all pairs of tokens as where a subject and its object begin, and as where both end. A triple is
where all agree. Nothing is drawn in training, and triples may overlap in any way; but memory grows with the square of
the length, times the predicates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bert4x import recipe
from bert4x.plots import triples
from bert4x.tasks.gplinker import GPLinker
from bert4x.tasks.readers import read_triples
from bert4x.tasks.triples import compared, read_schema

DATA = Path(__file__).parent / "data"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 8, "batch_size": 8, "learning_rate": 2e-3}

    output: Path = recipe.option(Path("runs/gplinker"), "folder of the run")
    epochs: int = recipe.option(20, "times that every text is seen", least=1)
    learning_rate: float = recipe.option(3e-4, "its peak; for a large pretrained model rather 2e-5", above=0)
    schema: Path | None = recipe.option(None, "file of predicates; default: those of --train")


def main(args):
    with recipe.Run(args) as run:
        # 1. Texts with their triples, and the predicates there are.
        train, valid = run.data(lambda path: read_triples(path, say=run.say), DATA / "toy_triples.jsonl")
        schema = args.schema or (None if args.train else DATA / "toy_schema.jsonl")
        found = {predicate for row in train for _, predicate, _ in row["spo_list"]}
        schema = read_schema(schema) if schema else sorted(found)

        # 2. A pretrained encoder, with three pointers: to entities, and to what links their first and last tokens.
        task = GPLinker(run.load(), schema, maxlen=args.max_length)

        # 3. Training: the weights of the epoch with the best F1 are kept. Where nothing is found yet, it says how near
        # the likeliest candidate came.
        report = run.fit(task, train, valid)

        # 4. What it finds in texts that it has not seen, in words and as a picture.
        texts = [row["text"] for row in valid[:6]]
        answers = task(texts)
        for line in compared(valid, answers):
            run.say(line)
        run.draw("triples.png", triples, texts, answers, gold=[row["spo_list"] for row in valid[:6]])
        return report


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
