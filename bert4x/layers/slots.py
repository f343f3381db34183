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
    if keras.backend.backend() == "torch":
        return written_on_torch(past, index, new, axis)
    return ops.slice_update(past, [index if i == axis else 0 for i in range(len(past.shape))], new)


def written_on_torch(past, index, new, axis: int):
    """The same by index, which may be a tensor, so that a recorded step writes where it is told each time."""
    import torch

    places = torch.arange(new.shape[axis], device=past.device) + index
    in_place = axis == 2 and not past.requires_grad and not new.requires_grad
    return past.index_copy_(axis, places, new) if in_place else past.index_copy(axis, places, new)
