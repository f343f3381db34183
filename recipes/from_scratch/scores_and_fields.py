"""A score that is learnt without being known, and points that follow a field (Su, kexue.fm/archives/9509, 9305).

Diffusion models learn the score, the gradient of the log-density of data with noise. It is not known; but a network
that is trained on the score of the noise alone, given the clean point, has the same gradients: the two losses differ by
a constant. Poisson flow takes data for charges in a plane: who follows the field of these, from far above, down to the
plane, comes where the data are.

    python recipes/from_scratch/scores_and_fields.py
    python recipes/from_scratch/scores_and_fields.py --deviation 0.1 --steps 5000

The data are points around eight centres, whose score is known. Shown: for networks trained by either loss both losses,
and the error beside the true score; for points that followed the field of the data, or a network's, the energy distance
to other points of the data (0: no difference). In the output folder: points.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.metrics import energy_distance
from bert4x.plots.figures import optional, picture
from bert4x.training.fields import conditional_score, follow, poisson_field

CENTRES = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], -1)
SPREAD, FAR, NEAR = 0.05, 40.0, 1e-3
JIT = keras.config.backend() == "jax"  # elsewhere compiling takes longer than it saves here


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"steps": 2, "width": 8, "points": 64, "halts": 10}

    output: Path = recipe.option(Path("runs/scores_and_fields"), "folder of the picture")
    deviation: float = recipe.option(0.3, "of the noise whose score is learnt", above=0)
    steps: int = recipe.option(1500, "of training, with 256 points each", least=1)
    width: int = recipe.option(64, "of three layers", least=1)
    points: int = recipe.option(500, "that follow a field, and that they are compared with", least=2)
    halts: int = recipe.option(100, "on the way down", least=2)


def drawn(count, rng):
    """Data. Shape: -> (count, 2)"""
    return CENTRES[rng.integers(8, size=count)] + rng.normal(0, SPREAD, (count, 2))


def exact_score(x, deviation):
    """Of data with noise: each centre draws by its share in being where a point comes from. Shape: (N, 2) -> (N, 2)"""
    variance, apart = SPREAD**2 + deviation**2, CENTRES - x[:, None]
    shares = np.exp(-(apart**2).sum(-1) / (2 * variance))
    return (shares[..., None] * apart).sum(1) / shares.sum(1, keepdims=True) / variance


def trained(x, y, args):
    """A network from points to vectors, after one look at each pair."""
    keras.utils.set_random_seed(args.seed)
    dense = [keras.layers.Dense(args.width, activation="swish") for _ in range(3)]
    model = keras.Sequential([keras.Input(x.shape[1:]), *dense, keras.layers.Dense(y.shape[-1])])
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, args.steps)), "mse", jit_compile=JIT
    )
    model.fit(x, y, batch_size=256, shuffle=False, verbose=0)
    return model


def array(x):
    return ops.convert_to_numpy(x)


def learn_scores(args, rng):
    """Networks for the score: one learns the true one, the other knows only where each point came from. Returns of both
    and of no network, the losses and the error as a share."""
    clean = drawn(256 * args.steps, rng).astype("float32")
    noised = (clean + rng.normal(0, args.deviation, clean.shape)).astype("float32")
    truth, given = exact_score(noised, args.deviation), array(conditional_score(noised, clean, args.deviation))
    scale, table = np.square(truth[:10000]).mean(), {}
    print("| trained on | loss, true score | loss, noise's | difference | error, share |\n|---|---|---|---|---|")
    for name, target in (("nothing", None), ("the true score", truth), ("the noise's score", given)):
        model = target is not None and trained(noised, target.astype("float32"), args)
        found = array(model(noised[:10000])) if model else np.zeros_like(truth[:10000])
        losses = [float(np.square(found - some[:10000]).mean()) for some in (truth, given)]
        table[name] = *losses, losses[0] / scale
        print(f"| {name} | {losses[0]:.4f} | {losses[1]:.4f} | {losses[1] - losses[0]:.4f} | {losses[0] / scale:.4f} |")
    return table


def features(places):
    """Of a place the logarithm of its height, and what lies aside, itself and in heights. Shape: (N, 3) -> (N, 5)"""
    aside, height = places[:, :2], np.maximum(places[:, 2:], 1e-4)
    return np.concatenate([np.arcsinh(aside), np.log(height), aside / (np.abs(aside) + height)], -1)


def learn_field(data, args, rng):
    """A network for the field of charges, learnt at places that are near and far alike."""
    count = 256 * args.steps
    reach = 1.03 ** rng.uniform(0, 290, (count, 1))
    angle, noise = rng.uniform(0, 2 * np.pi, (count, 1)), np.abs(rng.normal(0, 0.01, (count, 2)))
    aside = noise[:, :1] * reach * np.concatenate([np.cos(angle), np.sin(angle)], -1)
    places = np.concatenate([drawn(count, rng) + aside, noise[:, 1:] * reach], -1).astype("float32")
    parts = [array(poisson_field(ops.convert_to_tensor(p), data)) for p in np.split(places, args.steps)]
    return trained(features(places).astype("float32"), np.concatenate(parts), args)


def down(field, args, rng):
    """Points that come down along a field, from where it is that of a single charge; time runs by its logarithm."""
    radius = FAR * np.sqrt(1 / (1 - rng.uniform(0, 0.999, args.points)) ** 2 - 1)
    turn = rng.uniform(0, 2 * np.pi, args.points)

    def slope(x, log_height):
        height = np.full((len(x), 1), np.exp(log_height))
        f = array(field(np.concatenate([x, height], -1).astype("float32")))
        return height * f[:, :2] / np.maximum(f[:, 2:], 1e-3)

    start = np.stack([radius * np.cos(turn), radius * np.sin(turn)], -1)
    return follow(slope, start, np.linspace(np.log(FAR), np.log(NEAR), args.halts))


def main(args):
    rng = np.random.default_rng(args.seed)
    table = learn_scores(args, rng)
    data = drawn(args.points, rng).astype("float32")
    network = learn_field(data, args, rng)
    sets = {
        "other points of the data": drawn(args.points, rng),
        "down the field of the data": down(lambda x: poisson_field(ops.convert_to_tensor(x), data), args, rng),
        "down the network's": down(lambda x: network(features(x).astype("float32")), args, rng),
        "a normal distribution of the same spread": rng.normal(0, data.std(), (args.points, 2)),
    }
    print("| points | energy distance |\n|---|---|")
    for name, found in sets.items():
        table[name] = energy_distance(found, drawn(args.points, rng))
        print(f"| {name} | {table[name]:.4f} |")
    with optional(), picture(args.output / "points.png", columns=3) as axes:
        for axis, (name, found) in zip(axes, sets.items(), strict=False):
            axis.scatter(*found.T, s=3)
            axis.set(title=name, xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
