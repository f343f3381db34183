"""Kills a recipe at random moments and resumes it, again and again: does it end as one that was left alone?

    python tests/kill_runs.py [--kills 20] [--backend jax] [--seed 0] [--recipe text_classification] [--steps 400]

The moments are drawn over the life of a process: a quarter while it imports and compiles, the others while it trains,
scores, writes; such that the run comes to its end after about as many kills, if it trains for long against what it
writes (--steps). After every kill the folder is read: its metrics, its weights if there are any, its state.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

from bert4x.training.loop import METRICS, STATE, read_metrics

ROOT = Path(__file__).parents[1]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--backend", default="tensorflow")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--recipe", default="text_classification")
    p.add_argument("--steps", type=int, default=400)
    args = p.parse_args()
    environment = os.environ | {"KERAS_BACKEND": args.backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / f"recipes/{args.recipe}.py"), "--smoke", "--epochs", "100"]
    command += ["--max-steps", str(args.steps), "--save-every", "0.3", "--resume", "auto"]
    draw, folder = random.Random(args.seed), Path(tempfile.mkdtemp())

    def start(name):
        return subprocess.Popen(
            [*command, "--output", str(folder / name)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    began = time.monotonic()
    left_alone = start("whole")
    while left_alone.poll() is None and not read_metrics(folder / "whole" / METRICS):
        time.sleep(0.1)
    begins = time.monotonic() - began  # what a process takes before it trains
    if left_alone.wait():
        sys.exit(left_alone.stderr.read().decode())
    trains = time.monotonic() - began - begins
    print(
        f"{args.backend}, left alone: {begins:.0f} s before the first updates, {trains:.0f} s of training", flush=True
    )
    moments = []
    while True:
        process = start("parts")
        if draw.random() < 0.25:
            moment = draw.uniform(0.2, 1) * begins
        else:  # counted from its first new update, however slow the machine is now
            came = done(folder / "parts")
            while process.poll() is None and done(folder / "parts") <= came:
                time.sleep(0.05)
            moment = draw.uniform(0, 8 / 3) * trains / args.kills
        try:
            process.wait(timeout=moment)
            if process.returncode:
                sys.exit(process.stderr.read().decode())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            break
        moments.append(check(folder / "parts"))
    last = start("parts")
    if last.wait():
        sys.exit(last.stderr.read().decode())
    same(folder / "whole", folder / "parts")
    print(f"{args.backend}: killed {len(moments)} times, at updates {moments}; losses and weights are the same")


def check(folder: Path) -> int:
    """Reads what a killed run left; returns how far it had come. Raises what a reader raises."""
    for file in (folder / STATE, folder / "model.safetensors"):
        if file.exists():
            load_file(file)
    return done(folder)


def done(folder: Path) -> int:
    """The last update whose loss is written."""
    return max((record["update"] for record in read_metrics(folder / METRICS)), default=0)


def same(one: Path, two: Path) -> None:
    """Exits unless the losses and the weights of two runs are the same, bit for bit."""
    losses = [[r for r in read_metrics(folder / METRICS) if "loss" in r] for folder in (one, two)]
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, two)]
    states = [load_file(folder / STATE) for folder in (one, two)]
    differing = [name for name in states[0] if states[0][name].tobytes() != states[1][name].tobytes()]
    if losses[0] != losses[1] or weights[0] != weights[1] or differing:
        sys.exit(
            f"NOT the same: losses {losses[0] == losses[1]}, weights {weights[0] == weights[1]}, state {differing}"
        )


if __name__ == "__main__":
    main()
