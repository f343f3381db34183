"""Couplets from a space of vectors: a variational autoencoder of poems (Su, kexue.fm/archives/5332).

An encoder of gated convolutions makes of two lines of five characters a normal distribution of vectors; a decoder makes
of a draw all ten characters at once. The divergence from the standard normal distribution is part of the loss, so that
what the decoder makes of any normal vector is something like a couplet, and between two couplets there is a way.

    python recipes/from_scratch/poem_vae.py
    python recipes/from_scratch/poem_vae.py --data tang.tsv.xz song.tsv.xz --characters 4000 --epochs 30

Files have `title <tab> author <tab> poem` a line, also .xz. Shown: how many characters of couplets not seen come back;
20 couplets of random vectors; a walk between two. Where pypinyin is installed (pip install pypinyin), how many couplets
have the tones of regulated verse, beside those of the poems and of the same characters in any order: even and uneven
opposite at the second and fourth places of the lines, and even at the end. In the output folder: couplets.txt.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import DataError
from bert4x.layers import DilatedGatedConv, ReparametrizedNormal, normal_divergence
from bert4x.metrics.tones import couplet_tones
from bert4x.training.corpus import CorpusFile
from bert4x.training.losses import masked_crossentropy

COUPLET = re.compile("(?:^|(?<=[。？！]))([\u4e00-\u9fff]{5})，([\u4e00-\u9fff]{5})(?=[。？！])")
TOY = (
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。床前明月光，疑是地上霜。春眠不觉晓，处处闻啼鸟。空山不见人，但闻人语响。"
    "红豆生南国，春来发几枝。千山鸟飞绝，万径人踪灭。松下问童子，言师采药去。国破山河在，城春草木深。海内存知己，天涯若比邻。"
)
JIT = keras.config.backend() == "jax"  # elsewhere compiling takes longer than it saves here


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"size": 8, "latent": 4, "epochs": 2}

    data: tuple[Path, ...] = recipe.option((), "files of poems, also .xz; default: ten couplets")
    output: Path = recipe.option(Path("runs/poem_vae"), "folder of the couplets")
    characters: int = recipe.option(2000, "the most frequent; couplets with others are left out", least=10)
    couplets: int | None = recipe.option(None, "at most", least=10)
    size: int = recipe.option(64, "of hidden states", least=1)
    latent: int = recipe.option(64, "of vectors", least=1)
    epochs: int = recipe.option(10, "times that each couplet is seen", least=1)
    annealing: int = recipe.option(1000, "updates over which the divergence comes to count", least=0)
    divergence: float = recipe.option(1.0, "its weight in the end", least=0)
    learning_rate: float = recipe.option(2e-3, "of Adam", above=0)


def read(args):
    """Couplets of the most frequent characters, as ten characters each; each once, in any order."""
    texts = [] if args.data else [TOY]
    for file in args.data:
        texts += [line.split("\t")[-1] for line in CorpusFile(file).lines()]
    found = sorted({first + second for text in texts for first, second in COUPLET.findall(text)})
    known = {c for c, _ in Counter("".join(found)).most_common(args.characters)}
    found = [couplet for couplet in found if known.issuperset(couplet)]
    if len(found) < 10:
        raise DataError(f"{len(found)} couplets of five and five characters in {args.data}; expected 10 or more")
    order = np.random.default_rng(args.seed).permutation(len(found))[: args.couplets]
    return [found[i] for i in order], sorted(known)


def networks(characters, args):
    """The autoencoder, its first part, from couplets to distributions, and its second, from vectors to couplets."""
    layers = keras.layers
    ids, vector = keras.Input((10,), dtype="int32"), keras.Input((args.latent,))
    h = layers.Embedding(characters, args.size)(ids)
    for _ in range(2):
        h = DilatedGatedConv()(h)
    h = layers.GlobalAveragePooling1D()(h)
    mean, logs = layers.Dense(args.latent)(h), layers.Dense(args.latent)(h)
    decoder = keras.Sequential([
        keras.Input((args.latent,)), layers.Dense(10 * args.size), layers.Reshape((10, args.size)),
        DilatedGatedConv(), DilatedGatedConv(), layers.Dense(characters),
    ])  # fmt: skip
    weight = args.divergence / 10  # as the other loss is a mean of ten characters
    drawn = ReparametrizedNormal(weight, args.annealing, args.seed)(mean, logs)
    return keras.Model(ids, decoder(drawn)), keras.Model(ids, [mean, logs]), keras.Model(vector, decoder(vector))


def main(args):
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    # 1. Couplets, of which one in ten is kept back.
    couplets, characters = read(args)
    number = {c: i for i, c in enumerate(characters)}
    ids = np.array([[number[c] for c in couplet] for couplet in couplets], "int32")
    unseen, seen = np.split(ids, [len(ids) // 10])
    print(f"{len(seen):,} couplets to learn from, {len(unseen):,} to score, {len(characters):,} characters")

    # 2. Training: cross-entropy of the characters, and the divergence, which the layer adds.
    model, encoder, decoder = networks(len(characters), args)
    model.compile(keras.optimizers.Adam(args.learning_rate), masked_crossentropy, jit_compile=JIT)
    model.fit(seen, seen, batch_size=64, epochs=args.epochs, verbose=0 if args.smoke else 2)

    def numbers(vectors):
        return ops.convert_to_numpy(decoder(ops.convert_to_tensor(vectors.astype("float32")))).argmax(-1)

    def written(rows):
        return ["".join(characters[i] for i in row) for row in rows]

    # 3. What comes back of couplets that were not seen; what random vectors are; a walk between two couplets.
    means, logs = encoder(ops.convert_to_tensor(unseen[:2000]))
    told = float(ops.mean(normal_divergence(means, logs)))
    means = ops.convert_to_numpy(means)
    print(f"a vector tells {told:.1f} nats of a couplet that was not seen")
    back = float((numbers(means) == unseen[:2000]).mean())
    commonest = float((unseen == np.bincount(seen.ravel()).argmax()).mean())
    print(f"characters of couplets not seen that come back: {back:.3f} (always the commonest: {commonest:.3f})")
    drawn = written(numbers(rng.normal(0, 1, (1000, args.latent))))
    ends = ops.convert_to_numpy(encoder(ops.convert_to_tensor(seen[:2]))[0])
    walk = written(numbers(ends[0] + np.linspace(0, 1, 8)[:, None] * (ends[1] - ends[0])))
    lines = ["random:", *drawn[:20], "walk:", *written(seen[:1]), *walk, *written(seen[1:2])]
    text = "\n".join(f"{line[:5]}，{line[5:]}。" if len(line) == 10 else line for line in lines)
    with atomic_write(args.output / "couplets.txt") as path:
        path.write_text(text + "\n", "utf-8")
    print(text)

    # 4. Tones, beside those of poems and of chance.
    shuffled = ["".join(characters[i] for i in row) for row in rng.permutation(seen[:1000].ravel()).reshape(-1, 10)]
    table = {
        "poems": couplet_tones(written(seen[:1000])),
        "drawn": couplet_tones(drawn),
        "any order": couplet_tones(shuffled),
    }
    if table["poems"] is None:
        print("tones were not looked at: pip install pypinyin")
        return back, commonest, None
    print("| | opposite at 2 and 4 | even at the end |\n|---|---|---|")
    for name, (opposite, even) in table.items():
        print(f"| {name} | {opposite:.3f} | {even:.3f} |")
    return back, commonest, table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
