"""Numbers that name rows of tables, labels or places: those that name none are the same InputError on every backend.

By themselves, backends raise errors of their own, give NaN, count from the end, or read the nearest row.
"""

import keras
import numpy as np
from keras import ops

from bert4x.errors import InputError


def concrete(values) -> np.ndarray | None:
    """The values as NumPy, or None while a backend is tracing (there are none yet). Shape: any -> the same"""
    if isinstance(values, keras.KerasTensor):
        return None
    try:
        return np.asarray(values if not ops.is_tensor(values) else ops.convert_to_numpy(values))
    except Exception:  # each backend has an exception of its own for reading a traced tensor
        return None


def at_hand(values) -> np.ndarray | None:
    """`concrete` where a look costs nothing: not on another device, which all work that it was given would be waited
    for, nor while Keras computes shapes.
    """
    if keras.backend.backend() == "torch" and getattr(getattr(values, "device", None), "type", "cpu") != "cpu":
        return None
    return concrete(values)


def check_numbers(values, size: int | None, what: str, negative: bool = False, where=None) -> None:
    """Looks at numbers that are to be from 0 to `size` - 1, if there is anything to look at.

    Args:
        size: None where it is not known yet.
        what: they are, in the message.
        negative: whether any number below 0 will do, too.
        where: which of them count; by default all.
    Raises: InputError for one that is not among them.
    """
    found = None if size is None else at_hand(values)
    if found is None or not found.size:
        return
    if where is not None:
        where = at_hand(where)
        if where is None or not where.any():
            return
        found = found[where]
    low, high = found.min(), found.max()
    known = low >= 0 or negative
    if not (known and high < size):  # NaN neither
        also = ", or below 0 for what does not count" if negative else ""
        raise InputError(f"{what} {high if known else low}; expected 0 to {size - 1}{also}")


def inside(values, size):
    """Which numbers are from 0 to `size` - 1.

    Shape: any -> the same, bool
    """
    return ops.logical_and(values >= 0, values < size)


def nan_unless(allowed, values):
    """Values, and NaN where they are not allowed: what compiled code, which cannot raise, has to say about a number out
    of range. What is allowed keeps its gradient.

    Shape: two of one shape
    """
    return ops.where(allowed, values, float("nan"))
