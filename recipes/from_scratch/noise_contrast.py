"""Word vectors without a sum over all words: noise contrast (Su, kexue.fm/archives/5617).

A word is foretold from the mean of the vectors of the words around it. A softmax needs the scores of all words. Noise
contrast asks instead which is the word of the text, and which are k words drawn from a known distribution: at its best
the scores are logarithms of probabilities, whose sum is one though nobody made it so. A sampled softmax chooses among
the word and the k drawn ones.

    python recipes/from_scratch/noise_contrast.py
    python recipes/from_scratch/noise_contrast.py --data reviews.txt.xz --words 20000 --dimensions 100 --epochs 5

Words are jieba's (pip install jieba). For each: the log-likelihood of words not seen, made to sum to one; the mean and
the spread of the logarithm of the sum before that; the processor time of training. In the output folder:
neighbours.txt, the nearest words of twenty.
"""

import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.checkpoints.tensors import atomic_write
from bert4x.training.corpus import CorpusFile
from bert4x.training.smooth import nce_loss, sampled_softmax_loss
from bert4x.training.words import contexts, cut_words

TOY = Path(__file__).parents[1] / "data/toy_text.txt"
JIT = keras.config.backend() == "jax"  # elsewhere compiling takes longer than it saves here


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"words": 100, "dimensions": 8, "epochs": 1, "noise": 4, "lines": 100}

    data: Path = recipe.option(TOY, "file of text, also .xz")
    lines: int = recipe.option(10000, "of it that are read, at most", least=2)
    output: Path = recipe.option(Path("runs/noise_contrast"), "folder of the neighbours")
    words: int = recipe.option(3000, "the most frequent; others are one", least=2)
    window: int = recipe.option(3, "words on each side", least=1)
    dimensions: int = recipe.option(32, "of a vector", least=1)
    noise: int = recipe.option(16, "words drawn for each", least=1)
    epochs: int = recipe.option(3, "times that each word is seen", least=1)
    learning_rate: float = recipe.option(3e-3, "of Adam", above=0)


class WordScores(keras.layers.Layer):
    """Scores of some words, or of all, in a context; they begin as logarithms of how frequent each is.

    Shape: (B, 2 window)[, (B, C)] -> (B, C), or (B, words)
    """

    def __init__(self, frequencies, dimensions):
        super().__init__()
        shape = len(frequencies), dimensions
        self.contexts = self.add_weight(shape, keras.initializers.RandomNormal(stddev=0.1), name="contexts")
        self.targets = self.add_weight(shape, "zeros", name="targets")
        self.bias = self.add_weight((shape[0],), "zeros", name="bias")
        self.bias.assign(np.log(frequencies))

    def call(self, context, candidates=None):
        h = ops.mean(ops.take(self.contexts, context, axis=0), axis=1)
        if candidates is None:
            return ops.matmul(h, ops.transpose(self.targets)) + self.bias
        vectors = ops.take(self.targets, candidates, axis=0)
        return ops.sum(h[:, None] * vectors, axis=-1) + ops.take(self.bias, candidates, axis=0)


def main(args):
    # 1. Words and their contexts; the last tenth of the text is kept back.
    texts = [cut_words(line) for line in islice(CorpusFile(args.data).lines(), args.lines)]
    common = Counter(word for text in texts for word in text).most_common(args.words - 1)
    words = ["(other)", *(word for word, _ in common)]
    around, centre = contexts(texts, words, args.window)
    last = len(centre) - len(centre) // 10
    frequencies = np.bincount(centre[:last], minlength=len(words)) + 0.5
    frequencies /= frequencies.sum()
    logs = np.log(frequencies).astype("float32")
    print(f"{last:,} words to learn from, {len(centre) - last:,} to score, {len(words):,} different ones")

    # 2. Three losses. What they get as labels are the logarithms of how likely each candidate was drawn.
    def contrast(loss):
        return lambda noise, scores: loss(scores[:, 0], scores[:, 1:], noise[:, 0], noise[:, 1:])

    softmax = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = {"softmax": softmax, "noise contrast": contrast(nce_loss), "sampled": contrast(sampled_softmax_loss)}
    frequent = logs[centre[last:]].mean()
    table = {"frequency": (float(frequent), 0.0, 0.0, 0.0)}
    print("| loss | log-likelihood | mean of log sum | spread | seconds |\n|---|---|---|---|---|")
    print(f"| none: how frequent a word is | {frequent:.3f} | 0 | 0 | 0 |")
    for name, loss in losses.items():
        keras.utils.set_random_seed(args.seed)
        rng, layer = np.random.default_rng(args.seed), WordScores(frequencies, args.dimensions)
        context, candidates = keras.Input((2 * args.window,), dtype="int32"), keras.Input((None,), dtype="int32")
        whole = keras.Model(context, layer(context))
        model = whole if name == "softmax" else keras.Model([context, candidates], layer(context, candidates))
        model.compile(keras.optimizers.Adam(args.learning_rate), loss, jit_compile=JIT)
        began = time.process_time()
        for _ in range(args.epochs):  # new noise each time
            x, y = around[:last], centre[:last]
            if name != "softmax":
                drawn = rng.choice(len(words), (last, args.noise), p=frequencies)
                some = np.concatenate([y[:, None], drawn], axis=1).astype("int32")
                x, y = [x, some], logs[some]
            model.fit(x, y, batch_size=256, verbose=0)
        seconds = time.process_time() - began

        # 3. What the model says of all words, where it has not seen which came.
        right, sums = [], []
        for i in range(last, len(centre), 1000):
            scores = ops.convert_to_numpy(layer(ops.convert_to_tensor(around[i : i + 1000])))
            sums.append(np.logaddexp.reduce(scores, axis=-1))
            right.append(np.take_along_axis(scores, centre[i : i + 1000, None], axis=-1)[:, 0])
        right, sums = np.concatenate(right), np.concatenate(sums)
        table[name] = float((right - sums).mean()), float(sums.mean()), float(sums.std()), seconds
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in table[name]) + " |", flush=True)
        if name == "noise contrast":
            vectors = ops.convert_to_numpy(layer.targets)

    # 4. The nearest words of the twenty most frequent that have two characters.
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    asked = [i for i, word in enumerate(words) if len(word) == 2 and word.isalpha()][:20]
    near = {words[i]: [words[j] for j in np.argsort(-(unit @ unit[i])) if j not in (0, i)][:5] for i in asked}
    with atomic_write(args.output / "neighbours.txt") as path:
        path.write_text("".join(f"{word}: {' '.join(others)}\n" for word, others in near.items()), "utf-8")
    print(*(f"{word}: {' '.join(others)}" for word, others in near.items()), sep="\n")
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
