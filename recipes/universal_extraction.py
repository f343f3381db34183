"""Train a model to find whatever a schema names: entities, relations, events, choices, from few examples.

    python recipes/universal_extraction.py
    python recipes/universal_extraction.py --train doccano.jsonl --model uie-base --learning-rate 1e-5 --output runs/uie
    python recipes/universal_extraction.py --train train.bio --names PER=人物,LOC=地点,ORG=机构
    python recipes/universal_extraction.py --train ske_train.jsonl --valid ske_dev.jsonl --negatives 3

The model is asked in words: beside the text it reads a prompt, `影片` or `海边的邮局的导演`, and says where what is
asked for begins and ends. So the names of labels matter, a new one needs no new weights, and what is known of one
(people are named) helps with the next (directors are). A text is also asked for what it does not have: `--negatives`.

A file is what doccano or Label Studio export (spans, relations between them), lines of triples with the types of their
subjects as of SKE, a character and its BIO tag a line, or our own: JSON lines in the form of the answers,

    {"text": "《雨夜》由夏树执导", "answers": {"影片": [{"text": "雨夜", "start": 1, "end": 3,
        "relations": {"导演": [{"text": "夏树", "start": 5, "end": 7}]}}], "评价[好评，差评]": [{"text": "好评"}]}}

which is what `bert4x predict` writes: corrected predictions are training data. The schema is all that --train names, or
a JSON file, `{"影片": ["导演", "主演"]}`. Without --train it learns from toy data. Then:

    bert4x predict runs/uie new.txt answers.jsonl
    bert4x evaluate runs/uie dev.jsonl

    import bert4x
    extract = bert4x.pipeline("universal-extraction", "runs/uie")
    extract("《雨夜》由夏树执导")
    extract("夏树出生在南屿", schema={"人物": ["出生地"]})

--model may be a UIE of PaddleNLP's in PyTorch's form, whose head is then trained further, or any encoder, which begins
with a new one; by default the small model inside the package.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bert4x import recipe
from bert4x.errors import DataError
from bert4x.tasks.readers import read_answers
from bert4x.tasks.schema import compared, schema_of
from bert4x.tasks.universal_extraction import UniversalExtraction

TOY = Path(__file__).parent / "data/toy_answers.jsonl"


@dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3}

    output: Path = recipe.option(Path("runs/universal_extraction"), "folder of the run")
    epochs: int = recipe.option(20, "times that every prompt is seen", least=1)
    learning_rate: float = recipe.option(3e-4, "its peak; for a large pretrained model rather 1e-5", above=0)
    schema: Path | None = recipe.option(None, "JSON file of what to look for; default: all that --train names")
    names: str | None = recipe.option(None, "what labels are called instead, as PER=人物,LOC=地点")
    negatives: float = recipe.option(5, "prompts without an answer for each with one, at most", least=0)
    threshold: float = recipe.option(0.5, "probability that a start, and an end, must pass", above=0, below=1)


def main(args):
    with recipe.Run(args) as run:
        # 1. Texts with their answers, and the schema of what they name.
        names = renamings(args.names)
        train, valid = run.data(lambda path: read_answers(path, names, say=run.say), TOY)
        schema = json.loads(args.schema.read_text("utf-8")) if args.schema else schema_of(train)

        # 2. A pretrained encoder, with two scores on each token: of a start, and of an end.
        task = UniversalExtraction(
            run.load(), schema, threshold=args.threshold, negatives=args.negatives, maxlen=args.max_length
        )

        # 3. Training, on a prompt and a text at a time: the weights of the epoch with the best F1 are kept.
        report = run.fit(task, train, valid)

        # 4. What it finds in texts that it has not seen.
        sample = valid[:6]
        for line in compared(sample, task([row["text"] for row in sample])):
            run.say(line)
        return report


def renamings(names: str | None) -> dict[str, str]:
    """`PER=人物,LOC=地点` as a dict. Raises: DataError for anything else."""
    pairs = [pair.partition("=") for pair in names.split(",")] if names else []
    if not all(label and equals and name for label, equals, name in pairs):
        raise DataError(f"--names {names}: expected label=name, several with commas between: PER=人物,LOC=地点")
    return {label.strip(): name.strip() for label, _, name in pairs}


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
