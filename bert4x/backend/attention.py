"""Masks, normalisation and rotary positions of attention, as `bert4keras.backend` has them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bert4x.backend.numbers import where
from bert4x.backend.shapes import align, dtype
from bert4x.errors import ConfigError

NAMES = ("softmax", "squared_relu", "softmax_plus")


def sequence_masking(
    x: Any,
    mask: Any = None,
    value: Any = 0,
    axis: int | Sequence[int] | None = None,
    bias: Any = None,
    return_mask: bool = False,
):
    """x with a value where a sequence is padded, and perhaps a bias; with `return_mask` also the mask, of as many axes.

    Shape: any with a batch first, mask (B, T)

    Args:
        value: a number, such as -np.inf, or "inf" and "-inf".
        axis: that of the sequence, 1 unless told; of several, each is masked.
        bias: a bias that is added, or a mask of bool of as many axes as x.
    """
    value = float(value) if isinstance(value, str) else value
    if mask is not None:
        axes = [1] if axis is None else list(axis) if isinstance(axis, list | tuple) else [axis]
        rank, rows = len(x.shape), ops.cast(mask, "bool")
        mask = align(rows, [0, axes[0] % rank], rank)
        for other in axes[1:]:
            mask = ops.logical_and(mask, align(rows, [0, other % rank], rank))
    if bias is not None and dtype(bias) == "bool":
        mask = bias if mask is None else ops.logical_and(mask, bias)
    elif bias is not None:
        x = x + bias
    x = x if mask is None else where(mask, x, value)
    return (x, mask) if return_mask else x


def attention_normalize(a: Any, mask: Any = None, axis: int = -1, method: str = "softmax", bias: Any = None):
    """Scores of attention as weights: "softmax"; "squared_relu" (arXiv 2202.10447); "softmax_plus", whose scores grow
    with the logarithm of the length (Su, kexue.fm/archives/8823).

    Shape: that of a; mask (B, T), T along the axis
    Raises: ConfigError for another method.
    """
    if method not in NAMES:
        raise ConfigError(f"method {method!r}; expected one of {', '.join(NAMES)}")
    a, mask = sequence_masking(a, mask, -np.inf, axis, bias, True)
    if method == "softmax":
        return ops.softmax(a, axis=axis)
    if mask is None:
        length = ops.cast(ops.shape(a)[-1], keras.backend.floatx())
    else:
        length = ops.sum(ops.cast(mask, keras.backend.floatx()), axis=axis, keepdims=True)
    if method == "squared_relu":
        return ops.square(ops.relu(a)) / length
    return ops.softmax(a * ops.log(ops.maximum(length, 16.0)) / np.log(512), axis=axis)


def sinusoidal_embeddings(pos: Any, dim: int, base: float = 10000):
    """The sines and cosines of positions, one after the other (Vaswani et al. 2017, section 3.5).

    Shape: (...) -> (..., dim)
    Raises: ConfigError for an odd dim.
    """
    if dim % 2:
        raise ConfigError(f"dim is {dim}; expected an even number")
    powers = np.power(float(base), -2 * np.arange(dim // 2) / dim).astype(keras.backend.floatx())
    angles = ops.expand_dims(ops.cast(pos, keras.backend.floatx()), -1) * powers
    both = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)
    return ops.reshape(both, (*ops.shape(angles)[:-1], dim))


def apply_rotary_position_embeddings(sinusoidal: Any, *tensors: Any):
    """Turns neighbouring pairs of features by the angles of their positions (Su et al. 2021, arXiv 2104.09864).

    Shape: (B, T, D) sines and cosines, one or more of (B, T, ..., D) -> the same, a list of several
    Raises: ConfigError for no tensors, or tensors of different shapes.
    """
    if not tensors or any(tuple(x.shape) != tuple(tensors[0].shape) for x in tensors):
        raise ConfigError(f"tensors of shapes {[tuple(x.shape) for x in tensors]}; expected one or more, all the same")
    angles = align(sinusoidal, [0, 1, -1], len(tensors[0].shape))
    cosines, sines = (ops.repeat(angles[..., first::2], 2, axis=-1) for first in (1, 0))
    turned = []
    for x in tensors:
        across = ops.reshape(ops.stack([-x[..., 1::2], x[..., ::2]], axis=-1), ops.shape(x))
        turned.append(x * cosines + across * sines)
    return turned[0] if len(turned) == 1 else turned
