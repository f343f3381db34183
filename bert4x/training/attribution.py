"""How much each token of a text has to do with what a model gives for it."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bert4x.errors import InputError
from bert4x.training.compiled import no_gradient
from bert4x.training.outputs import replaced_output, value_and_gradient_by_output
from bert4x.training.perturbation import TABLE, embedding_table, layer_named, perturbed


def integrated_gradients(
    model: keras.Model, inputs: Any, labels: Any = None, embedding_name: str = TABLE, steps: int = 20
) -> np.ndarray:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365; Su, kexue.fm/archives/7533): the vectors of the
    tokens times the mean gradient of the score of a label, on the way of the embedding table from zero to what it is.

    Their sum is about what the score differs from that of no embeddings, the better the more steps. For one number a
    token, bert4keras' script takes the norm, `np.linalg.norm(found, axis=-1)`, or the largest size. (It also multiplies
    each gradient by where on the way it is, which this does not.)

    Shape: inputs as the model takes them, (B, T) each, labels (B,) -> (B, T, E) float32

    Args:
        labels: whose score counts, in each row; the best one unless told.
        steps: of the way; costs as many passes.
    Raises: InputError for outputs other than (B, N), or labels that do not fit; ConfigError for no such embeddings.
    """
    table, layer = embedding_table(model, embedding_name), layer_named(model, embedding_name)
    if steps < 1:
        raise InputError(f"steps={steps}; expected 1 or more")
    vectors = []

    def noted(x):
        vectors.append(x)
        return x

    with no_gradient(), replaced_output(layer, noted):
        scores = ops.convert_to_numpy(model(inputs, training=False))
    if scores.ndim != 2:
        raise InputError(f"the model gives {scores.shape}; expected (B, N), a score for each label")
    labels = scores.argmax(-1) if labels is None else np.asarray(labels).reshape(-1)
    if len(labels) != len(scores) or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise InputError(f"labels {labels.tolist()}; expected {len(scores)} from 0 to {scores.shape[1] - 1}")
    chosen = ops.convert_to_tensor(np.eye(scores.shape[1], dtype="float32")[labels])

    def score():
        return ops.sum(ops.cast(model(inputs, training=False), "float32") * chosen), ()

    total = np.zeros(vectors[0].shape, "float32")
    for step in range(steps):
        with perturbed(table, ((step + 0.5) / steps - 1) * table.value):
            _, gradient = value_and_gradient_by_output(score, layer, model.variables)
        total += ops.convert_to_numpy(ops.cast(ops.stop_gradient(gradient), "float32"))
    return ops.convert_to_numpy(ops.cast(vectors[0], "float32")) * total / steps
