"""Sentence vectors on real data: before training, after CoSENT, InfoNCE and SimCSE, beside sentence-transformers.

    python -m tests.benchmarks.sentence_vectors --data DATA [--output runs/vectors] [--only cosent] [--seeds 0 1 2]
    python -m tests.benchmarks.sentence_vectors --data DATA --only --models e5 --before "query: " "passage: "

The small BERT inside the package is averaged, then trained by recipes/sentence_embeddings.py; the peer has the same
initial weights, rows, batches and rates, and the losses of sentence-transformers. Beside them, the small model of
sentence vectors, as it is. Pairs: Spearman's correlation of cosine and grade or label. CMRC: the passage of a question
among all passages. A run that is there already is not done again.
"""

import argparse
import json
import lzma
import sys
from pathlib import Path

import numpy as np

from bert4x.checkpoints.files import default_model
from tests.benchmarks import common

RECIPE = "sentence_embeddings"
PAIRS = ("stsb", "lcqmc", "pawsx", "afqmc", "oppo")
JOBS = {
    "cosent": {"rows": "grades", "batch_size": 32, "learning_rate": 3e-4},
    "infonce": {"rows": "answers", "wrong": 1, "batch_size": 64, "learning_rate": 3e-4},
    "simcse": {"rows": "texts", "batch_size": 64, "learning_rate": 1e-4},
}
PASSAGE = 256  # tokens of a passage that are read
RANK = 10  # of retrieval


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    p.add_argument("--output", type=Path, default=Path("runs/vectors"))
    p.add_argument("--only", nargs="*", choices=JOBS, default=list(JOBS))
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--rows", type=int, default=5000, help="of each file of training, at most")
    p.add_argument("--scored", type=int, default=1500, help="of each file of pairs, and questions of CMRC, at most")
    p.add_argument("--backend", choices=common.BACKENDS, default="tensorflow", help="of ours")
    p.add_argument("--no-peer", action="store_true", help="ours only")
    p.add_argument("--steps", type=int, help="instead of all: so many updates without dropout, ours and the peer's")
    p.add_argument("--models", nargs="+", default=[], metavar="FOLDER", help="scored as they are")
    p.add_argument("--before", nargs=2, default=["", ""], help="of --models: put before a sentence, and a passage")
    p.add_argument("--peer", nargs=2, metavar=("JOB", "SEED"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.peer:
        train_peer(args.peer[0], int(args.peer[1]), args)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    write_rows(args)
    if args.steps:
        for job in args.only:
            print(job, json.dumps(compared(job, args)), flush=True)
        return
    for model in args.models:
        kept(args.output / f"{Path(model).name}.json", lambda model=model: scores(published(model, args), args))
    kept(args.output / "before.json", lambda: scores(ours(default_model(), pooling="mean"), args))
    kept(args.output / "tokens.json", lambda: scores(ours(None), args))
    for seed in args.seeds:
        for job in args.only:
            kept(args.output / f"{job}-{seed}.json", lambda job=job, seed=seed: trained(job, seed, args))
            if not args.no_peer and not (args.output / f"{job}-{seed}-peer.json").exists():
                options = ["--data", args.data, "--output", args.output, "--scored", args.scored, "--rows", args.rows]
                options = [*map(str, options), "--peer", job, str(seed)]
                common.run(sys.executable, "-m", "tests.benchmarks.sentence_vectors", *options)
    print(table(args))


def kept(path: Path, measure) -> dict[str, float]:
    """What was measured, at once or before."""
    if not path.exists():
        path.write_text(json.dumps(measure(), indent=1) + "\n", "utf-8")
    return json.loads(path.read_text("utf-8"))


# data


def lines(path: Path, count: int | None = None) -> list[list[str]]:
    """The first rows of a file of columns."""
    rows = [line.split("\t") for line in lzma.decompress(path.read_bytes()).decode("utf-8").splitlines()]
    return rows[:count]


def pairs(name: str, data: Path, count: int) -> list[tuple[str, str, float]]:
    """Two sentences and their grade."""
    rows = lines(data / f"pairs/{name}_dev.tsv.xz")
    rows = [row[1:] for row in rows[1:]] if name == "pawsx" else rows
    return [(first, second, float(grade)) for first, second, grade in rows[:count]]


def write_rows(args) -> None:
    """What each job learns from, and a few rows to score on while it does. Of AFQMC "the same" counts as 5 of STS-B."""
    folder = args.data / "pairs"
    grades = lines(folder / "stsb_train.tsv.xz", args.rows)
    grades += [[a, b, str(5 * int(same))] for a, b, same in lines(folder / "afqmc_train.tsv.xz", args.rows)]
    texts = [[text] for text in dict.fromkeys(text for row in grades for text in row[:2])]
    pairs = lines(folder / "snli_dev.tsv.xz") + lines(folder / "snli_test.tsv.xz")
    held = lines(folder / "stsb_dev.tsv.xz", 300)
    files = {"grades": (grades, held), "texts": (texts[: args.rows], held), "answers": (pairs[900:], pairs[:900])}
    for name, parts in files.items():
        for part, rows in zip(("train", "valid"), parts, strict=True):
            text = "".join("\t".join(row) + "\n" for row in rows)
            (args.output / f"{name}.{part}.tsv").write_text(text, "utf-8")


# scores


def scores(encode, args) -> dict[str, float]:
    """Those of all data sets, of a function that makes vectors of length 1: (texts, whether they are passages)."""
    from bert4x import metrics
    from bert4x.tasks.vectors import search

    found = {}
    for name in PAIRS:
        rows = pairs(name, args.data, args.scored)
        first, second = (encode([row[i] for row in rows], False) for i in range(2))
        found[name] = metrics.sts((first * second).sum(1), [row[2] for row in rows])["spearman"]
    articles = json.loads(lzma.decompress((args.data / "reading/cmrc2018_dev.json.xz").read_bytes()))["data"]
    passages = [part for article in articles for part in article["paragraphs"]]
    asked = [(qa["question"], i) for i, part in enumerate(passages) for qa in part["qas"]][: args.scored]
    near = search(encode([text for text, _ in asked], False), encode([p["context"] for p in passages], True), RANK)
    right = [[i] for _, i in asked]
    return found | metrics.retrieval([[one.index for one in row] for row in near], right, RANK)


def ours(source, before=("", ""), **options):
    """The vectors of a model by bert4x."""
    import bert4x
    from bert4x.tasks.vectors import unit

    encoder = bert4x.embedder(source, maxlen=PASSAGE, **options)
    return lambda texts, passages: unit(encoder([before[passages] + text for text in texts], ""))


def published(model: str, args):
    """A folder as it is."""
    return ours(model, args.before)


# runs


def command(job: str, seed: int, name: str, args) -> list[str]:
    """The arguments of the recipe."""
    options = dict(JOBS[job], epochs=1, seed=seed, output=args.output / name, resume="auto", backend=args.backend)
    for part in ("train", "valid"):
        options[part] = args.output / f"{JOBS[job]['rows']}.{part}.tsv"
    return [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def trained(job: str, seed: int, args) -> dict[str, float]:
    """One run of the recipe, scored."""
    recipe = common.ROOT / f"recipes/{RECIPE}.py"
    common.run(sys.executable, str(recipe), *command(job, seed, f"{job}-{seed}", args))
    return scores(ours(args.output / f"{job}-{seed}"), args)


def train_peer(job: str, seed: int, args) -> None:
    """The recipe as it is, but what it trains, in the end, is a model of sentence-transformers."""
    from bert4x import recipe
    from bert4x.training.loop import Schedule
    from tests.recipe_runs import load_recipe

    module, name = load_recipe(RECIPE), f"{job}-{seed}-peer"

    class PeerRun(recipe.Run):
        def fit(self, task, rows, valid):
            a = self.args
            schedule = Schedule(a.epochs, a.batch_size, None, a.learning_rate, a.warmup, a.decay, seed=a.seed)
            encode = peer(task, rows, schedule, args.output / name / "start")
            kept(args.output / f"{name}.json", lambda: scores(encode, args))
            sys.exit(0)

    recipe.Run = PeerRun
    module.main(recipe.parse(module.Arguments, argv=command(job, seed, name, args)))


def peer(task, rows, schedule, folder: Path):
    """Trains the same model by sentence-transformers' losses, on the same batches; returns what makes its vectors."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    from bert4x.training.batches import Batches
    from tests.benchmarks.transformers_peer import decayed

    torch.manual_seed(schedule.seed)
    model = SentenceTransformer(str(task.save(folder)), device="cpu")
    model.max_seq_length = task.maxlen
    batches = Batches([example.length for example in task.prepare(rows)], schedule.batch_size, schedule.seed)
    graded = task.objective == "grades"
    loss_of = (losses.CoSENTLoss if graded else losses.MultipleNegativesRankingLoss)(model, scale=task.scale)
    rows = [(row[0], row[0]) if task.objective == "single texts" else row for row in map(tuple, rows)]
    optimizer = torch.optim.AdamW(decayed(model), lr=schedule.learning_rate, eps=1e-7)
    model.train()
    for update, (chosen, _) in enumerate(batches.epoch(0), 1):
        columns = list(zip(*(rows[i] for i in chosen), strict=True))
        grades = torch.tensor([float(grade) for grade in columns.pop()] if graded else [0.0])
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(update, len(batches))
        loss = loss_of([model.preprocess(list(column)) for column in columns], grades)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    model.max_seq_length = PASSAGE
    return lambda texts, passages: model.encode(texts, normalize_embeddings=True)


def compared(job: str, args) -> dict[str, float]:
    """How far a few updates without dropout move the numbers of vectors, and how far ours are then from the peer's."""
    import keras

    import bert4x
    from bert4x.tasks.readers import read_compared
    from bert4x.tasks.sentence_embedding import SentenceEmbedding
    from bert4x.training.loop import Schedule

    def task():
        keras.utils.set_random_seed(0)
        model = bert4x.load(dropout_rate=0.0, attention_dropout_rate=0.0)
        return SentenceEmbedding(model, "mean", [{"kind": "normalize"}], maxlen=64)

    options = JOBS[job]
    size, rate, file = options["batch_size"], options["learning_rate"], f"{options['rows']}.train.tsv"
    rows = read_compared(args.output / file, options["rows"], wrong=options.get("wrong", 0))[: args.steps * size]
    texts = [row[0] for row in rows[:100]]
    theirs = peer(task(), rows, Schedule(1, size, None, rate), args.output / f"{job}-steps")(texts, False)
    ours = task()
    start = ours(texts)
    ours.fit(rows, epochs=1, batch_size=size, learning_rate=rate, verbose=False)
    found = ours(texts)
    return {"moved": float(np.abs(found - start).max()), "apart": float(np.abs(found - theirs).max())}


# the table


def table(args) -> str:
    """A line for each model: means over the seeds, with their spread, in percent."""
    names = {
        "before": ["before"],
        "vectors of tokens": ["tokens"],
        **{Path(model).name: [Path(model).name] for model in args.models},
    }
    for job in args.only:
        names[f"{job}, bert4x"] = [f"{job}-{seed}" for seed in args.seeds]
        if not args.no_peer:
            names[f"{job}, sentence-transformers"] = [f"{job}-{seed}-peer" for seed in args.seeds]
    found = {
        name: [json.loads((args.output / f"{run}.json").read_text()) for run in runs] for name, runs in names.items()
    }
    heads = list(next(iter(found.values()))[0])
    rows = [["", *heads], ["---"] * (1 + len(heads))]
    rows += [[name, *(cell([run[head] for run in runs]) for head in heads)] for name, runs in found.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(values: list[float]) -> str:
    """A mean and a spread."""
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
