"""Shapes, axes and places, as Keras 2's backend has them, with bert4keras' `reshape`, `flatten` and `align`."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def int_shape(x: Any) -> tuple[int | None, ...]:
    """The shape as far as it is known, None for what is not."""
    return tuple(x.shape)


def dtype(x: Any) -> str | None:
    """The name of the dtype; None for what has none, a Python number for example."""
    return keras.backend.standardize_dtype(x.dtype) if hasattr(x, "dtype") else None


def prod(x: Any, axis: int | None = None, keepdims: bool = False):
    """The product; of a shape whose sizes are all known, a number that reshape takes on every backend."""
    if isinstance(x, list | tuple) and all(isinstance(size, int) for size in x):
        return math.prod(x)
    return ops.prod(x, axis=axis, keepdims=keepdims)


def reshape(tensor: Any, *args: Any):
    """`reshape(x, shape)`, or pairs `reshape(x, shape, axis, shape, axis ...)`: each axis becomes a shape, which may
    have one -1, and the others stay.
    """
    if len(args) == 1:
        return ops.reshape(tensor, args[0])
    shape: list[list] = [[size] for size in ops.shape(tensor)]
    for parts, axis in zip(args[::2], args[1::2], strict=True):
        known = prod([size for size in parts if not isinstance(size, int) or size != -1])
        whole = shape[axis][0]
        shape[axis] = [whole // known if isinstance(size, int) and size == -1 else size for size in parts]
    return ops.reshape(tensor, [size for parts in shape for size in parts])


def flatten(tensor: Any, start: int | None = None, end: int | None = None):
    """The axes from `start` up to `end` as one; all of them unless told."""
    shape, rank = ops.shape(tensor), len(tensor.shape)
    start, end = start or 0, end or rank
    start, end = (axis + rank if axis < 0 else axis for axis in (start, end))
    return ops.reshape(tensor, [*shape[:start], prod(list(shape[start:end])), *shape[end:]])


def batch_flatten(x: Any):
    """Shape: (B, ...) -> (B, N)"""
    return flatten(x, 1)


def align(tensor: Any, axes: Sequence[int], ndim: int | None = None):
    """Puts axis i of a tensor where axis axes[i] of one with `ndim` axes is; the others have size 1."""
    ndim = ndim or max(axes) + 1
    indices: list = [None] * ndim
    for axis in axes:
        indices[axis] = slice(None)
    return tensor[tuple(indices)]


def expand_dims(x: Any, axis: int = -1):
    """An axis of size 1 at `axis`."""
    return ops.expand_dims(x, axis)


def permute_dimensions(x: Any, pattern: Sequence[int]):
    """Axes in another order."""
    return ops.transpose(x, pattern)


def alike(*values: Any) -> list:
    """Tensors as they are; numbers, and lists of them, as tensors of the first one's dtype."""
    kinds = [kind for kind in map(dtype, values) if kind]
    made = (*kinds, keras.backend.floatx())[0]
    return [x if dtype(x) else ops.convert_to_tensor(x, made) for x in values]


def concatenate(tensors: Sequence[Any], axis: int = -1):
    """Tensors one behind another; some may be lists of numbers."""
    return ops.concatenate(alike(*tensors), axis)


def repeat(x: Any, n: int):
    """Shape: (B, D) -> (B, n, D)"""
    return ops.repeat(x[:, None], n, axis=1)


def repeat_elements(x: Any, rep: int, axis: int):
    """Each element along an axis `rep` times, one after the other."""
    return ops.repeat(x, rep, axis=axis)


def reverse(x: Any, axes: int | Sequence[int]):
    """Backwards along axes."""
    return ops.flip(x, axes)


def temporal_padding(x: Any, padding: Sequence[int] = (1, 1)):
    """Zeros before and after. Shape: (B, T, D) -> (B, before + T + after, D)"""
    return ops.pad(x, ((0, 0), tuple(padding), (0, 0)))


def gather(reference: Any, indices: Any):
    """Rows of a table. Shape: (N, ...), (...) -> (..., ...)"""
    return ops.take(reference, indices, axis=0)
