"""Attention that is as sharp over many keys as over few."""

import math

from keras import ops

SHORTEST = 16  # fewer keys count as so many, as in the article's code


def growth(visible, trained: int, beyond: bool = False):
    """What scores are multiplied by, log n / log m, where a query sees n keys, and m, `trained`, is the length in
    training: so the entropy of attention stays what it was in training, whatever the length (Su,
    kexue.fm/archives/8823). A model that was trained without it wants it for longer texts only, `beyond` m.

    Shape: (B, 1, T, S) bool -> (B, 1, T, 1) float32
    """
    count = ops.sum(ops.cast(visible, "float32"), axis=-1, keepdims=True)
    grown = ops.log(ops.maximum(count, float(SHORTEST))) / math.log(trained)
    return ops.maximum(grown, 1.0) if beyond else grown
