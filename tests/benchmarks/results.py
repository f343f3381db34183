"""Fine-tuning on real data, several seeds, beside PyTorch and `transformers` from the same weights: scores and seconds.

    python -m tests.benchmarks.results --data DATA [--output runs/results] [--only sentiment entities] [--seeds 0 1 2]
    python -m tests.benchmarks.results --data DATA --precisions float32 mixed_bfloat16 mixed_float16 --backend jax
    python -m tests.benchmarks.results --data DATA --model E5 --short --output runs/e5

Every run is a process of its own; one that is there already is not done again, one that was cut off goes on. The table
of docs/results.md is what this prints. Entities by a CRF and triples by GPLinker have no peer. Titles are decoded by
our search in both: the peer's weights are put into our model, whose outputs are the same.
"""

import argparse
import json
import lzma
import statistics
import sys
from pathlib import Path
from typing import get_args

from bert4x.recipe import PRECISIONS
from tests.benchmarks import common

RECIPES = Path(__file__).parents[2] / "recipes"
JOBS = {
    "sentiment": {
        "recipe": "text_classification", "train": "sentiment/train.tsv.xz", "valid": "sentiment/valid.tsv.xz",
        "options": {"epochs": 1, "batch_size": 32, "learning_rate": 3e-4}, "score": "accuracy",
    },
    "entities": {
        "recipe": "sequence_labeling",
        "train": "ner/peoples_daily_train.bio.xz", "valid": "ner/peoples_daily_dev.bio.xz",
        "options": {"epochs": 2, "batch_size": 16, "learning_rate": 5e-4, "method": "softmax"}, "score": "f1",
    },
    "crf": {
        "recipe": "sequence_labeling", "peer": False,
        "train": "ner/peoples_daily_train.bio.xz", "valid": "ner/peoples_daily_dev.bio.xz",
        "options": {"epochs": 2, "batch_size": 16, "learning_rate": 5e-4, "method": "crf"}, "score": "f1",
    },
    "triples": {
        "recipe": "triple_extraction", "train": "triples/ske_train.jsonl.xz", "valid": "triples/ske_dev.jsonl.xz",
        "options": {"epochs": 6, "batch_size": 16, "learning_rate": 1e-3, "schema": "triples/all_50_schemas"},
        "score": "f1",
    },
    "gplinker": {
        "recipe": "triple_extraction_gplinker", "peer": False,
        "train": "triples/ske_train.jsonl.xz", "valid": "triples/ske_dev.jsonl.xz",
        "options": {"epochs": 6, "batch_size": 16, "learning_rate": 1e-3, "schema": "triples/all_50_schemas"},
        "score": "f1",
    },
    "titles": {
        "recipe": "unilm_seq2seq", "train": "titles.train.tsv", "valid": "titles.valid.tsv",
        "options": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-3, "max_length": 192}, "score": "bleu",
    },
    "reading": {
        "recipe": "reading_comprehension", "train": "reading.train.json", "valid": "reading.valid.json",
        "options": {"epochs": 1, "batch_size": 16, "learning_rate": 5e-4, "max_length": 256}, "score": "f1",
    },
}  # fmt: skip
SHORT = {  # changed options, and rows of training and of scoring (of reading: passages): minutes of a larger model
    "sentiment": ({"learning_rate": 1e-4}, 1500, 500),
    "entities": ({"learning_rate": 1e-4, "head_learning_rate": 2e-3}, 1500, 500),
    "crf": ({"learning_rate": 1e-4, "head_learning_rate": 2e-3}, 1500, 500),
    "triples": ({"learning_rate": 1e-4, "epochs": 3}, 1500, 300),
    "gplinker": ({"learning_rate": 1e-4, "epochs": 3}, 1500, 300),
    "titles": ({"learning_rate": 1e-4}, 400, 50),
    "reading": ({"learning_rate": 1e-4, "head_learning_rate": 2e-3}, 200, 40),
}  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    p.add_argument("--output", type=Path, default=Path("runs/results"))
    p.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument(
        "--precisions",
        nargs="+",
        choices=get_args(PRECISIONS),
        default=["float32"],
        help="of ours; the peer's is float32",
    )
    p.add_argument(
        "--backend", choices=common.BACKENDS, default="tensorflow", help="of ours; one folder of output each"
    )
    p.add_argument("--no-peer", action="store_true", help="ours only")
    p.add_argument("--model", type=Path, help="checkpoint to start from; default: the small model inside bert4x")
    p.add_argument("--short", action="store_true", help="other epochs and rates, fewer rows: see SHORT")
    p.add_argument("--peer", nargs=2, metavar=("JOB", "SEED"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.peer:
        train_peer(args.peer[0], int(args.peer[1]), args)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    split(args.data, args.output)
    for seed in args.seeds:
        for job in args.only:
            for precision in args.precisions:
                ours(job, seed, precision, args)
            if not args.no_peer and has_peer(job):
                peer(job, seed, args)
    print(table(args))


def split(data: Path, output: Path) -> None:
    """The data sets that have one part only: every tenth title, and the passages of every fifth, are held out."""
    lines = (data / "titles/csl_title_train.tsv").read_text("utf-8").splitlines(keepends=True)
    (output / "titles.train.tsv").write_text("".join(line for i, line in enumerate(lines) if i % 10), "utf-8")
    (output / "titles.valid.tsv").write_text("".join(lines[::10]), "utf-8")
    articles = json.loads(lzma.decompress((data / "reading/cmrc2018_dev.json.xz").read_bytes()))["data"]
    for name, part in (("train", [a for i, a in enumerate(articles) if i % 5]), ("valid", articles[::5])):
        (output / f"reading.{name}.json").write_text(json.dumps({"data": part}, ensure_ascii=False), "utf-8")


def command(job: str, seed: int, name: str, args) -> list[str]:
    """The arguments of a recipe, for a run of that name."""
    found, parts = JOBS[job], []
    changed, *counts = SHORT[job] if args.short else ({}, None, None)
    for part, count in zip(("train", "valid"), counts, strict=True):
        parts += [f"--{part}", str(first(count, place(found[part], args), args.output / f"{job}.{part}"))]
    changed = changed | ({"model": args.model} if args.model else {})
    for option, value in (found["options"] | changed).items():
        value = place(value, args) if option == "schema" else value
        parts += [f"--{option.replace('_', '-')}", str(value)]
    return [*parts, "--seed", str(seed), "--output", str(args.output / name), "--resume", "auto"]


def place(file: str, args) -> Path:
    """A file of the data, or one that `split` made."""
    return args.output / file if (args.output / file).exists() else args.data / file


def first(count: int | None, file: Path, stem: Path) -> Path:
    """The file, or one of its first rows."""
    if count is None:
        return file
    compressed = file.suffix == ".xz"
    text = lzma.decompress(file.read_bytes()).decode("utf-8") if compressed else file.read_text("utf-8")
    kind = (file.with_suffix("") if compressed else file).suffix
    if kind == ".json":
        text = json.dumps({"data": json.loads(text)["data"][:count]}, ensure_ascii=False)
    else:
        end = "\n\n" if kind == ".bio" else "\n"  # of a row
        text = end.join(text.split(end)[:count]) + end
    shorter = stem.with_name(f"{stem.name}.{count}{kind}")
    shorter.write_text(text, "utf-8")
    return shorter


def ours(job: str, seed: int, precision: str, args) -> None:
    """One run of a recipe."""
    name = f"{job}-{seed}-{precision}"
    if not (args.output / f"{name}.json").exists():
        recipe = RECIPES / f"{JOBS[job]['recipe']}.py"
        options = ["--precision", precision, "--backend", args.backend]
        common.run(sys.executable, str(recipe), *command(job, seed, name, args), *options)
        records = [json.loads(line) for line in (args.output / name / "metrics.jsonl").open()]
        write(args.output / f"{name}.json", [record for record in records if "epoch" in record])


def has_peer(job: str) -> bool:
    """Whether PyTorch does the same."""
    return JOBS[job].get("peer", True)


def peer(job: str, seed: int, args) -> None:
    """One run of PyTorch."""
    if not (args.output / f"{job}-{seed}-peer.json").exists():
        options = ["--data", str(args.data), "--output", str(args.output), "--peer", job, str(seed)]
        options += ["--model", str(args.model)] if args.model else []
        options += ["--short"] if args.short else []
        common.run(sys.executable, "-m", "tests.benchmarks.results", *options)


def train_peer(job: str, seed: int, args) -> None:
    """The recipe as it is, but what it trains, in the end, is a peer."""
    from bert4x import recipe
    from bert4x.training.loop import Schedule
    from tests.benchmarks.transformers_peer import answer_with, train
    from tests.recipe_runs import load_recipe

    module = load_recipe(JOBS[job]["recipe"])
    name = f"{job}-{seed}-peer"
    argv, folder, records = command(job, seed, name, args), args.output / name, []

    class PeerRun(recipe.Run):
        def fit(self, task, rows, valid):
            a = self.args
            schedule = Schedule(a.epochs, a.batch_size, None, a.learning_rate, a.warmup, a.decay, seed=a.seed)
            for epoch, model, seconds in train(task, rows, schedule, folder, a.head_learning_rate):
                if job == "titles":
                    scores = titles(task, model, folder, valid)
                else:
                    answer_with(task, model)
                    scores = task.evaluate(valid)
                records.append({"epoch": epoch + 1, "seconds": seconds, **scores})
            write(args.output / f"{name}.json", records)
            sys.exit(0)

    recipe.Run = PeerRun
    module.main(recipe.parse(module.Arguments, argv=argv))


def titles(task, model, folder: Path, valid):
    """The scores of a writer, decoded by our search."""
    model.model.save_pretrained(folder / "trained")
    (folder / "trained/vocab.txt").write_bytes((folder / "hf/vocab.txt").read_bytes())
    task.backbone.builder.load_weights_from_checkpoint(folder / "trained")
    return task.evaluate(valid)


def write(path: Path, records: list[dict]) -> None:
    """The scores of all epochs."""
    path.write_text(json.dumps(records, indent=1) + "\n", "utf-8")


def table(args) -> str:
    """Mean and spread of the best epochs' scores over the seeds, and the median of the seconds of training."""
    kinds = {f"bert4x {precision}": precision for precision in args.precisions}
    if not args.no_peer:
        kinds["transformers"] = "peer"
    heads = ["task", "score", "seeds", *kinds, *(f"{name}, s" for name in kinds)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for job in args.only:
        scores, seconds = zip(*(cells(job, kind, args) for kind in kinds.values()), strict=True)
        lines.append(f"| {' | '.join([job, JOBS[job]['score'], str(len(args.seeds)), *scores, *seconds])} |")
    return "\n".join(lines)


def cells(job: str, kind: str, args) -> tuple[str, str]:
    """Score and seconds of a job's runs; empty where it has no peer."""
    if kind == "peer" and not has_peer(job):
        return "", ""
    runs = [json.loads((args.output / f"{job}-{seed}-{kind}.json").read_text()) for seed in args.seeds]
    best = [100 * max(record[JOBS[job]["score"]] for record in run) for run in runs]
    spread = f" ± {statistics.stdev(best):.2f}" if len(best) > 1 else ""
    return f"{statistics.mean(best):.2f}{spread}", f"{statistics.median(run[-1]['seconds'] for run in runs):.0f}"


if __name__ == "__main__":
    main()
