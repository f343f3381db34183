"""Variables and constants, as Keras 2's backend has them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def variable(value: Any, dtype: str | None = None, name: str | None = None, constraint: Any = None) -> keras.Variable:
    """A variable with this value."""
    made = keras.Variable(value, dtype=dtype or keras.backend.floatx(), name=name)
    made.constraint = constraint
    return made


def constant(value: Any, dtype: str | None = None, shape: Sequence[int] | None = None, name: str | None = None):
    """A tensor of this value; a number fills the shape."""
    array = np.asarray(value)
    array = array if shape is None else np.full(shape, array) if array.ndim == 0 else array.reshape(shape)
    return ops.convert_to_tensor(array, dtype or keras.backend.floatx())


def zeros(shape: Sequence[int], dtype: str | None = None, name: str | None = None):
    """A tensor of zeros."""
    return ops.zeros(shape, dtype)


def ones(shape: Sequence[int], dtype: str | None = None, name: str | None = None):
    """A tensor of ones."""
    return ops.ones(shape, dtype)


def zeros_like(x: Any, dtype: str | None = None, name: str | None = None):
    """Zeros of the shape of x."""
    return ops.zeros_like(x, dtype)


def ones_like(x: Any, dtype: str | None = None, name: str | None = None):
    """Ones of the shape of x."""
    return ops.ones_like(x, dtype)


def eye(size: int, dtype: str | None = None, name: str | None = None):
    """Shape: (size, size)"""
    return ops.eye(size, dtype=dtype)


def eval(x: Any) -> np.ndarray:
    """The numbers of a variable or a tensor, which may be written to. Shape: any -> the same"""
    return np.array(ops.convert_to_numpy(x))


get_value = eval


def set_value(x: keras.Variable, value: Any) -> None:
    """Gives a variable a value."""
    x.assign(value)


def batch_get_value(tensors: Iterable[Any]) -> list[np.ndarray]:
    """The numbers of several. Shape: any -> the same, of each"""
    return [eval(x) for x in tensors]


def batch_set_value(tuples: Iterable[tuple[keras.Variable, Any]]) -> None:
    """Gives each variable the value beside it."""
    for x, value in tuples:
        x.assign(value)


def update(x: keras.Variable, new_x: Any):
    """Gives a variable a value, and returns that."""
    return x.assign(new_x)


def update_add(x: keras.Variable, increment: Any):
    """Adds to a variable."""
    return x.assign_add(increment)


def update_sub(x: keras.Variable, decrement: Any):
    """Subtracts from a variable."""
    return x.assign_sub(decrement)


def count_params(x: Any) -> int:
    """How many numbers a variable has."""
    return math.prod(x.shape)
