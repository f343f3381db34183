"""Characters that nobody wrote, by two networks that train each other: DCGAN to SELF-MOD (Su, kexue.fm/archives/6549).

One network makes images of random vectors, the other tells them from true ones, and each learns from the other. What
changed over the years is mostly how they are built: convolutions with batch normalisation (DCGAN); a judge that
stretches nothing (spectral normalisation), with a margin in its loss; residual blocks; batch normalisation whose scale
and shift come from the random vector, which so acts on every layer, not on the first only (SELF-MOD).

    python recipes/from_scratch/gan_glyphs.py
    python recipes/from_scratch/gan_glyphs.py --kinds spectral selfmod --width 32 --epochs 100

The images are made here from an installed font with Chinese characters (package fonts-noto-cjk). For each kind, by
epoch: the Frechet distance of what it makes to the characters it learnt from, in features of a small network that tells
all characters apart; beside it that of characters kept back, and of images whose pixels are drawn one by one. In the
output folder a page for each kind: true ones, then the same random vectors by epoch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from bert4x import plots, recipe
from bert4x.errors import ConfigError, nearest
from bert4x.layers import SelfModulation, SpectralNorm
from bert4x.plots.glyphs import LATIN, chinese_characters
from bert4x.training.instances import ImageDistance
from bert4x.training.rivals import Rivals

KINDS = {  # the loss; spectral normalisation, residual blocks, SELF-MOD?
    "dcgan": ("cross_entropy", False, False, False),
    "spectral": ("hinge", True, False, False),
    "residual": ("hinge", True, True, False),
    "selfmod": ("hinge", True, True, True),
}
LAYERS = keras.layers


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {
        "script": "latin", "characters": 64, "font": "DejaVu Sans", "epochs": 2, "width": 2, "pages": 2, "latent": 4,
        "kinds": ("dcgan", "selfmod"),
    }  # fmt: skip

    output: Path = recipe.option(Path("runs/gan_glyphs"), "folder of the pictures")
    script: Literal["chinese", "latin"] = recipe.option("chinese", "whose characters")
    characters: int | None = recipe.option(None, "of these, drawn at random; default: all", least=16)
    font: str | None = recipe.option(None, "name or file of a font; default: an installed one with Chinese characters")
    kinds: tuple[str, ...] = recipe.option(tuple(KINDS), "trained")
    width: int = recipe.option(16, "channels of the widest images; half as wide ones have twice as many", least=1)
    latent: int = recipe.option(64, "numbers of a random vector", least=1)
    epochs: int = recipe.option(24, "times that each image is seen", least=1)
    pages: int = recipe.option(6, "times that images are made on the way", least=1)
    batch_size: int = recipe.option(32, "images of an update", least=2)
    learning_rate: float = recipe.option(5e-4, "of both networks", above=0)


def generator(width, latent, residual, modulated):
    """From random vectors to images of -1 to 1."""

    def normal(h):
        h = SelfModulation()(h, vector) if modulated else LAYERS.BatchNormalization(momentum=0.9)(h)
        return LAYERS.ReLU()(h)

    def convolution(size):
        return LAYERS.Conv2D(size, 3, padding="same", kernel_initializer="orthogonal")

    vector = keras.Input((latent,))
    h = LAYERS.Reshape((7, 7, 2 * width))(LAYERS.Dense(98 * width)(vector))
    if residual:
        past = LAYERS.UpSampling2D()(LAYERS.Conv2D(width, 1)(h))
        h = convolution(width)(LAYERS.UpSampling2D()(normal(h)))
        h = past + convolution(width)(normal(h))
    else:
        h = LAYERS.Conv2DTranspose(width, 4, 2, padding="same")(normal(h))
    return keras.Model(vector, LAYERS.Conv2DTranspose(1, 4, 2, padding="same", activation="tanh")(normal(h)))


def discriminator(width, residual, spectral):
    """From images to scores."""
    bound = SpectralNorm if spectral else (lambda layer: layer)
    image = keras.Input((28, 28, 1))
    h = bound(LAYERS.Conv2D(width, 4, 2, padding="same"))(image)
    if residual:
        past = LAYERS.AveragePooling2D(2)(bound(LAYERS.Conv2D(2 * width, 1))(h))
        for size in (width, 2 * width):
            convolution = LAYERS.Conv2D(size, 3, padding="same", kernel_initializer="orthogonal")
            h = bound(convolution)(LAYERS.ReLU()(h))
        h = LAYERS.ReLU()(past + LAYERS.AveragePooling2D(2)(h))
    else:
        h = bound(LAYERS.Conv2D(2 * width, 4, 2, padding="same"))(LAYERS.LeakyReLU(0.2)(h))
        h = LAYERS.LeakyReLU(0.2)(h if spectral else LAYERS.BatchNormalization(momentum=0.9)(h))
    return keras.Model(image, bound(LAYERS.Dense(1))(LAYERS.Flatten()(h)))


def main(args):
    for name in args.kinds:
        if name not in KINDS:
            raise ConfigError(f"no kind {name!r}; {nearest(name, KINDS)}")

    # 1. Images of characters, of which one in four is kept back; features in which they differ.
    rng = np.random.default_rng(args.seed)
    images = plots.glyphs(LATIN if args.script == "latin" else chinese_characters(), font=args.font)[..., None]
    images = images[rng.permutation(len(images))[: args.characters]]
    kept = len(images) // 4
    seen, distance = images[kept:], ImageDistance(images, kept, seed=args.seed)
    print(f"{len(seen)} images to learn from, {kept} kept back; the features tell {distance.right:.3f} of all apart")
    ends = np.unique(np.linspace(0, args.epochs, args.pages + 1).astype(int)[1:])
    print("| images |", " | ".join(f"epoch {epoch}" for epoch in ends), "|\n" + "|---" * (len(ends) + 1) + "|")
    print(f"| kept back | {distance.floor:.3f} |\n| pixel by pixel | {distance.ceiling:.3f} |", flush=True)

    # 2. Each kind is trained; the same vectors become images every few epochs.
    vectors = rng.normal(0, 1, (kept, args.latent)).astype("float32")
    table = {"kept back": [distance.floor], "pixel by pixel": [distance.ceiling]}
    for name in args.kinds:
        loss, spectral, residual, modulated = KINDS[name]
        keras.utils.set_random_seed(args.seed)
        networks = (
            generator(args.width, args.latent, residual, modulated),
            discriminator(args.width, residual, spectral),
        )
        rivals = Rivals(*networks, loss, args.learning_rate, args.seed)
        rows, table[name] = [seen[:16, ..., 0]], []
        for epoch in range(1, args.epochs + 1):
            order = rng.permutation(len(seen))
            for at in range(0, len(seen) - args.batch_size + 1, args.batch_size):
                rivals.update(2 * seen[order[at : at + args.batch_size]] - 1)
            if epoch in ends:
                made = (rivals.make(vectors) + 1) / 2
                table[name].append(distance(made))
                rows.append(made[:16, ..., 0])
                plots.page(np.stack(rows), args.output / f"{name}.png")
        print(f"| {name} |", " | ".join(f"{found:.3f}" for found in table[name]), "|", flush=True)
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
