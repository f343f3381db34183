"""A step of fine-tuning a classifier over BERT-base: AdamW, 8 texts of 128 tokens, dropout on.

    python -m tests.benchmarks training [--dtypes float32 mixed_bfloat16] [--shapes 8x128] [options of all cases]

The same random weights, head included, in all libraries, and the same AdamW: rate, decay of matrices only, gradients
clipped to norm 1. First a toy model is trained for some steps without dropout, by each: its losses and scores must be
the same. Then BERT-base is timed, in fresh processes in every round; `difference` is that of its scores before the
first step. The work of a step is counted as three forward passes.
"""

import importlib

import numpy as np

from tests.benchmarks import common, compare, report
from tests.benchmarks.checkpoints import bert, flops, ids_of, prepared
from tests.benchmarks.contenders import contenders
from tests.benchmarks.inference import targets
from tests.benchmarks.libraries import LABELS, Setup
from tests.benchmarks.workers import Prepared

FORMS = {
    "bert4x, tensorflow": ("graph",),
    "keras-hub, tensorflow": ("XLA", "graph"),
    "bert4keras": ("XLA", "graph"),
    "transformers": ("eager", "compiled"),
}
PEERS = ("transformers", "keras-hub", "bert4keras")
WANTED = {
    "float32": {"keras-hub, bert4keras": 1.15, "transformers": 2.0, "limit": 0.80},
    "mixed_bfloat16": {"keras-hub, bert4keras": 1.5, "transformers": 1.15},
}
TOLERANCES = {"float32": 1e-4, "mixed_bfloat16": 0.05}
SAME_TRAINING = 2e-3  # of losses and scores after STEPS updates
STEPS = 5


def batch_of(vocabulary: int, shape: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, segment ids, labels. Shape: (B, T), (B, T), (B,)"""
    ids = ids_of(vocabulary, *map(int, shape.split("x")))
    return ids, np.zeros_like(ids), (np.arange(len(ids)) % LABELS).astype("int32")


def work(module: str, library: str, shapes: list[str], vocabulary: int, **setup) -> Prepared:
    """A worker that is timed."""
    score, learn = importlib.import_module(module).classifier(Setup(**setup))
    batches = {shape: batch_of(vocabulary, shape) for shape in shapes}
    outputs = {shape: score(*arrays[:2]) for shape, arrays in batches.items()}
    for arrays in batches.values():
        learn(*arrays)  # compiles
    return Prepared({shape: lambda arrays=arrays: learn(*arrays) for shape, arrays in batches.items()}, outputs)


def check(module: str, library: str, vocabulary: int, **setup) -> Prepared:
    """A worker that trains a toy without dropout, and tells what became of it."""
    score, learn = importlib.import_module(module).classifier(Setup(dropout=0.0, **setup))
    ids, segments, labels = batch_of(vocabulary, "4x16")
    losses = [learn(ids, segments, labels) for _ in range(STEPS)]
    return Prepared({}, {"losses": np.array(losses), "scores": score(ids, segments)})


def arguments():
    parser = common.options(__doc__)
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCES, default=list(TOLERANCES))
    parser.add_argument("--shapes", nargs="+", help="batch x length; default: 8x128")
    parser.add_argument("--no-check", action="store_true", help="do not train the toy first")
    return parser


def same_training(args, found) -> list[str]:
    """What differs when a toy is trained by each library."""
    config = bert("toy")
    folder = prepared(args.folder, "bert-toy", config, tf1="bert4keras" in args.against)
    same = {"vocabulary": config.vocab_size, "folder": str(folder), "device": args.device}
    jobs = compare.jobs_of("tests.benchmarks.training:check", found, same)
    measured = compare.measure(jobs, 1, {}, keep=False, device=args.device)
    lines = compare.problems(measured, f"{STEPS} steps without dropout", SAME_TRAINING)
    worst = max(measured.differences.values(), default=0.0)
    return [*lines, f"{STEPS} steps without dropout: losses and scores of {len(measured.differences)} contenders"
            f" differ by {worst:.1e} at most"]  # fmt: skip


def measure(args) -> report.Report:
    found = contenders([peer for peer in PEERS if peer in args.against], args.backend, FORMS)
    problems = [] if args.no_check else same_training(args, found)
    config = bert(args.size)
    folder = prepared(args.folder, f"bert-{args.size}", config, tf1="bert4keras" in args.against)
    shapes = args.shapes or ["2x16" if args.size == "toy" else "8x128"]
    same = {"shapes": shapes, "vocabulary": config.vocab_size, "folder": str(folder), "device": args.device}
    tables, bars, wanted = [], {}, []
    for dtype in args.dtypes:
        limits = compare.limits(args.size, "bfloat16" if "bfloat16" in dtype else dtype)
        jobs = compare.jobs_of("tests.benchmarks.training:work", found, same | {"dtype": dtype})
        calls = {"product": 20, "": args.calls or 4}
        measured = compare.measure([*limits, *jobs], args.repeats, calls, keep=False, device=args.device)
        for shape in [shape for shape in shapes if shape in measured.figures]:
            operations = 3 * flops(config, *map(int, shape.split("x")))
            table = report.comparison(shape, measured, operations)
            table.title = f"{shape}, {dtype}"
            tables.append(table)
            bars[table.title] = report.bars(measured)[shape]
            wanted += targets(measured, shape, WANTED[dtype], dtype, operations)
        problems += compare.problems(measured, dtype, TOLERANCES[dtype])
        if peak := compare.limit(measured):
            problems.append(f"{dtype}: the limit is {peak / 1e9:.0f} GFLOP/s")
    tables.append(report.wanted_rows(wanted))
    return report.Report("training", f"BERT-base fine-tuning step ({args.size})", tables, bars, problems=problems)


if __name__ == "__main__":
    common.main(arguments(), measure)
