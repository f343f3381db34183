"""How signals fare in deep networks by how their matrices begin (Su, kexue.fm/archives/7180).

Two random vectors of many dimensions are nearly orthogonal: so a matrix of independent numbers of variance 1 / n keeps
lengths. With other variances, signals and gradients grow or die by depth, and with them a hundred layers learn nothing;
what a nonlinearity takes, the initializer has to give back, and a way past each layer makes most of this harmless.

    python recipes/from_scratch/initialisation.py
    python recipes/from_scratch/initialisation.py --depth 50 --width 256 --steps 500

For each scheme and nonlinearity: the length of a signal and of its gradient after all layers, and the loss after
training to tell apart two rings of points. In the output folder: lengths.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from bert4x import recipe
from bert4x.plots.figures import optional, picture

SCHEMES = {
    "normal, 0.02": lambda n, rng: rng.normal(0, 0.02, (n, n)),
    "1 / n (LeCun)": lambda n, rng: rng.normal(0, n**-0.5, (n, n)),
    "2 / n (He)": lambda n, rng: rng.normal(0, (2 / n) ** 0.5, (n, n)),
    "orthogonal": lambda n, rng: np.linalg.qr(rng.normal(0, 1, (n, n)))[0],
    "1 / n, with a way past": lambda n, rng: rng.normal(0, n**-0.5, (n, n)),
}
FUNCTIONS = {"linear": (lambda x: x, lambda x: np.ones_like(x)), "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
             "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0)}  # fmt: skip


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"depth": 4, "width": 16, "steps": 2, "trained": ("relu",)}

    output: Path = recipe.option(Path("runs/initialisation"), "folder of the picture")
    depth: int = recipe.option(100, "layers", least=1)
    width: int = recipe.option(64, "of each", least=2)
    steps: int = recipe.option(200, "of training", least=1)
    trained: tuple[str, ...] = recipe.option(("tanh", "relu"), "nonlinearities of the networks that are trained")


def lengths(scheme, function, args, rng):
    """The length of a signal after each layer, that of its gradient before each, both as shares of what comes in.

    Shape: -> 2 x (depth + 1,)
    """
    f, slope = FUNCTIONS[function]
    past = 1.0 if "past" in scheme else 0.0
    h, forward, kept = rng.normal(0, 1, (256, args.width)), [1.0], []
    start = np.linalg.norm(h)
    for _ in range(args.depth):
        w = SCHEMES[scheme](args.width, rng)
        z = h @ w
        kept.append((w, slope(z)))
        h = (past * h + f(z)) / (1 + past) ** 0.5
        forward.append(np.linalg.norm(h) / start)
    g = rng.normal(0, 1, h.shape)
    end, backward = np.linalg.norm(g), [1.0]
    for w, d in reversed(kept):
        g = (past * g + (g * d) @ w.T) / (1 + past) ** 0.5
        backward.append(np.linalg.norm(g) / end)
    return np.array(forward), np.array(backward[::-1])


def network(scheme, function, args, rng):
    """The same network in Keras, to be trained."""
    inputs = keras.Input((2,))
    h = keras.layers.Dense(args.width)(inputs)
    for _ in range(args.depth):
        layer = keras.layers.Dense(args.width, activation=function)
        out = layer(h)
        layer.set_weights([SCHEMES[scheme](args.width, rng), np.zeros(args.width)])
        h = keras.layers.Lambda(lambda pair: (pair[0] + pair[1]) / 2**0.5)([h, out]) if "past" in scheme else out
    return keras.Model(inputs, keras.layers.Dense(1)(h))


def main(args):
    rng = np.random.default_rng(args.seed)
    keras.utils.set_random_seed(args.seed)

    # 1. Lengths of signals and gradients, computed in NumPy.
    print("| scheme | nonlinearity | signal at the end | gradient at the beginning |\n|---|---|---|---|")
    drawn = {}
    for scheme in SCHEMES:
        for function in FUNCTIONS:
            forward, backward = drawn[scheme, function] = lengths(scheme, function, args, rng)
            print(f"| {scheme} | {function} | {forward[-1]:.3g} | {backward[0]:.3g} |")

    # 2. Which of the networks learn: one half of the points is within a ring of the other.
    radius = np.repeat([1.0, 2.0], 128) + rng.normal(0, 0.1, 256)
    angle = rng.uniform(0, 2 * np.pi, 256)
    points, inside = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1), np.repeat([1.0, 0.0], 128)
    losses = {}
    print("| scheme | nonlinearity | loss (chance: 0.693) |\n|---|---|---|")
    for function in args.trained:
        for scheme in SCHEMES:
            model = network(scheme, function, args, rng)
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0), loss, jit_compile=False)
            model.fit(points, inside, batch_size=256, epochs=args.steps, verbose=0)
            losses[scheme, function] = float(model.evaluate(points, inside, batch_size=256, verbose=0))
            print(f"| {scheme} | {function} | {losses[scheme, function]:.3f} |", flush=True)

    # 3. Lengths by depth, as a picture.
    with optional(), picture(args.output / "lengths.png", columns=len(FUNCTIONS)) as axes:
        for axis, function in zip(axes, FUNCTIONS, strict=True):
            for scheme in SCHEMES:
                axis.plot(np.maximum(drawn[scheme, function][0], 1e-30), label=scheme)
            axis.set(yscale="log", ylim=(1e-12, 1e12), title=f"length of a signal, {function}", xlabel="layers")
        axes[0].legend(fontsize=8)
    return losses


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
