"""The functions of `keras.ops` that decoding is written with, on NumPy's arrays: there it runs without Keras.

What is not here is NumPy's own, of the same name and meaning.
"""

from collections.abc import Callable, Sequence

import numpy as np


def ops_of(x):
    """What computes with an array, by its kind: these functions for one of NumPy, else `keras.ops`."""
    if isinstance(x, np.ndarray | np.generic):
        import bert4x.numpy_ops

        return bert4x.numpy_ops
    from keras import ops

    return ops


def __getattr__(name: str):
    return getattr(np, name)


def cast(x, dtype: str):
    return np.asarray(x).astype(dtype)


def convert_to_numpy(x) -> np.ndarray:
    return np.asarray(x)


def convert_to_tensor(x, dtype: str | None = None) -> np.ndarray:
    return np.asarray(x, dtype)


def sum(x, axis=None, keepdims: bool = False):
    return np.sum(x, axis, dtype=x.dtype, keepdims=keepdims)


def logsumexp(x, axis: int):
    most = x.max(axis, keepdims=True)
    return np.log(np.exp(x - most).sum(axis)) + np.squeeze(most, axis)


def log_softmax(x, axis: int):
    return x - np.expand_dims(logsumexp(x, axis), axis)


def softmax(x, axis: int):
    odds = np.exp(x - x.max(axis, keepdims=True))
    return odds / odds.sum(axis, keepdims=True)


def top_k(x, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest of the last axis, and their places; of equal ones the first. Shape: (..., N) -> 2 x (..., k)"""
    places = np.argsort(-x, axis=-1, kind="stable")[..., :k].astype("int32")
    return np.take_along_axis(x, places, -1), places


def take_along_axis(x, indices, axis: int):
    return np.take_along_axis(x, np.asarray(indices, "int64"), axis)


def scatter(indices, values, shape: Sequence[int]) -> np.ndarray:
    """Values at places; those of one place are added up. Shape: (N, R), (N,) -> `shape`, of rank R"""
    found = np.zeros(shape, values.dtype)
    np.add.at(found, tuple(np.moveaxis(indices, -1, 0)), values)
    return found


def slice_update(x, start: Sequence[int], updates) -> np.ndarray:
    """A copy with other values from a place on. Shape: any -> the same"""
    found = np.array(x)
    found[tuple(slice(int(i), int(i) + n) for i, n in zip(start, updates.shape, strict=True))] = updates
    return found


def while_loop(condition: Callable, body: Callable, loop_vars: Sequence) -> Sequence:
    while condition(*loop_vars):
        loop_vars = body(*loop_vars)
    return loop_vars


def fori_loop(lower: int, upper: int, body: Callable, value):
    for i in range(lower, upper):
        value = body(i, value)
    return value
