"""Functions of numbers that `keras.ops` lacks, or that mean something else there."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bert4x.backend.draws import random_bernoulli
from bert4x.backend.shapes import alike, dtype


def identity(x: Any, name: str | None = None):
    """A copy."""
    return ops.copy(x)


def argmax(x: Any, axis: int = -1):
    """Where the largest is along an axis."""
    return ops.argmax(x, axis)


def argmin(x: Any, axis: int = -1):
    """Where the smallest is along an axis."""
    return ops.argmin(x, axis)


def cumsum(x: Any, axis: int = 0):
    """Sums up to each place along an axis."""
    return ops.cumsum(x, axis)


def cumprod(x: Any, axis: int = 0):
    """Products up to each place along an axis."""
    return ops.cumprod(x, axis)


def pow(x: Any, a: Any):
    """x to the power of a."""
    return ops.power(x, a)


def sqrt(x: Any):
    """The square root, 0 for negative numbers."""
    return ops.sqrt(ops.maximum(x, 0))


def l2_normalize(x: Any, axis: int | None = None):
    """x over its norm along an axis, at least 1e-6."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-12))


def relu(x: Any, alpha: float = 0.0, max_value: float | None = None, threshold: float = 0.0):
    """A rectifier with slope `alpha` below the threshold, and a bound."""
    return keras.activations.relu(x, negative_slope=alpha, max_value=max_value, threshold=threshold)


def bias_add(x: Any, bias: Any, data_format: str | None = None):
    """x and a bias of its last axis, or of all its axes but the first."""
    return x + bias


def hard_sigmoid(x: Any):
    """0.2 x + 0.5 between 0 and 1, as in Keras 2; Keras 3's is steeper."""
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def dropout(x: Any, level: float, noise_shape: Sequence[int] | None = None, seed: int | None = None):
    """Sets a share to zero, and scales the rest."""
    shape = ops.shape(x) if noise_shape is None else noise_shape
    return x * random_bernoulli(shape, 1 - level, dtype(x), seed) / (1 - level)


def in_top_k(predictions: Any, targets: Any, k: int):
    """Whether each target is among the k highest. Shape: (B, N), (B,) -> (B,)"""
    return ops.in_top_k(targets, predictions, k)


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False):
    """Of probabilities as Keras 2 has it, which adds epsilon to each before it takes the logarithm."""
    if from_logits:
        return ops.binary_crossentropy(target, output, True)
    epsilon = keras.backend.epsilon()
    output = ops.clip(output, epsilon, 1 - epsilon)
    target = ops.cast(target, dtype(output))
    return -(target * ops.log(output + epsilon) + (1 - target) * ops.log(1 - output + epsilon))


def where(cond: Any, x: Any, y: Any):
    """x where the condition is not 0, else y; all of any shapes that fit."""
    return ops.where(ops.cast(cond, "bool"), *alike(x, y))


def switch(condition: Any, then_expression: Any, else_expression: Any):
    """One of two tensors, or of what two functions without arguments give, for a condition that has no more axes: its
    first ones.
    """
    then, other = (part() if callable(part) else part for part in (then_expression, else_expression))
    more = len(getattr(then, "shape", ())) - len(condition.shape)
    for _ in range(more):
        condition = ops.expand_dims(condition, -1)
    return where(condition, then, other)
