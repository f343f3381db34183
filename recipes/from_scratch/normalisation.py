"""What batch normalisation does: it makes the loss less steep (Su, kexue.fm/archives/6992).

A step of gradient descent of rate r makes a loss smaller for certain if r < 2 / K, K being how much the gradient can
change over a step. A layer's K grows with the mean square of what comes into it. Of all shifts, that by the mean makes
the mean square least, and a scale makes it the same for all layers; so K falls, and rates can be larger.

    python recipes/from_scratch/normalisation.py
    python recipes/from_scratch/normalisation.py --depth 8 --width 64 --steps 300

For a network that centres what comes into each layer, scales it, does both (which is batch normalisation) or neither:
the largest curvature of its loss at the beginning, 2 / K by that, and the loss after training by plain gradient descent
with each rate. In the output folder: rates.png.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.plots.figures import optional, picture
from bert4x.training.compiled import Compiled, gradients_of

KINDS = {"neither": (False, False), "centred": (True, False), "scaled": (False, True), "both": (True, True)}


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"depth": 2, "width": 4, "steps": 2, "rates": (0.1, 1.0), "powers": 2}

    output: Path = recipe.option(Path("runs/normalisation"), "folder of the picture")
    depth: int = recipe.option(4, "layers before the last", least=1)
    width: int = recipe.option(32, "of each", least=2)
    steps: int = recipe.option(100, "of training", least=1)
    rates: tuple[float, ...] = recipe.option((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "of gradient descent")
    powers: int = recipe.option(20, "products with the matrix of second derivatives", least=1)


def loss_of(kind, x, y):
    """A function of the matrices of a network (relu between them) to its squared error, and that again."""
    centre, scale = KINDS[kind]

    def loss(*matrices):
        h = x
        for i, matrix in enumerate(matrices):
            mean = ops.mean(h, axis=0, keepdims=True)
            spread = ops.sqrt(ops.mean(ops.square(h - mean if centre else h), axis=0, keepdims=True) + 1e-5)
            h = h - mean if centre else h
            h = ops.matmul(h / spread if scale else h, matrix)
            h = ops.relu(h) if i < len(matrices) - 1 else h
        error = ops.mean(ops.square(h[:, 0] - y))
        return error, error

    return Compiled(lambda *matrices: gradients_of(loss, list(matrices)), [])


def curvature(loss, matrices, powers, rng):
    """The largest eigenvalue of the matrix of second derivatives, by products that are differences of gradients."""
    direction, found = [rng.normal(0, 1, m.shape) for m in matrices], 0.0
    for _ in range(powers):
        length = np.sqrt(sum((d**2).sum() for d in direction))
        ends = [
            loss(*((m + side * 1e-2 * d / length).astype("float32") for m, d in zip(matrices, direction, strict=True)))
            for side in (1, -1)
        ]
        above, below = ([ops.convert_to_numpy(g) for g in gradients] for _, gradients in ends)
        direction = [(a - b) / 2e-2 for a, b in zip(above, below, strict=True)]
        found = float(np.sqrt(sum((d**2).sum() for d in direction)))
    return found


def main(args):
    rng = np.random.default_rng(args.seed)

    # 1. Points whose features have means and spreads of their own, as is usual, and a smooth function of them.
    plain = rng.normal(0, 1, (256, 8))
    x = ops.convert_to_tensor((plain * rng.uniform(0.5, 2, 8) + rng.normal(0, 2, 8)).astype("float32"))
    y = np.sin(plain[:, 0] + plain[:, 1]) + 0.5 * plain[:, 2]
    y = ops.convert_to_tensor(((y - y.mean()) / y.std()).astype("float32"))
    sizes = [8, *[args.width] * args.depth, 1]
    begun = [rng.normal(0, (2 / m) ** 0.5, (m, n)).astype("float32") for m, n in pairwise(sizes)]

    # 2. For each network its curvature, and the loss after training with each rate; a loss of 1 is that of the mean.
    table = {}
    print("| what comes into a layer is | curvature | 2 / K |", " | ".join(f"rate {r:g}" for r in args.rates), "|")
    print("|---" * (3 + len(args.rates)) + "|")
    for kind in KINDS:
        loss, losses = loss_of(kind, x, y), []
        steepest = curvature(loss, begun, args.powers, rng)
        for rate in args.rates:
            matrices = begun
            for _ in range(args.steps):
                _, gradients = loss(*matrices)
                matrices = [m - rate * ops.convert_to_numpy(g) for m, g in zip(matrices, gradients, strict=True)]
                if not all(np.isfinite(m).all() for m in matrices):
                    break
            losses.append(float(ops.convert_to_numpy(loss(*matrices)[0][0])))
        table[kind] = steepest, losses
        written = " | ".join(f"{value:.3f}" if value < 100 else "none" for value in losses)
        print(f"| {kind} | {steepest:.3g} | {2 / steepest:.2g} | {written} |", flush=True)

    # 3. Loss by rate, as a picture.
    with optional(), picture(args.output / "rates.png") as (axis,):
        for kind, (_, losses) in table.items():
            axis.plot(args.rates, np.minimum(np.nan_to_num(losses, nan=2.0), 2), marker="o", label=kind)
        axis.set(xscale="log", xlabel="rate", ylabel=f"loss after {args.steps} steps (2: 2 or more)")
        axis.legend()
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
