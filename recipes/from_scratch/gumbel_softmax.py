"""How good are gradients through a choice? Gumbel softmax and REINFORCE beside the exact one (kexue.fm/archives/6705).

A choice among n, drawn by a softmax of theta, has a value f. The gradient of the mean value by theta is known exactly,
as n is small; each estimate of it, from one draw, is off on average (bias), and differs from draw to draw (spread).

    python recipes/from_scratch/gumbel_softmax.py
    python recipes/from_scratch/gumbel_softmax.py --choices 32 --draws 20000 --temperatures 2 1 0.5 0.1 0.01

Low temperatures have little bias and much spread, high ones the other way; REINFORCE has no bias and much spread, less
of it with a baseline. A bias is known no better than its error says. In the output folder: gradients.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.layers import gumbel_softmax
from bert4x.plots.figures import optional, picture
from bert4x.training.compiled import gradients_of


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"draws": 200, "temperatures": (1.0, 0.1)}

    output: Path = recipe.option(Path("runs/gumbel_softmax"), "folder of the picture")
    choices: int = recipe.option(8, "to draw from", least=2)
    draws: int = recipe.option(5000, "of each estimate", least=10)
    temperatures: tuple[float, ...] = recipe.option((5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05), "of Gumbel softmax")


def value(choice, target):
    """What a choice, one-hot or soft, is worth: it is not linear, so that a soft choice is worth something else.

    Shape: (B, n), (n,) -> (B,)
    """
    return ops.sum(ops.square(choice - target), axis=-1)


def exact(theta, target):
    """The gradient of sum_i p_i f_i: p_i (f_i - mean). Shape: (n,)"""
    p = np.exp(theta) / np.exp(theta).sum()
    f = np.array(ops.convert_to_numpy(value(ops.eye(len(p)), target)))
    return p * (f - p @ f), p, f


def reinforce(p, f, draws, rng, baseline):
    """(f - b) times the gradient of log p, for each draw. Shape: -> (draws, n)"""
    chosen = rng.choice(len(p), draws, p=p)
    return (f[chosen] - baseline)[:, None] * (np.eye(len(p))[chosen] - p)


def through_gumbel(theta, target, draws, temperature, hard, seed):
    """The gradient through a soft draw, or a hard one with the soft one's gradient. Shape: -> (draws, n)"""

    def total(logits):
        values = value(gumbel_softmax(logits, temperature, hard, seed=seed), target)
        return ops.sum(values), values

    _, (gradients,) = gradients_of(total, [ops.convert_to_tensor(np.tile(theta, (draws, 1)).astype("float32"))])
    return np.array(ops.convert_to_numpy(gradients))


def main(args):
    rng = np.random.default_rng(args.seed)
    theta = rng.normal(0, 1, args.choices)
    target = ops.convert_to_tensor(rng.uniform(0, 1, args.choices).astype("float32"))

    # 1. The truth, and estimates from single draws.
    truth, p, f = exact(theta, target)
    estimates = {
        "REINFORCE": reinforce(p, f, args.draws, rng, 0.0),
        "REINFORCE, baseline": reinforce(p, f, args.draws, rng, p @ f),
    }
    for kind, hard in (("soft", False), ("straight through", True)):
        for t in args.temperatures:
            estimates[f"Gumbel {kind}, t = {t:g}"] = through_gumbel(theta, target, args.draws, t, hard, args.seed)

    # 2. How far they are off on average, and how much they differ, both as shares of the gradient's length.
    length, table = np.linalg.norm(truth), {}
    print("| estimate | bias | error of the bias | spread |\n|---|---|---|---|")
    for name, found in estimates.items():
        bias = np.linalg.norm(found.mean(0) - truth) / length
        spread = np.sqrt(found.var(0).sum()) / length
        table[name] = bias, spread
        print(f"| {name} | {bias:.3f} | {spread / args.draws**0.5:.3f} | {spread:.2f} |")

    # 3. The same by temperature, as a picture.
    with optional(), picture(args.output / "gradients.png", columns=2) as axes:
        for axis, number, title in zip(axes, (0, 1), ("bias", "spread of one draw"), strict=True):
            for kind in ("soft", "straight through"):
                values = [table[f"Gumbel {kind}, t = {t:g}"][number] for t in args.temperatures]
                axis.plot(args.temperatures, values, marker="o", label=f"Gumbel, {kind}")
            for name, style in (("REINFORCE", ":"), ("REINFORCE, baseline", "--")):
                axis.axhline(table[name][number], color="gray", linestyle=style, label=name)
            axis.set(xscale="log", yscale="log", xlabel="temperature", title=title)
        axes[0].legend()
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
