"""How time and memory of BERT-base inference grow with length, batch and layers; a fresh process for every point.

    python -m tests.benchmarks growth [--forms graph] [options of all cases]

Length 64 to 4096 at batch 1, batch 1 to 64 at 128 tokens, 2 to 24 layers at 8 x 128; float32, random weights, a small
vocabulary. The slope is the exponent between the last two points: 1 is proportional. Memory is the peak of the process
less that of the smallest point of the same contender. Peers: transformers, if asked for. On PyTorch ours is measured
with and without attention that holds no scores.
"""

import math

from tests.benchmarks import common, compare, report
from tests.benchmarks.checkpoints import bert, prepared
from tests.benchmarks.contenders import contenders

AXES = {  # what grows: values, and the batch, length and layers of a value
    "length": ((64, 128, 256, 512, 1024, 2048, 4096), lambda n: (1, n, 12)),
    "batch": ((1, 2, 4, 8, 16, 32, 64), lambda n: (n, 128, 12)),
    "layers": ((2, 4, 8, 12, 24), lambda n: (8, 128, n)),
}
TOY = {
    "length": ((8, 16), lambda n: (1, n, 1)),
    "batch": ((1, 2), lambda n: (n, 8, 1)),
    "layers": ((1, 2), lambda n: (1, 8, n)),
}
POSITIONS, VOCABULARY = 4096, 1000


def arguments():
    parser = common.options(__doc__)
    parser.set_defaults(repeats=1, against=[], backend=["tensorflow"])
    parser.add_argument("--forms", nargs="+", choices=("XLA", "graph"), default=["XLA"], help="of ours on TensorFlow")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    return parser


def slope(points: list[tuple[float, float]]) -> float:
    """The exponent between the last two points."""
    (x0, y0), (x1, y1) = points[-2:]
    return math.log(max(y1, 1e-9) / max(y0, 1e-9)) / math.log(x1 / x0)


def measure(args) -> report.Report:
    axes = TOY if args.size == "toy" else AXES
    peers = [peer for peer in args.against if peer == "transformers"]
    forms = {"bert4x, tensorflow": tuple(args.forms), "bert4x, torch": ("", "scores"), "transformers": ("eager",)}
    found = contenders(peers, args.backend, forms)
    tables, curves, problems = [], [], []
    for axis in args.axes:
        values, sizes = axes[axis]
        times, peaks = {}, {}
        for value in values:
            batch, length, layers = sizes(value)
            config = bert(args.size, vocab_size=VOCABULARY, max_position=POSITIONS, num_hidden_layers=layers)
            folder = prepared(args.folder, f"growth-{args.size}-{layers}", config)
            shape = f"{batch}x{length}"
            same = {"shapes": [shape], "vocabulary": VOCABULARY, "folder": str(folder), "device": args.device}
            jobs = compare.jobs_of("tests.benchmarks.inference:work", found, same)
            measured = compare.measure(jobs, args.repeats, {"": args.calls or 5}, keep=False, device=args.device)
            problems += compare.problems(measured, f"{axis} {value}", 1e-3)
            for name, figures in measured.figures.get(shape, {}).items():
                times.setdefault(name, []).append((value, figures.median))
                peaks.setdefault(name, []).append((value, figures.peak / 1e9))
        tables.append(table_of(axis, times, peaks))
        curves += [report.Curves(axis, "seconds", times), report.Curves(axis, "peak memory, GB", peaks)]
    return report.Report("growth", f"How cost grows ({args.size})", tables, curves=curves, problems=problems)


def table_of(axis: str, times: dict, peaks: dict) -> report.Table:
    """A row for every point, and one with the slopes."""
    names = list(times)
    points = sorted({x for found in times.values() for x, _ in found})
    rows = []
    for x in points:
        cells = [str(x)]
        for name in names:
            seconds, memory = dict(times[name]).get(x), dict(peaks[name]).get(x)
            cells.append("failed" if seconds is None else f"{seconds:.4g} s, {memory:.2f} GB")
        rows.append(cells)
    slopes = [slope(times[name]) if len(times[name]) > 1 else math.nan for name in names]
    above = [slope([(x, y - peaks[n][0][1]) for x, y in peaks[n]]) if len(peaks[n]) > 2 else math.nan for n in names]
    rows.append(["slope", *[f"{t:.2f}, memory {m:.2f}" for t, m in zip(slopes, above, strict=True)]])
    return report.Table(f"by {axis}", (axis, *names), rows)


if __name__ == "__main__":
    common.main(arguments(), measure)
