"""Means over the places that count, of a batch or of several that are learned from together."""

import contextlib
import contextvars
from collections.abc import Iterator

from keras import ops

_counts = contextvars.ContextVar("counts", default=None)
_denominators = contextvars.ContextVar("denominators", default=None)


def token_mean(values, real):
    """For each row a number, such that their mean over the batch is the mean of all real values: what Keras averages.
    Within `dividing_by`, the sum over another count than the batch's own.

    Shape: (B, T), (B, T) bool -> (B,) float32
    """
    values = ops.sum(ops.where(real, ops.cast(values, "float32"), 0.0), axis=1)
    rows = ops.cast(ops.shape(values)[0], "float32")
    if _denominators.get() is not None:
        return values * (rows / next(_denominators.get()))
    count = ops.sum(ops.cast(real, "float32"))
    if _counts.get() is not None:
        _counts.get().append(count)
    return values * (rows / ops.maximum(count, 1.0))


@contextlib.contextmanager
def counting() -> Iterator[list]:
    """Within the block, the list gets the number of real values of each `token_mean`, as scalars."""
    counts: list = []
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


@contextlib.contextmanager
def dividing_by(denominators: list | None) -> Iterator[None]:
    """Within the block, each `token_mean` in turn divides by one of these, and not by the number of its real values;
    with None, all is as without.
    """
    token = _denominators.set(None if denominators is None else iter(denominators))
    try:
        yield
    finally:
        _denominators.reset(token)
