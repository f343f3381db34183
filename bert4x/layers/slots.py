"""Writing tokens into a cache of fixed size."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
from keras import ops

_by_parts: contextvars.ContextVar[bool] = contextvars.ContextVar("by_parts", default=False)


@contextlib.contextmanager
def written_by_parts() -> Iterator[None]:
    """Within the block, what is before and after the new tokens is put beside them. Other runtimes have no operation
    that writes in the middle of an array where only running tells; for XLA it is slower.
    """
    token = _by_parts.set(True)
    try:
        yield
    finally:
        _by_parts.reset(token)


def write_slots(past, index, new, axis: int):
    """What a cache holds, with new values from slot `index` of an axis on; PyTorch, which has no compiler to do so,
    reuses keys and values.

    Shape: (..., S, ...), (), (..., t, ...) -> (..., S, ...)
    """
    new = ops.cast(new, past.dtype)
    every = (slice(None),) * axis
    if _by_parts.get():
        after = index + ops.shape(new)[axis]
        return ops.concatenate([past[(*every, slice(None, index))], new, past[(*every, slice(after, None))]], axis)
    if axis == 2 and keras.backend.backend() == "torch" and not past.requires_grad and not new.requires_grad:
        past[:, :, index : index + new.shape[2]] = new
        return past
    return ops.slice_update(past, [index if i == axis else 0 for i in range(len(past.shape))], new)
