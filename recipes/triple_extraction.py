"""Train a model to find triples (subject, predicate, object) in texts, by half pointers and half tags.

    python recipes/triple_extraction.py
    python recipes/triple_extraction.py --train train.jsonl --valid dev.jsonl --schema all_50_schemas --output runs/ske
    python recipes/triple_extraction.py --train train.jsonl --schema all_50_schemas \\
        --model chinese_L-12_H-768_A-12 --learning-rate 2e-5 --epochs 20 --batch-size 64 --ema 0.999

A line of a file is `{"text": ..., "spo_list": [{"subject": ..., "predicate": ..., "object": ...}]}`, as of SKE (Baidu's
competition of 2019); an object with slots, as of DuIE 2.0, is a triple for each of them (票房, 票房_inArea ...). What
doccano and Label Studio export of relations is read, too. A line of the schema is
`{"predicate": ..., "subject_type": ..., "object_type": ...}`, the types optional. Without a schema, the predicates are
those of --train. Without --train it learns from toy data. Then:

    bert4x extract runs/ske "《忘了所有》是由王杰作词、作曲并演唱的歌曲" --plot triples.png

    import bert4x
    extract = bert4x.pipeline("triple-extraction", "runs/ske")
    extract("《忘了所有》是由王杰作词、作曲并演唱的歌曲")

The method is Su Jianlin's (kexue.fm/archives/7161): first the start and end of each subject, then, for one subject at a
time, by a layer normalisation that depends on it, the starts and ends of objects, for every predicate.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bert4x import recipe
from bert4x.plots import triples
from bert4x.tasks.readers import read_triples
from bert4x.tasks.triple_extraction import TripleExtraction
from bert4x.tasks.triples import compared, read_schema

DATA = Path(__file__).parent / "data"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 8, "batch_size": 8, "learning_rate": 1e-3}

    output: Path = recipe.option(Path("runs/triple_extraction"), "folder of the run")
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

        # 2. A pretrained encoder, with pointers to subjects, and to the objects of one subject.
        task = TripleExtraction(run.load(), schema, maxlen=args.max_length)

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
