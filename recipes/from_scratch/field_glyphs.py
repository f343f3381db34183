"""Characters out of noise, by a learnt score and by a learnt Poisson field (Su, kexue.fm/archives/9509, 9305).

A network is shown characters with noise of all strengths, and learns to find the clean ones. With noise of a normal
distribution it so knows the score of the noised data, the gradient of their log-density; with noise as a single charge
has it, the field of the data as charges in a plane. Both say in which direction there is less noise, and whoever
follows them from far away comes to an image that could be one of the data.

    python recipes/from_scratch/field_glyphs.py
    python recipes/from_scratch/field_glyphs.py --kinds score --width 48 --epochs 200 --halts 40

The characters, those kept back, and the distance are those of gan_glyphs.py: the Frechet distance to the characters
that were learnt from, in features of a small network. In the output folder a page of 64 for each kind.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from bert4x import plots, recipe
from bert4x.errors import ConfigError, nearest
from bert4x.plots.glyphs import LATIN, chinese_characters
from bert4x.training.fields import follow, poisson_noise
from bert4x.training.instances import ImageDistance

NOISES = {
    "score": lambda levels, size, rng: levels[:, None] * rng.normal(0, 1, (len(levels), size)),
    "poisson": poisson_noise,
}
NEAR, FAR = 0.03, 40.0  # the least and the most noise
LAYERS = keras.layers
JIT = keras.config.backend() == "jax"  # elsewhere compiling takes longer than it saves here


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {
        "script": "latin", "characters": 64, "font": "DejaVu Sans", "epochs": 1, "width": 2, "halts": 3,
    }  # fmt: skip

    output: Path = recipe.option(Path("runs/field_glyphs"), "folder of the pictures")
    script: Literal["chinese", "latin"] = recipe.option("chinese", "whose characters")
    characters: int | None = recipe.option(None, "of these, drawn at random; default: all", least=16)
    font: str | None = recipe.option(None, "name or file of a font; default: an installed one with Chinese characters")
    kinds: tuple[str, ...] = recipe.option(tuple(NOISES), "of noise")
    width: int = recipe.option(24, "channels of images of 14 x 14; those of 7 x 7 have twice as many", least=1)
    epochs: int = recipe.option(30, "times that each image is seen", least=1)
    halts: int = recipe.option(18, "on the way from noise to an image", least=2)
    batch_size: int = recipe.option(32, "images of an update", least=1)
    learning_rate: float = recipe.option(2e-3, "of Adam, at the beginning", above=0)


def network(width):
    """From images and the logarithms of how much noise they have to images."""
    image, level = keras.Input((28, 28, 1)), keras.Input((1,))
    known = LAYERS.Dense(64, activation="swish")(LAYERS.Dense(64, activation="swish")(level))

    def told(h):  # each channel is moved by how much noise there is
        return LAYERS.Activation("swish")(h + LAYERS.Reshape((1, 1, h.shape[-1]))(LAYERS.Dense(h.shape[-1])(known)))

    large = told(LAYERS.Conv2D(width, 4, 2, padding="same")(image))
    large = large + told(LAYERS.Conv2D(width, 3, padding="same")(large))
    small = told(LAYERS.Conv2D(2 * width, 4, 2, padding="same")(large))
    for _ in range(2):
        small = small + told(LAYERS.Conv2D(2 * width, 3, padding="same")(small))
    h = told(LAYERS.Conv2DTranspose(width, 4, 2, padding="same")(small))
    h = told(LAYERS.Conv2D(width, 3, padding="same")(LAYERS.Concatenate()([h, large])))
    return keras.Model([image, level], LAYERS.Conv2DTranspose(1, 4, 2, padding="same")(h))


class Cleaner:
    """Finds clean images: what a network says, and the noised image itself the more, the less noise it has. Scales are
    such that what the network reads, and what it learns, has about the spread of 1 (Karras et al. 2022).

    How much noise there is follows from the level for that of a normal distribution. A charge's differs much in length,
    and this is rather seen from the image.
    """

    def __init__(self, model, spread, seen):
        self.model, self.spread, self.seen = model, spread, seen

    def scales(self, noised, level):
        """Factors of the image, of what comes out of the network, of what goes in; and what it is told."""
        square = np.square(level)
        if self.seen:
            square = square + np.maximum(np.square(noised).mean((1, 2, 3), keepdims=True) - self.spread**2, 0)
        both, noise = self.spread**2 + square, np.sqrt(square)
        told = np.broadcast_to(np.log(noise) / 4, (len(noised), 1, 1, 1)).reshape(-1, 1)
        return self.spread**2 / both, self.spread * noise / np.sqrt(both), 1 / np.sqrt(both), told.astype("float32")

    def __call__(self, noised, level):
        past, out, into, told = self.scales(noised, level)
        found = self.model.predict([(into * noised).astype("float32"), told], batch_size=256, verbose=0)
        return past * noised + out * found

    def fit(self, clean, noise, args, rng):
        """Learns for some epochs, each with noise of its own. The target of conditional score matching times the square
        of the level, is what is clean less what is noised: so the clean image is as good."""
        updates = args.epochs * -(-len(clean) // args.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, updates)
        self.model.compile(keras.optimizers.Adam(rate), "mse", jit_compile=JIT)
        for _ in range(args.epochs):
            levels = np.exp(np.clip(rng.normal(-0.5, 1.5, len(clean)), np.log(NEAR), np.log(FAR)))
            noised = clean + noise(levels, clean[0].size, rng).reshape(clean.shape)
            past, out, into, told = self.scales(noised, levels[:, None, None, None])
            target = ((clean - past * noised) / out).astype("float32")
            self.model.fit([(into * noised).astype("float32"), told], target, batch_size=args.batch_size, verbose=0)


def main(args):
    for name in args.kinds:
        if name not in NOISES:
            raise ConfigError(f"no kind {name!r}; {nearest(name, NOISES)}")

    # 1. Images of characters, of which one in four is kept back; features in which they differ.
    rng = np.random.default_rng(args.seed)
    images = plots.glyphs(LATIN if args.script == "latin" else chinese_characters(), font=args.font)[..., None]
    images = images[rng.permutation(len(images))[: args.characters]]
    kept = len(images) // 4
    seen, distance = images[kept:], ImageDistance(images, kept, seed=args.seed)
    print(f"{len(seen)} images to learn from, {kept} kept back; the features tell {distance.right:.3f} of all apart")
    table = {"kept back": distance.floor, "pixel by pixel": distance.ceiling}

    # 2. For each kind of noise a network; from the most noise, images follow what it has learnt.
    levels = np.linspace(FAR ** (1 / 7), NEAR ** (1 / 7), args.halts) ** 7  # closer near the end
    for name in args.kinds:
        keras.utils.set_random_seed(args.seed)
        clean = 2 * seen - 1
        cleaner = Cleaner(network(args.width), float(np.sqrt(np.square(clean).mean())), seen=name == "poisson")
        cleaner.fit(clean, NOISES[name], args, rng)
        start = NOISES[name](np.full(kept, FAR), clean[0].size, rng).reshape(-1, *clean.shape[1:])
        found = follow(lambda x, level, cleaner=cleaner: (x - cleaner(x, level)) / level, start, levels)
        made = ((cleaner(found, NEAR) + 1) / 2).clip(0, 1).astype("float32")
        table[name] = distance(made)
        plots.page(made[:64, ..., 0].reshape(-1, min(16, kept), 28, 28), args.output / f"{name}.png")
    print("| images | distance |\n|---|---|")
    for name, found in table.items():
        print(f"| {name} | {found:.3f} |")
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
