"""BERT-base's hidden states for batches of 8 and 1 texts of 128 tokens, in float32 and bfloat16.

    python -m tests.benchmarks inference [--dtypes float32 bfloat16] [--shapes 8x128 1x128] [options of all cases]

All libraries read the same random weights, in the tanh form of gelu, which is the only one that keras-hub's BERT has;
differences are from our float32. The limit is a matrix product, by XLA and by oneDNN, measured in turn with the rest.
Engines that only infer get our model by `bert4x export`. Beside bfloat16, ONNX Runtime computes in int8, and there is
no SavedModel.
"""

import importlib

import numpy as np

from tests.benchmarks import common, compare, report
from tests.benchmarks.checkpoints import bert, flops, ids_of, prepared
from tests.benchmarks.contenders import contenders
from tests.benchmarks.libraries import Setup
from tests.benchmarks.workers import Job, Prepared

FORMS = {
    "bert4x, tensorflow": ("XLA", "graph"), "keras-hub, tensorflow": ("XLA", "graph"), "bert4keras": ("XLA", "graph"),
    "transformers": ("eager", "compiled"),
}  # fmt: skip
WANTED = {  # by dtype and batch: times as fast as the best of some; share of the limit
    ("float32", 8): {"keras-hub, bert4keras": 1.10, "transformers": 2.0, "openvino": 0.95, "limit": 0.90},
    ("float32", 1): {"keras-hub, bert4keras": 1.12, "transformers": 2.0, "limit": 0.75},
    ("bfloat16", 8): {"keras-hub, bert4keras": 1.4, "transformers": 1.0, "openvino": 0.8},
    ("bfloat16", 1): {"keras-hub, bert4keras": 1.4, "transformers": 1.0},
}
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}
SHAPES = {"full": ["8x128", "1x128"], "small": ["8x128", "1x128"], "toy": ["2x16"]}


def work(module: str, library: str, shapes: list[str], vocabulary: int, timed: bool = True, **setup) -> Prepared:
    """A worker."""
    functions = importlib.import_module(module)
    encoder = getattr(functions, f"{library}_encoder", None) or functions.encoder
    encode = encoder(Setup(**setup))
    inputs = {}
    for shape in shapes:
        ids = ids_of(vocabulary, *map(int, shape.split("x")))
        inputs[shape] = ids, np.zeros_like(ids)
    outputs = {shape: encode(*arrays) for shape, arrays in inputs.items()}
    runs = {shape: lambda arrays=arrays: encode(*arrays) for shape, arrays in inputs.items()}
    return Prepared(runs if timed else {}, outputs)


def low_precision(job: Job) -> Job:
    """ONNX Runtime has int8 instead of bfloat16."""
    if job.arguments["library"] == "onnxruntime":
        return Job(f"{job.name}, int8", job.target, job.arguments | {"dtype": "int8"}, job.environment, job.python)
    return job


def arguments():
    parser = common.options(__doc__)
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCES, default=list(TOLERANCES))
    parser.add_argument("--shapes", nargs="+", help="batch x length; default: 8x128 1x128")
    return parser


def measure(args) -> report.Report:
    config = bert(args.size)
    folder = prepared(args.folder, f"bert-{args.size}", config, tf1="bert4keras" in args.against)
    shapes = args.shapes or SHAPES[args.size]
    against = [peer for peer in args.against if peer != "sentence-transformers"]  # which takes texts
    found = contenders(against, args.backend, FORMS)
    same = {"shapes": shapes, "vocabulary": config.vocab_size, "folder": str(folder), "device": args.device}
    tables, bars, problems, wanted = [], {}, [], []
    for dtype in args.dtypes:
        jobs = compare.jobs_of("tests.benchmarks.inference:work", found, same | {"dtype": dtype})
        if dtype != "float32":
            jobs = [job for job in jobs if job.arguments["library"] != "savedmodel"]
            reference = jobs[0].arguments | {"dtype": "float32", "timed": False}
            jobs = [Job("reference", jobs[0].target, reference, jobs[0].environment), *map(low_precision, jobs)]
        jobs = [*compare.limits(args.size, dtype), *jobs]
        calls = {"product": 20} | {shape: args.calls or (5 if shape.startswith("8") else 15) for shape in shapes}
        measured = compare.measure(jobs, args.repeats, calls, keep=True, device=args.device)
        peak = compare.limit(measured)
        for shape in [shape for shape in shapes if shape in measured.figures]:
            operations = flops(config, *map(int, shape.split("x")))
            table = report.comparison(shape, measured, operations)
            table.title = f"{shape}, {dtype}"
            tables.append(table)
            bars[table.title] = report.bars(measured)[shape]
            wanted += targets(measured, shape, WANTED.get((dtype, int(shape.split("x")[0])), {}), dtype, operations)
        problems += compare.problems(measured, dtype, TOLERANCES[dtype])
        if peak:
            problems.append(f"{dtype}: the limit is {peak / 1e9:.0f} GFLOP/s")
    tables.append(report.wanted_rows(wanted))
    return report.Report("inference", f"BERT-base inference ({args.size})", tables, bars, problems=problems)


def targets(measured: compare.Measured, run: str, wanted: dict, what: str, operations: float = 0) -> list[tuple]:
    """Rows of what is wanted of a run."""
    ours, rows = measured.best(run, "bert4x"), []
    for name, least in wanted.items():
        peers = [best for library in name.split(", ") if (best := measured.best(run, library))]
        value = None
        if ours and name == "limit":
            peak = compare.limit(measured)
            value = peak and operations / ours.median / peak
        elif ours and peers:
            value = min(peer.median for peer in peers) / ours.median
        label = "share of the limit" if name == "limit" else f"times as fast as the best of {name}"
        rows.append((f"{run}, {what}: {label}", *report.verdict(value, least=least)))
    for name, most in {"keras-hub, bert4keras": 1.0, "transformers": 1.2}.items():
        peers = [best for library in name.split(", ") if (best := measured.best(run, library))]
        if ours and peers:
            value = ours.peak / min(peer.peak for peer in peers)
            rows.append((f"{run}, {what}: peak memory against the best of {name}", *report.verdict(value, most=most)))
    return rows


if __name__ == "__main__":
    common.main(arguments(), measure)
