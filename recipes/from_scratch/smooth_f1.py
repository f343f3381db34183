"""F1 itself as the loss, where there is one yes to twenty no: smooth F1 (Su, kexue.fm/archives/6620).

F1 of choices has no gradient; with probabilities in place of choices it has: 2 sum(y p) / (sum(y) + sum(p)). It begins
well only near its end, so that cross-entropy goes first. Beside it: cross-entropy to the end, of as many epochs.

    python recipes/from_scratch/smooth_f1.py
    python recipes/from_scratch/smooth_f1.py --train train.tsv.xz --valid valid.tsv.xz --seeds 0 1 2

A file is TSV, `text <tab> label`; of the rarest label only one for --ratio others is kept, which is "yes". The network
is small: embeddings of characters, two gated convolutions, attention as a pool.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from bert4x import recipe
from bert4x.layers import AttentionPooling, DilatedGatedConv
from bert4x.tasks.readers import read_labelled
from bert4x.tokenizers.symbols import Symbols
from bert4x.training.smooth import smooth_f1

TOY = Path(__file__).parents[1] / "data/toy_sentiment.tsv"


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 1, "after": 1, "ratio": 3, "seeds": (0,)}

    train: Path | None = recipe.option(None, "file to train on; default: toy data")
    valid: Path | None = recipe.option(None, "file to score on; default: a fifth of --train")
    output: Path = recipe.option(Path("runs/smooth_f1"), "folder of scores.json")
    ratio: int = recipe.option(20, "texts of other labels for one of the rarest", least=1)
    epochs: int = recipe.option(4, "of cross-entropy, for both", least=1)
    after: int = recipe.option(4, "epochs after these, of cross-entropy or of smooth F1", least=1)
    batch_size: int = recipe.option(128, "texts of a batch: F1 is of a batch, so not small", least=2)
    max_length: int = recipe.option(96, "characters that are read; a text that has more is cut there", least=8)
    size: int = recipe.option(64, "of embeddings and convolutions", least=2)
    learning_rate: float = recipe.option(1e-3, "of Adam", above=0)
    seeds: tuple[int, ...] = recipe.option((0, 1, 2), "of weights and order, one after the other")
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    smoke: bool = recipe.option(False, "toy data: does it run?")


def imbalanced(rows, yes, ratio, rng):
    """All rows of other labels, and of `yes` one for `ratio` of them."""
    those = [row for row in rows if row[-1] == yes]
    others = [row for row in rows if row[-1] != yes]
    kept = [*others, *(those[i] for i in rng.permutation(len(those))[: max(len(others) // ratio, 1)])]
    return [kept[i] for i in rng.permutation(len(kept))]


def network(characters, args):
    inputs = keras.Input((args.max_length,), dtype="int32")
    h = keras.layers.Embedding(len(characters), args.size, mask_zero=True)(inputs)
    for rate in (1, 2):
        h = DilatedGatedConv(rate)(h)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(AttentionPooling()(h)))


def f1(y, p):
    """Of yes, where p is above a half."""
    found = p > 0.5
    return 2 * (found * y).sum() / max(found.sum() + y.sum(), 1)


def main(args):
    # 1. Texts, with one yes for many no.
    rows = read_labelled(args.train or TOY)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(rows))
    valid = read_labelled(args.valid) if args.valid else [rows[i] for i in order[: len(rows) // 5]]
    rows = rows if args.valid else [rows[i] for i in order[len(rows) // 5 :]]
    yes = min(Counter(row[-1] for row in rows).items(), key=lambda pair: pair[::-1])[0]
    rows, valid = (imbalanced(part, yes, args.ratio, rng) for part in (rows, valid))
    characters = Symbols((text for text, _ in rows), least=2)

    def arrays(rows):
        ids = characters.rows([text for text, _ in rows], args.max_length)
        return ids, np.array([[label == yes] for _, label in rows], "float32")

    (x, y), (valid_x, valid_y) = arrays(rows), arrays(valid)
    print(f"{len(x)} texts, {int(y.sum())} of them {yes}; to score on {len(valid_x)}, {int(valid_y.sum())}")

    # 2. Both begin with the same epochs of cross-entropy.
    scores: dict[str, list[float]] = {"cross-entropy": [], "smooth F1": []}
    for seed in args.seeds:
        keras.utils.set_random_seed(seed)
        model = network(characters, args)
        begun = None
        for name, loss in (("cross-entropy", "binary_crossentropy"), ("smooth F1", smooth_f1)):
            if begun is None:
                model.compile(keras.optimizers.Adam(args.learning_rate), "binary_crossentropy")
                model.fit(x, y, batch_size=args.batch_size, epochs=args.epochs, verbose=0)
                begun = model.get_weights()
            model.set_weights(begun)
            model.compile(keras.optimizers.Adam(args.learning_rate), loss)
            model.fit(x, y, batch_size=args.batch_size, epochs=args.after, verbose=0)
            scores[name].append(float(f1(valid_y, model.predict(valid_x, verbose=0))))
            print(f"seed {seed}, {name}: F1 {scores[name][-1]:.3f}", flush=True)

    # 3. Over all seeds.
    for name, found in scores.items():
        print(f"{name}: mean F1 {np.mean(found):.3f}, from {min(found):.3f} to {max(found):.3f}")
    args.output.mkdir(parents=True, exist_ok=True)
    recipe.write_json(args.output / "scores.json", scores)
    return scores


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
