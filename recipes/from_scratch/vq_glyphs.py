"""Characters written with a few hundred signs: VQ-VAE and FSQ (Su, kexue.fm/archives/6760, 9826).

An encoder makes 7 x 7 vectors of an image of a character. Each is replaced by the nearest of a codebook, which is
learnt (VQ), or by whole numbers of a few levels (FSQ), which need not be; a decoder makes the image again. So a
character is 49 numbers, each below `codes`, on which a language model could go on. No gradient passes a choice by
itself: it is handed on as it comes (straight through), or turned as the vector was (rotation trick).

    python recipes/from_scratch/vq_glyphs.py
    python recipes/from_scratch/vq_glyphs.py --levels 5 5 5 5 --width 32 --epochs 40
    python recipes/from_scratch/vq_glyphs.py --font DejaVuSans.ttf --script latin

The images are made here from an installed font with Chinese characters (package fonts-noto-cjk). For each quantiser:
the squared error of characters not seen, how many codes they use, and the perplexity of the codes, that is of how many
they would be if all were used alike. In the output folder: glyphs.png, a row for what is true and one for each.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from bert4x import plots, recipe
from bert4x.errors import ConfigError, nearest
from bert4x.layers import FiniteScalarQuantizer, VectorQuantizer
from bert4x.plots.glyphs import LATIN, chinese_characters

JIT = keras.config.backend() == "jax"  # elsewhere compiling takes longer than it saves here


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {
        "script": "latin", "characters": 64, "font": "DejaVu Sans", "epochs": 1, "width": 2, "levels": (3, 3, 3),
        "quantizers": ("rotated", "fsq"),
    }  # fmt: skip

    output: Path = recipe.option(Path("runs/vq_glyphs"), "folder of the pictures")
    script: Literal["chinese", "latin"] = recipe.option("chinese", "whose characters")
    characters: int | None = recipe.option(None, "of these, drawn at random; default: all", least=10)
    font: str | None = recipe.option(None, "name or file of a font; default: an installed one with Chinese characters")
    quantizers: tuple[str, ...] = recipe.option(("none", "straight", "rotated", "linear", "fsq"), "trained")
    levels: tuple[int, ...] = recipe.option((8, 8, 8), "of FSQ; their product is how many codes all have")
    width: int = recipe.option(16, "channels of the first layer", least=1)
    epochs: int = recipe.option(10, "times that each image is seen", least=1)
    batch_size: int = recipe.option(32, "images of an update", least=1)
    learning_rate: float = recipe.option(2e-3, "of Adam", above=0)


def autoencoder(quantizer, dimensions, width):
    """Models that make an image again, and that give the numbers of its codes; without a quantiser the first only."""
    layers = keras.layers
    image = keras.Input((28, 28, 1))
    h = layers.Conv2D(width, 4, 2, padding="same", activation="relu")(image)
    h = layers.Conv2D(2 * width, 4, 2, padding="same", activation="relu")(h)
    h = layers.Conv2D(2 * width, 3, padding="same", activation="relu")(h)
    h = layers.Conv2D(dimensions, 1)(h)
    if isinstance(quantizer, FiniteScalarQuantizer):  # so that all levels are in use from the beginning
        h = layers.BatchNormalization()(h)
    h, numbers = quantizer(h) if quantizer else (h, None)
    h = layers.Conv2D(2 * width, 3, padding="same", activation="relu")(h)
    h = layers.Conv2DTranspose(width, 4, 2, padding="same", activation="relu")(h)
    h = layers.Conv2DTranspose(1, 4, 2, padding="same", activation="sigmoid")(h)
    return keras.Model(image, h), keras.Model(image, numbers) if quantizer else None


def main(args):
    # 1. Images of characters, of which one in ten is kept back.
    characters = LATIN if args.script == "latin" else chinese_characters()
    images = plots.glyphs(characters, font=args.font)[..., None]
    order = np.random.default_rng(args.seed).permutation(len(images))[: args.characters]
    seen, unseen = images[order[len(order) // 10 :]], images[order[: len(order) // 10]]
    print(f"{len(seen)} images to learn from, {len(unseen)} to score; variance {unseen.var():.4f}")

    # 2. The same encoder and decoder around each quantiser, all with as many codes.
    codes = int(np.prod(args.levels))
    kinds = {
        "none": (None, 4 * args.width),
        "straight": (lambda: VectorQuantizer(codes), 4 * args.width),
        "rotated": (lambda: VectorQuantizer(codes, through="rotated"), 4 * args.width),
        "linear": (lambda: VectorQuantizer(codes, linear=True), 4 * args.width),
        "fsq": (lambda: FiniteScalarQuantizer(args.levels), len(args.levels)),
    }
    for name in args.quantizers:
        if name not in kinds:
            raise ConfigError(f"no quantizer {name!r}; {nearest(name, kinds)}")
    table, rows = {}, [unseen[:16, ..., 0]]
    print(f"| quantiser | squared error | codes used of {codes} | perplexity |\n|---|---|---|---|")
    for name in args.quantizers:
        quantizer, dimensions = kinds[name]
        keras.utils.set_random_seed(args.seed)
        model, numbers_of = autoencoder(quantizer and quantizer(), dimensions, args.width)
        model.compile(keras.optimizers.Adam(args.learning_rate), "mse", jit_compile=JIT)
        model.fit(seen, seen, batch_size=args.batch_size, epochs=args.epochs, verbose=0)

        # 3. Error and use of the codes, on characters that were not seen.
        again = ops.convert_to_numpy(model(unseen))
        used = perplexity = float("nan")
        if numbers_of:
            numbers = ops.convert_to_numpy(numbers_of(unseen)).ravel()
            shares = np.bincount(numbers, minlength=codes) / len(numbers)
            used = int((shares > 0).sum())
            perplexity = float(np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()))
        table[name] = float(np.square(again - unseen).mean()), used, perplexity
        rows.append(again[:16, ..., 0])
        print(f"| {name} | {table[name][0]:.5f} | {used} | {perplexity:.0f} |", flush=True)

    # 4. A page to look at.
    plots.page(np.stack(rows), args.output / "glyphs.png")
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
