"""The multi-label losses under `bert4keras.backend`'s names."""

import keras
import numpy as np
from keras import ops

from bert4x.layers.limits import nan_unless
from bert4x.layers.pointer import HIDDEN
from bert4x.training.losses import (
    LEAST,
    between_0_and_1,
    logarithm,
    sparse_multilabel_categorical_crossentropy,
    two_sided,
)

__all__ = ["multilabel_categorical_crossentropy", "sparse_multilabel_categorical_crossentropy"]


@keras.saving.register_keras_serializable("bert4x.backend")
def multilabel_categorical_crossentropy(y_true, y_pred):
    """bert4keras': labels may be anything from 0 to 1; a score of -inf counts for nothing, nor does one that a
    `GlobalPointer` gives to what cannot be a span, which is -inf there and `HIDDEN` here.

    Shape: (..., N), (..., N) scores, without a sigmoid -> (...)
    Raises: InputError for other labels.
    """
    scores, (labels, known) = ops.cast(y_pred, "float32"), between_0_and_1(y_true)
    counts = ops.logical_and(ops.not_equal(scores, -np.inf), ops.not_equal(scores, HIDDEN))
    scores = ops.where(counts, scores, 0.0)
    right = ops.where(counts, scores - logarithm(labels), -LEAST)
    wrong = ops.where(counts, scores + logarithm(1 - labels), LEAST)
    return nan_unless(known, two_sided(right, wrong))
