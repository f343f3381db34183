"""Triples by dilated gated convolutions and a graph of probabilities: DGCNN, kg-2019 (Su, kexue.fm/archives/6671).

P(subject) P(predicate, object | subject): half pointers find the first and last characters of subjects; given one of
them, which is drawn in training, half pointers for each predicate find its objects. No BERT: twelve convolutions.

    python recipes/from_scratch/dgcnn_triples.py
    python recipes/from_scratch/dgcnn_triples.py --train train.jsonl.xz --valid dev.jsonl.xz --epochs 30

Files are JSON lines, as of `recipes/triple_extraction.py`, which does the same from a pretrained model. As in the
article: a subject is told by its ends and by how far off they are, a predicate has to be in the text as a whole, and
the thresholds are 0.5 at the beginning and 0.4 at the end.
"""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.layers import DilatedGatedConv
from bert4x.metrics import count_triples
from bert4x.tasks.readers import read_triples

TOY = Path(__file__).parents[1] / "data/toy_triples.jsonl"
START, END = 0.5, 0.4


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 1, "size": 16}

    train: Path | None = recipe.option(None, "file to train on; default: toy data")
    valid: Path | None = recipe.option(None, "file to score on; default: the last fifth of --train")
    output: Path = recipe.option(Path("runs/dgcnn_triples"), "folder of triples.json")
    epochs: int = recipe.option(20, "times that every text is seen", least=1)
    batch_size: int = recipe.option(32, "texts of a batch", least=1)
    size: int = recipe.option(96, "of embeddings and convolutions", least=2)
    max_length: int = recipe.option(128, "characters of a text; what is longer is read up to there", least=8)
    learning_rate: float = recipe.option(1e-3, "of Adam; a tenth in the last third", above=0)
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    seed: int = recipe.option(0, "of weights, order and drawn subjects", least=0)
    smoke: bool = recipe.option(False, "toy data: does it run?")


def spans_of(row, predicates, length):
    """For each subject of a text, as (first, last), the (predicate, first, last) of its objects."""
    found: dict[tuple, list] = {}
    for subject, predicate, thing in row["spo_list"]:
        s, o = row["text"].find(subject), row["text"].find(thing)
        if min(s, o) >= 0 and max(s + len(subject), o + len(thing)) <= length:
            objects = found.setdefault((s, s + len(subject) - 1), [])
            objects.append((predicates[predicate], o, o + len(thing) - 1))
    return found


def networks(characters, predicates, args):
    """From ids (B, T): states (B, T, D) and subjects (B, T, 2); from all that and a subject (B, 2): objects
    (B, T, P, 2). Returns: the two, and both in one, for training
    """
    places = keras.layers.Embedding(args.max_length, args.size, embeddings_initializer="zeros", name="places")
    here = np.arange(args.max_length, dtype="int32")[None]

    ids = keras.Input((args.max_length,), dtype="int32")
    real = ops.cast(ops.expand_dims(ids > 0, -1), "float32")
    h = keras.layers.Embedding(len(characters) + 2, args.size)(ids) + places(ops.zeros_like(ids) + here)
    for rate in (1, 2, 5, 1, 2, 5, 1, 2, 5, 1, 1, 1):
        h = DilatedGatedConv(rate)(keras.layers.Dropout(0.1)(h), mask=ids > 0)
    seen = keras.layers.Dense(args.size, activation="relu")(h)
    first = keras.Model(ids, [h, keras.layers.Dense(2, activation="sigmoid")(seen) * real])

    states, subject = keras.Input((args.max_length, args.size)), keras.Input((2,), dtype="int32")
    ends = keras.layers.Flatten()(ops.take_along_axis(states, ops.expand_dims(subject, -1), axis=1))
    apart = [places(ops.abs(subject[:, i : i + 1] - here)) for i in (0, 1)]
    x = [states, keras.layers.RepeatVector(args.max_length)(ends), *apart]
    x = keras.layers.Dense(args.size, activation="relu")(keras.layers.Concatenate()(x))
    x = DilatedGatedConv(1)(x, mask=ids > 0)
    whole = keras.layers.Dense(len(predicates), activation="sigmoid")(ops.max(x, axis=1))
    there = keras.layers.Dense(2 * len(predicates), activation="sigmoid")(x) * real
    there = keras.layers.Reshape((args.max_length, len(predicates), 2))(there)
    second = keras.Model([ids, states, subject], there * ops.reshape(whole, (-1, 1, len(predicates), 1)))
    return first, second, keras.Model([ids, subject], [first(ids)[1], second([ids, first(ids)[0], subject])])


def crossentropy(y, p):
    """Of all pointers of a text, summed. Shape: (B, T, ...), the same -> (B,)"""
    y, p = ops.cast(y, "float32"), ops.clip(p, 1e-7, 1 - 1e-7)
    return -ops.sum(ops.reshape(y * ops.log(p) + (1 - y) * ops.log(1 - p), (ops.shape(p)[0], -1)), axis=-1)


def targets(spans, predicates, length, rng):
    """A subject of each text, drawn, and what is to be found. Shape: (N, 2), (N, T, 2), (N, T, P, 2)"""
    chosen = np.zeros((len(spans), 2), "int32")
    subjects = np.zeros((len(spans), length, 2), "int8")
    objects = np.zeros((len(spans), length, len(predicates), 2), "int8")
    for i, found in enumerate(spans):
        for start, end in found:
            subjects[i, start, 0] = subjects[i, end, 1] = 1
        chosen[i] = list(found)[rng.integers(len(found))]
        for predicate, start, end in found[tuple(chosen[i])]:
            objects[i, start, predicate, 0] = objects[i, end, predicate, 1] = 1
    return chosen, subjects, objects


def pairs(pointers):
    """Each first character with the nearest last one. Shape: (T, 2)"""
    ends = np.flatnonzero(pointers[:, 1] > END)
    return [(s, ends[ends >= s][0]) for s in np.flatnonzero(pointers[:, 0] > START) if (ends >= s).any()]


def extract(texts, ids, first, second, names, batch_size):
    """The triples of texts: all their subjects first, then the objects of each of them together."""
    states, subjects = first.predict(ids, batch_size=batch_size, verbose=0)
    found = [(i, span) for i, pointers in enumerate(subjects) for span in pairs(pointers)]
    triples: list[set] = [set() for _ in texts]
    if not found:
        return triples
    where = np.array([i for i, _ in found])
    given = [ids[where], states[where], np.array([span for _, span in found], "int32")]
    for (i, (s, e)), objects in zip(found, second.predict(given, batch_size=batch_size, verbose=0), strict=True):
        for predicate, name in enumerate(names):
            triples[i] |= {(texts[i][s : e + 1], name, texts[i][a : b + 1]) for a, b in pairs(objects[:, predicate])}
    return triples


def main(args):
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    # 1. Texts with their triples; those without one that stands in what is read are not learnt from.
    rows = read_triples(args.train or TOY)
    valid = read_triples(args.valid) if args.valid else rows[len(rows) * 4 // 5 :]
    rows = rows if args.valid else rows[: len(rows) * 4 // 5]
    names = sorted({triple[1] for row in rows for triple in row["spo_list"]})
    predicates = {name: i for i, name in enumerate(names)}
    spans = [spans_of(row, predicates, args.max_length) for row in rows]
    kept = [(row, found) for row, found in zip(rows, spans, strict=True) if found]
    print(f"{len(kept)} of {len(rows)} texts to learn from, {len(valid)} to score on")
    counts = Counter(c for row, _ in kept for c in row["text"])
    characters = {c: i for i, (c, n) in enumerate(counts.most_common(), 2) if n > 1}

    def ids_of(rows):
        ids = np.zeros((len(rows), args.max_length), "int32")
        for place, row in zip(ids, rows, strict=True):
            text = row["text"][: args.max_length]
            place[: len(text)] = [characters.get(c, 1) for c in text]
        return ids

    # 2. Training: another subject of a text in every epoch.
    first, second, joint = networks(characters, predicates, args)
    print(f"{joint.count_params():,} parameters, {len(characters)} characters, {len(names)} predicates")
    ids, found = ids_of([row for row, _ in kept]), [one for _, one in kept]
    joint.compile(keras.optimizers.Adam(args.learning_rate, global_clipnorm=1.0), [crossentropy, crossentropy])
    for epoch in range(args.epochs):
        if epoch == args.epochs - args.epochs // 3:
            joint.optimizer.learning_rate = args.learning_rate / 10
        chosen, subjects, objects = targets(found, predicates, args.max_length, rng)
        past = joint.fit([ids, chosen], [subjects, objects], batch_size=args.batch_size, verbose=0)
        print(f"epoch {epoch + 1}: loss {past.history['loss'][-1]:.2f}", flush=True)

    # 3. Triples of texts that it has not seen.
    texts, began = [row["text"] for row in valid], time.process_time()
    triples = extract(texts, ids_of(valid), first, second, names, args.batch_size)
    spent = time.process_time() - began
    scores = count_triples(triples, [row["spo_list"] for row in valid])
    print(f"precision {scores.precision:.3f}, recall {scores.recall:.3f}, F1 {scores.f1:.3f}")
    print(f"{len(valid) / spent:.0f} texts a second of the processor")
    for text, some in list(zip(texts, triples, strict=True))[:5]:
        print(f"{text}\n    {sorted(some)}")
    args.output.mkdir(parents=True, exist_ok=True)
    recipe.write_json(args.output / "triples.json", [sorted(some) for some in triples])
    return scores


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
