"""Entities and triples from few examples: universal extraction beside the CRF and GPLinker, on the same rows.

    python -m tests.benchmarks.few_examples --data DATA [--sizes 16 64 256] [--only entities triples]

The rows are the first of the training part that have an answer; each model is trained from the embedded one for as many
updates of 16 inputs (an input of universal extraction is a prompt with its text), and scored by its last weights on the
first such rows of the other part: F1 of entities, and of triples. A run that is there already is not done again.
"""

import argparse
import json
import lzma
import time
from pathlib import Path

BATCH = 16
NAMES = {"PER": "人物", "LOC": "地点", "ORG": "机构"}
FILES = {
    "entities": ("ner/peoples_daily_train.bio.xz", "ner/peoples_daily_dev.bio.xz"),
    "triples": ("triples/ske_train.jsonl.xz", "triples/ske_dev.jsonl.xz"),
}
MODELS = {"entities": ("crf", "universal"), "triples": ("gplinker", "universal")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    p.add_argument("--output", type=Path, default=Path("runs/few"))
    p.add_argument("--sizes", nargs="+", type=int, default=[16, 64, 256])
    p.add_argument("--only", nargs="+", choices=FILES, default=list(FILES))
    p.add_argument("--updates", type=int, default=600)
    p.add_argument("--scored", type=int, default=500, help="rows")
    p.add_argument("--learning-rate", type=float, default=5e-4)
    args = p.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    print("| task | examples | model | F1 | s |\n|---|---|---|---|---|")
    for name in args.only:
        for size in args.sizes:
            for model in MODELS[name]:
                found = scores(name, size, model, args)
                print(
                    f"| {name} | {size} | {model} | {100 * found['score']:.1f} | {found['seconds']:.0f} |", flush=True
                )


def scores(name: str, size: int, model: str, args) -> dict:
    """Those of one run, which is made where it is not there."""
    result = args.output / f"{name}-{model}-{size}.json"
    if not result.exists():
        train, valid = (
            part(args.data / file, n, args.output) for file, n in zip(FILES[name], (size, args.scored), strict=True)
        )
        task, rows, held, score = made(name, model, train, valid)
        began = time.process_time()
        task.fit(
            rows, epochs=args.updates, max_steps=args.updates, batch_size=BATCH, learning_rate=args.learning_rate,
            verbose=False,
        )  # fmt: skip
        found = task.evaluate(held)
        found |= {"score": found[score], "seconds": time.process_time() - began}
        result.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return json.loads(result.read_text("utf-8"))


def made(name: str, model: str, train: Path, valid: Path):
    """A new task, its rows, those to score on, and which of its scores counts."""
    import keras

    import bert4x
    from bert4x.tasks import readers
    from bert4x.tasks.gplinker import GPLinker
    from bert4x.tasks.schema import schema_of
    from bert4x.tasks.token_classification import TokenClassification
    from bert4x.tasks.universal_extraction import UniversalExtraction

    keras.utils.set_random_seed(0)
    if model == "universal":
        rows, held = (readers.read_answers(path, NAMES) for path in (train, valid))
        schema = schema_of([*rows, *held])
        score = "entity_f1" if name == "entities" else "relation_f1"
        return UniversalExtraction(bert4x.load(), schema, maxlen=128), rows, held, score
    if model == "crf":
        rows, held = (readers.read_entities(path) for path in (train, valid))
        return TokenClassification(bert4x.load(), sorted(NAMES), method="crf", maxlen=128), rows, held, "f1"
    rows, held = (readers.read_triples(path) for path in (train, valid))
    predicates = sorted({predicate for row in [*rows, *held] for _, predicate, _ in row["spo_list"]})
    return GPLinker(bert4x.load(), predicates, maxlen=128), rows, held, "f1"


def part(path: Path, count: int, output: Path) -> Path:
    """A file of the first rows that have an answer."""
    text, tagged = lzma.decompress(path.read_bytes()).decode("utf-8"), ".bio" in path.name
    mark = "\n\n" if tagged else "\n"
    rows = [row for row in text.split(mark) if (" B-" if tagged else '"subject"') in row]
    target = output / f"{path.name.split('.')[0]}.{count}{Path(path.stem).suffix}"
    target.write_text(mark.join(rows[:count]) + "\n", "utf-8")
    return target


if __name__ == "__main__":
    main()
