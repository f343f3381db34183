"""Triples by dilated gated convolutions and a graph of probabilities: DGCNN, kg-2019 (Su, kexue.fm/archives/6671).

P(subject) P(predicate, object | subject): half pointers find the first and last characters of subjects; given one of
them, which is drawn in training, half pointers for each predicate find its objects. No BERT: twelve convolutions.

    python recipes/from_scratch/dgcnn_triples.py
    python recipes/from_scratch/dgcnn_triples.py --train train.jsonl.xz --valid dev.jsonl.xz --beside runs/ske

Files are JSON lines, as of `recipes/triple_extraction.py`, which does the same from a pretrained model; --beside names
a run of it, whose score and speed on the same texts are shown too. As in the article: a subject is told by its ends and
by how far off they are, a predicate has to be in the text as a whole, and the thresholds are 0.5 for the beginning and
0.4 for the end of a name.
"""

import time
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

import bert4x
from bert4x import recipe
from bert4x.layers import DilatedGatedConv, SpanStates
from bert4x.metrics import count_triples
from bert4x.tasks.readers import read_triples
from bert4x.tokenizers.symbols import Symbols
from bert4x.training.batches import Batches, padded_length
from bert4x.training.half_pointers import labels_of, pointed, spans_of

TOY = Path(__file__).parents[1] / "data/toy_triples.jsonl"
THRESHOLDS = 0.5, 0.4


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 1, "size": 16}

    train: Path | None = recipe.option(None, "file to train on; default: toy data")
    valid: Path | None = recipe.option(None, "file to score on; default: the last fifth of --train")
    beside: Path | None = recipe.option(None, "a run of recipes/triple_extraction.py to compare with")
    output: Path = recipe.option(Path("runs/dgcnn_triples"), "folder of triples.json")
    epochs: int = recipe.option(20, "times that every text is seen", least=1)
    batch_size: int = recipe.option(16, "texts of a batch", least=1)
    size: int = recipe.option(96, "of embeddings and convolutions", least=2)
    max_length: int = recipe.option(128, "characters of a text; what is longer is read up to there", least=8)
    learning_rate: float = recipe.option(1e-3, "of Adam; a tenth in the last third", above=0)


def networks(characters, predicates, size, length):
    """From ids (B, T): states (B, T, D) and subjects (B, T, 2); from ids, states and a subject (B, 2): objects
    (B, T, P, 2). Returns: the two, and both in one, for training
    """
    layers, rare = keras.layers, keras.initializers.Constant(-3.0)  # few places are a start or an end
    places = layers.Embedding(length, size, embeddings_initializer="zeros", name="places")
    ids, subject = keras.Input((None,), dtype="int32"), keras.Input((2,), dtype="int32")
    states = keras.Input((None, size))
    real, here = ops.cast(ids > 0, "float32")[..., None], ops.cumsum(ops.ones_like(ids), axis=1) - 1

    h = layers.Embedding(characters, size)(ids) + places(here)
    for rate in (1, 2, 5, 1, 2, 5, 1, 2, 5, 1, 1, 1):
        h = DilatedGatedConv(rate)(layers.Dropout(0.1)(h), mask=ids > 0)
    h = h * real  # zero at padding it is already; this leaves Keras' own mask behind, which nothing here asks for
    seen = layers.Dense(size, activation="relu")(h)
    subjects = layers.Dense(2, activation="sigmoid", bias_initializer=rare)(seen) * real
    first = keras.Model(ids, [h, subjects])

    apart = [places(ops.abs(subject[:, i : i + 1] - here)) for i in (0, 1)]
    x = layers.Dense(size)(layers.Concatenate()([states, *apart]))
    x = ops.relu(x + layers.Dense(size)(SpanStates()(states, subject))[:, None])
    x = DilatedGatedConv(1)(x, mask=ids > 0)
    whole = layers.Dense(predicates, activation="sigmoid")(ops.max(x, axis=1))
    there = layers.Dense(2 * predicates, activation="sigmoid", bias_initializer=rare)(x) * real
    objects = layers.Reshape((-1, predicates, 2))(there) * whole[:, None, :, None]
    second = keras.Model([ids, states, subject], objects)
    return first, second, keras.Model([ids, subject], [subjects, second([ids, h, subject])])


def crossentropy(y, p):
    """Of all pointers of a text, summed. Shape: (B, T, ...), the same -> (B,)"""
    y, p = ops.cast(y, "float32"), ops.clip(p, 1e-7, 1 - 1e-7)
    return -ops.sum(y * ops.log(p) + (1 - y) * ops.log(1 - p), axis=tuple(range(1, len(p.shape))))


def extract(texts, first, second, characters, names, args):
    """The triples of texts, those of a length together: all their subjects first, then the objects of each of them."""
    triples: list[set] = [set() for _ in texts]
    order = np.argsort([len(text) for text in texts], kind="stable")
    for some in np.split(order, range(args.batch_size, len(order), args.batch_size)):
        read = [texts[i][: args.max_length] for i in some]
        ids = characters.rows(read, padded_length(len(read[-1]), args.max_length))
        states, subjects = first.predict_on_batch(ids)
        found = [(i, span) for i, pointers in enumerate(subjects) for span in pointed(pointers, *THRESHOLDS)]
        if not found:
            continue
        where, spans = np.array([i for i, _ in found]), np.array([span for _, span in found], "int32")
        objects = second.predict_on_batch([ids[where], states[where], spans])
        for i, (s, e), scores in zip(where, spans, objects, strict=True):
            for p in np.flatnonzero((scores[..., 0] > THRESHOLDS[0]).any(0)):
                things = pointed(scores[:, p], *THRESHOLDS)
                triples[some[i]] |= {(read[i][s : e + 1], names[p], read[i][a : b + 1]) for a, b in things}
    return triples


def scored(what, find, texts, gold):
    """Prints the scores of the triples that are found, and how fast; what is compiled at first calls is not counted."""
    find(texts)
    began = time.process_time()
    triples = find(texts)
    spent = time.process_time() - began
    scores = count_triples(triples, gold)
    print(f"{what}: precision {scores.precision:.3f}, recall {scores.recall:.3f}, F1 {scores.f1:.3f}; ", end="")
    print(f"{len(texts) / spent:.0f} texts a second of the processor", flush=True)
    return scores, triples


def main(args):
    keras.utils.set_random_seed(args.seed)

    # 1. Texts with their triples; those without one that stands in what is read are not learnt from.
    rows = read_triples(args.train or TOY)
    valid = read_triples(args.valid) if args.valid else rows[len(rows) * 4 // 5 :]
    rows = rows if args.valid else rows[: len(rows) * 4 // 5]
    names = sorted({triple[1] for row in rows for triple in row["spo_list"]})
    predicates = {name: i for i, name in enumerate(names)}
    kept = [(row["text"][: args.max_length], spans_of(row, predicates, args.max_length)) for row in rows]
    kept = [(text, spans) for text, spans in kept if spans]
    print(f"{len(kept)} of {len(rows)} texts to learn from, {len(valid)} to score on")
    characters = Symbols((text for text, _ in kept), least=2)

    # 2. Training: another subject of a text in every epoch; in the end, the moving average of the weights is kept.
    first, second, joint = networks(len(characters), len(names), args.size, args.max_length)
    print(f"{joint.count_params():,} parameters, {len(characters)} characters, {len(names)} predicates")
    adam = keras.optimizers.Adam(args.learning_rate, global_clipnorm=1.0, use_ema=True, ema_momentum=0.99)
    joint.compile(adam, [crossentropy, crossentropy])
    batches = Batches([len(text) for text, _ in kept], args.batch_size, args.seed, args.max_length)
    for epoch in range(args.epochs):
        if epoch == args.epochs - args.epochs // 3:
            adam.learning_rate = args.learning_rate / 10
        losses = []
        for number, (some, length) in enumerate(batches.epoch(epoch)):
            texts, spans = zip(*(kept[i] for i in some), strict=True)
            chosen, *labels = labels_of(spans, len(names), length, batches.draw(epoch, number))
            losses.append(joint.train_on_batch([characters.rows(texts, length), chosen], labels)[0])
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.2f}", flush=True)
    adam.finalize_variable_values(joint.trainable_variables)

    # 3. Triples of texts that it has not seen.
    texts, gold = [row["text"] for row in valid], [row["spo_list"] for row in valid]
    ours = first, second, characters, names, args
    scores, triples = scored("convolutions", lambda texts: extract(texts, *ours), texts, gold)
    if args.beside:
        other = bert4x.pipeline("triple-extraction", args.beside)
        words = attrgetter("subject", "predicate", "object")
        scored(args.beside, lambda texts: [[words(t) for t in found] for found in other(texts)], texts, gold)
    for text, some in list(zip(texts, triples, strict=True))[:5]:
        print(f"{text}\n    {sorted(some)}")
    recipe.write_json(args.output / "triples.json", [sorted(some) for some in triples])
    return scores


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
