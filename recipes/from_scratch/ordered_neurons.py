"""The tree of a sentence from a language model that was never shown one: ON-LSTM (Su, kexue.fm/archives/6621).

The neurons of an ON-LSTM are ordered. Each token lets go of some of them, from the low end; a token that lets go of
many begins something new. So a sentence is parted before the token that lets go of most, and so is each part again.

    python recipes/from_scratch/ordered_neurons.py
    python recipes/from_scratch/ordered_neurons.py --sentences 20000 --epochs 8 --levels 16 --seed 1

The language is made here, with trees that are known and then taken away: the small trees are words, as in S -> NP VP,
NP -> number measure noun. The score is unlabelled F1 of the spans of trees, beside trees that always branch to the
right and trees at random. In the output folder: trees.txt.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from bert4x import recipe
from bert4x.checkpoints.tensors import atomic_write
from bert4x.layers import OrderedNeurons
from bert4x.layers.ordered_neurons import tokens_of, tree_of, trees_f1, written
from bert4x.training.losses import masked_crossentropy

# Two classes of everything, that have to agree: number, measure and noun; subject and verb, over what is between; and
# the first and last word of a sentence, over all of it: there is something to remember for a short time, and for long.
WORDS = {
    "number": ("一二三四", "五六七八"), "measure": ("个位名", "本册部"), "adjective": ("大小老新白", "大小老新白"),
    "noun": ("人友兵客", "书报诗经"), "verb": ("说问看想", "在载论述"), "adverb": ("又常不也才", "又常不也才"),
    "first": ("昨今", "若如"), "last": ("了过", "则就"),
}  # fmt: skip
RULES = {
    "S": [(("first", "C1"), 1.0)],
    "C1": [(("C", "last"), 1.0)],
    "C": [(("NP", "VP"), 1.0)],
    "NP": [(("QP", "N1"), 0.6), (("adjective", "noun"), 0.2), (("noun",), 0.2)],
    "N1": [(("adjective", "noun"), 0.4), (("noun",), 0.6)],
    "QP": [(("number", "measure"), 1.0)],
    "VP": [(("adverb", "V1"), 0.5), (("verb", "OBJECT"), 0.5)],
    "V1": [(("verb", "OBJECT"), 1.0)],
}
NEW = ("S", "C", "OBJECT")  # where a class is drawn anew; elsewhere it is handed down


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"sentences": 64, "epochs": 1, "units": 16, "levels": 4}

    output: Path = recipe.option(Path("runs/ordered_neurons"), "folder of the trees")
    sentences: int = recipe.option(6000, "to learn from", least=1)
    epochs: int = recipe.option(5, "times that each is seen", least=1)
    units: int = recipe.option(128, "of each of two layers", least=2)
    levels: int = recipe.option(16, "of the neurons", least=2)
    learning_rate: float = recipe.option(3e-3, "of Adam", above=0)


def drawn(symbol, rng, kind=0):
    """A tree of the language."""
    kind = int(rng.integers(2)) if symbol in NEW else kind
    symbol = "NP" if symbol == "OBJECT" else symbol
    if symbol in WORDS:
        return str(rng.choice(list(WORDS[symbol][kind])))
    sides, shares = zip(*RULES[symbol], strict=True)
    parts = tuple(drawn(part, rng, kind) for part in sides[rng.choice(len(sides), p=shares)])
    return parts if len(parts) > 1 else parts[0]


def main(args):
    rng = np.random.default_rng(args.seed)
    keras.utils.set_random_seed(args.seed)

    # 1. Sentences of which the trees are known; the model sees only the tokens.
    trees = [drawn("S", rng) for _ in range(args.sentences + 300)]
    sentences = [tokens_of(tree) for tree in trees]
    vocabulary = {token: i for i, token in enumerate(sorted({t for s in sentences for t in s}), 2)}
    longest = max(map(len, sentences))
    ids = np.zeros((len(sentences), longest + 1), "int32")  # 0: nothing, 1: begins and ends a sentence
    for row, sentence in zip(ids, sentences, strict=True):
        row[0], row[1 : len(sentence) + 1] = 1, [vocabulary[token] for token in sentence]
    targets = np.where(ids == 0, -1, np.concatenate([ids[:, 1:], np.zeros_like(ids[:, :1])], 1))
    targets = np.where((targets == 0) & (ids > 0), 1, targets)

    # 2. A language model of two ON-LSTM layers. The second, above single words, tells the tree.
    inputs = keras.Input((longest + 1,), dtype="int32")
    h = keras.layers.Embedding(len(vocabulary) + 2, args.units)(inputs)
    h, _ = OrderedNeurons(args.units, args.levels, name="low")(h)
    h, released = OrderedNeurons(args.units, args.levels, name="high")(h)
    model = keras.Model(inputs, keras.layers.Dense(len(vocabulary) + 2)(h))
    model.compile(keras.optimizers.Adam(args.learning_rate, global_clipnorm=1.0), masked_crossentropy)
    model.fit(ids[:-300], targets[:-300], batch_size=64, epochs=args.epochs, verbose=0 if args.smoke else 2)
    print(f"loss of sentences not seen: {model.evaluate(ids[-300:], targets[-300:], verbose=0):.3f}")

    # 3. Trees of sentences that it has not seen.
    depths = keras.Model(inputs, released).predict(ids[-300:], verbose=0)[:, 1:]
    kept = [i for i in range(300) if len(sentences[i - 300]) > 2]
    true = [trees[i - 300] for i in kept]
    found = [tree_of(sentences[i - 300], depths[i, : len(sentences[i - 300])]) for i in kept]
    right = [tree_of(sentences[i - 300], -np.arange(len(sentences[i - 300]))) for i in kept]
    random = [tree_of(sentences[i - 300], rng.random(len(sentences[i - 300]))) for i in kept]
    scores = {name: trees_f1(some, true) for name, some in
              {"ON-LSTM": found, "right-branching": right, "random": random}.items()}  # fmt: skip
    print("unlabelled F1 of trees:", ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))

    # 4. Some of them to look at.
    lines = [f"{written(a)}\n    true: {written(b)}" for a, b in zip(found, true, strict=True)]
    with atomic_write(args.output / "trees.txt") as path:
        path.write_text("\n".join(lines) + "\n", "utf-8")
    print(*lines[:6], sep="\n")
    return scores


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
