"""Gradients in 16 bits beside those in float32, of every recipe's task: whatever one layer does badly shows here, while
the scores of a training hide it in the noise of seeds.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import bert4x
from bert4x.tasks import readers
from bert4x.tasks.gplinker import GPLinker
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification
from bert4x.tasks.triple_extraction import TripleExtraction
from bert4x.training.compiled import value_and_gradients

DATA = Path(__file__).parents[1] / "recipes/data"
SCALE = 128.0  # of the loss, so that no gradient underflows in float16
# Relative error of a gradient. That of a number is 0.0005 and 0.004, and a hundred operations follow one another. The
# most in bfloat16, at the biases of queries, where much cancels out, depends on the processor: below 5% on some,
# and 6.1% on an EPYC with AVX2 alone, where the code of other days has the same numbers.
MOST = {"mixed_float16": 0.006, "mixed_bfloat16": 0.08}


def entities(method):
    def task(model, rows):
        labels = sorted({entity.label for row in rows for entity in row["entities"]})
        return TokenClassification(model, labels, method=method, dropout=0.0)

    return task, readers.read_bio, "toy_entities.bio"


def triples(cls):
    def task(model, rows):
        return cls(model, sorted({predicate for row in rows for _, predicate, _ in row["spo_list"]}))

    return task, readers.read_triples, "toy_triples.jsonl"


TASKS = {
    "text-classification": (
        lambda model, rows: TextClassification(model, sorted({label for _, label in rows}), dropout=0.0),
        readers.read_tsv,
        "toy_sentiment.tsv",
    ),
    "softmax": entities("softmax"),
    "crf": entities("crf"),
    "efficient-global-pointer": entities("efficient-global-pointer"),
    "half pointers": triples(TripleExtraction),
    "gplinker": triples(GPLinker),
    "seq2seq": (lambda model, rows: Seq2Seq(model), readers.read_pairs, "toy_titles.tsv"),
    "reading": (lambda model, rows: ReadingComprehension(model, dropout=0.0), readers.read_squad, "toy_reading.json"),
}


def loss_and_gradients(name, dtype):
    """Of the embedded model with a head on it, without dropout, on some toy data."""
    make, read, file = TASKS[name]
    rows = read(DATA / file)[:24]
    options = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
    model = bert4x.load(application="unilm" if name == "seq2seq" else None, dtype=dtype, **options)
    keras.utils.set_random_seed(1)
    task = make(model, rows)
    examples = task.prepare(rows)[:24]
    inputs, targets = task.batch(examples, max(e.length for e in examples), np.random.default_rng(0))

    def loss():
        value = task.loss(task.model(list(inputs), training=True), targets)
        return value * SCALE, value

    variables = task.model.trainable_variables
    (_, value), found = value_and_gradients(loss, variables, task.model.variables)
    arrays = [ops.convert_to_numpy(ops.cast(gradient, "float32")) / SCALE for gradient in found]
    return float(value), {v.path: array for v, array in zip(variables, arrays, strict=True)}


@pytest.mark.parametrize("name", TASKS)
def test_gradients_are_those_of_float32(name):
    loss, exact = loss_and_gradients(name, "float32")
    # Others, as those of the keys' biases, which are 0, are nothing but rounding.
    large = 1e-3 * np.sqrt(sum(np.square(gradient).sum() for gradient in exact.values()))
    for dtype, most in MOST.items():
        value, found = loss_and_gradients(name, dtype)
        assert value == pytest.approx(loss, rel=most / 10)
        compared = [path for path in exact if np.linalg.norm(exact[path]) > large]
        assert len(compared) > 40
        errors = {path: np.linalg.norm(found[path] - exact[path]) / np.linalg.norm(exact[path]) for path in compared}
        worst = max(errors, key=errors.get)
        assert errors[worst] < most, f"{dtype}: the gradient of {worst} is off by {errors[worst]:.1%}"
