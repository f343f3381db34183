"""Pretraining by AdamW and by Muon: the embedded model's sizes from nothing, equal tokens, several seeds.

    python -m tests.benchmarks.optimizers --data DATA [--output runs/optimizers] [--seeds 0 1 2] [--steps 1500]

Each run is recipes/pretraining.py on DATA's modern texts with its own learning rate and objectives. Losses are means
over `WINDOW` updates. A run that is there already is not done again, and one that was cut off goes on.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from bert4x import plots
from tests.benchmarks import common

KINDS = ("adamw", "muon")
WINDOW = 100  # updates
FILES = ("dialogue.txt.xz:3", "sentence.txt.xz:3:lines", "textbook.txt.xz:2", "cook.txt.xz:3", "prose.txt.xz:1.5")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder of the corpus")
    p.add_argument("--output", type=Path, default=Path("runs/optimizers"))
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--batch-tokens", type=int, default=2048)
    args = p.parse_args()
    found = {kind: np.array([losses(kind, seed, args) for seed in args.seeds]) for kind in KINDS}
    ends = {kind: curves[:, -WINDOW:].mean(1) for kind, curves in found.items()}
    print("| seed | AdamW's loss | Muon's | updates of Muon to AdamW's loss |\n|---|---|---|---|")
    for i, seed in enumerate(args.seeds):
        adamw, muon = ends["adamw"][i], ends["muon"][i]
        print(f"| {seed} | {adamw:.3f} | {muon:.3f} | {reached(found['muon'][i], adamw)} |")
    print("| mean | " + " | ".join(f"{e.mean():.3f} ± {e.std(ddof=1):.3f}" for e in ends.values()) + " | |")
    runs = {kind: [points(curve) for curve in curves] for kind, curves in found.items()}
    plots.comparison(runs, args.output / "optimizers.svg", f"loss, mean of {WINDOW} updates")


def losses(kind: str, seed: int, args) -> np.ndarray:
    """Those of one run, which is made where it is not there. Shape: (steps,)"""
    folder = args.output / f"{kind}-{seed}"
    records = folder / "metrics.jsonl"
    if not (folder / "float16").exists():
        options = {
            "optimizer": kind, "seed": seed, "max-steps": args.steps, "batch-tokens": args.batch_tokens,
            "cache": args.output / "cache", "output": folder, "resume": "auto",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        data = [str(args.data / file) for file in FILES]
        common.run(sys.executable, str(common.ROOT / "recipes/pretraining.py"), *words, "--data", *data)
    return np.array([json.loads(line)["loss"] for line in records.read_text("utf-8").splitlines()])[: args.steps]


def means(curve: np.ndarray) -> np.ndarray:
    """The mean of each `WINDOW` updates. Shape: (N,) -> (N - WINDOW + 1,)"""
    return np.convolve(curve, np.ones(WINDOW) / WINDOW, "valid")


def reached(curve: np.ndarray, loss: float) -> int | str:
    """After how many updates the mean is as low as a loss for the first time."""
    low = np.flatnonzero(means(curve) <= loss)
    return int(low[0]) + WINDOW if len(low) else "never"


def points(curve: np.ndarray) -> list[tuple[int, float]]:
    """A curve as plots.comparison takes it: every 50th mean."""
    return [(i + WINDOW, float(value)) for i, value in enumerate(means(curve)) if i % 50 == 0]


if __name__ == "__main__":
    main()
