"""Sequences into arrays."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert4x import numpy_ops
from bert4x.errors import ConfigError, InputError


def to_array(*args: Any) -> np.ndarray | list[np.ndarray]:
    """Each argument as an array of its own shape; without a list around it if it is the only one.

    Raises: InputError for rows of different lengths.
    """
    arrays = [_rectangular(value, f"argument {index}") for index, value in enumerate(args)]
    return arrays[0] if len(arrays) == 1 else arrays


def softmax(x: Any, axis: int = -1) -> np.ndarray:
    """exp(x) divided by its sum along an axis, without overflow. Shape: that of x."""
    return numpy_ops.softmax(np.asarray(x), axis)


def sequence_padding(
    inputs: Iterable[Any],
    length: int | Sequence[int] | None = None,
    value: float = 0,
    seq_dims: int = 1,
    mode: str = "post",
) -> np.ndarray:
    """Sequences of different lengths as one array, padded with `value`.

    Shape: B sequences of (t, ...) -> (B, T, ...), where T is `length` or the longest t; with `seq_dims` 2, (t, u, ...)
    -> (B, T, U, ...), and so on.

    The dtype is the one that holds the sequences; an empty one has no say in it, and it is wider if `value` needs it.

    Args:
        length: T, or one for each of the `seq_dims`. Of a longer sequence the beginning is kept, in either mode.
        mode: "post" pads at the end, "pre" at the beginning.

    Raises: InputError for no sequences, different shapes, or arguments out of range.
    """
    if mode not in ("post", "pre"):
        raise InputError(f"mode is {mode!r}; expected 'post' or 'pre'")
    rows = [_rectangular(x, f"inputs[{index}]") for index, x in enumerate(inputs)]
    if not rows:
        raise InputError("inputs is empty; expected at least one sequence")
    # An empty list is (0,), of float64: neither its shape nor its dtype means anything.
    full = [(index, row) for index, row in enumerate(rows) if row.size]
    measured = [row.shape for row in rows if row.size or row.ndim >= seq_dims]
    first, model = full[0] if full else (0, rows[0])
    for index, row in full or [(0, model)]:
        if row.ndim < seq_dims or row.ndim != model.ndim or row.shape[seq_dims:] != model.shape[seq_dims:]:
            raise InputError(
                f"inputs[{index}] has shape {row.shape}, inputs[{first}] {model.shape}; expected {seq_dims} or more "
                f"dimensions, and the same but for the first {seq_dims}"
            )
    longest = [max(shape[axis] for shape in measured) for axis in range(seq_dims)]
    lengths = longest if length is None else _lengths(length, seq_dims)
    dtype = _dtype_with(value, np.result_type(*(row.dtype for _, row in full)) if full else np.asarray(value).dtype)
    out = np.full((len(rows), *lengths, *model.shape[seq_dims:]), value, dtype)
    for index, row in full:
        row = row[tuple(slice(size) for size in lengths)]
        kept = row.shape[:seq_dims]
        starts = [size - here if mode == "pre" else 0 for size, here in zip(lengths, kept, strict=True)]
        out[(index, *(slice(start, start + here) for start, here in zip(starts, kept, strict=True)))] = row
    return out


def truncate_sequences(maxlen: int, indices: int | Sequence[int], *sequences: list | None) -> list[list]:
    """Takes items out of the longest sequence, again and again, until all together have at most `maxlen`.

    The lists themselves become shorter; they are also returned, without those that are None.

    Args:
        indices: where items are taken out, one for all sequences or one for each: -2 is before a final [SEP].

    Raises: InputError for what is no list, or when an index runs out of a sequence; nothing is changed then.
    """
    each = list(indices) if isinstance(indices, list | tuple) else [indices] * len(sequences)
    if len(each) != len(sequences):
        raise InputError(f"{len(each)} indices for {len(sequences)} sequences; expected one for each, or a number")
    if maxlen < 0:
        raise InputError(f"maxlen is {maxlen}; expected 0 or more")
    for position, sequence in enumerate(sequences):
        if sequence is not None and not isinstance(sequence, list):
            raise InputError(f"sequence {position} is a {type(sequence).__name__}; expected a list, which is shortened")
    given = [(index, sequence) for index, sequence in zip(each, sequences, strict=True) if sequence is not None]
    lengths = [len(sequence) for _, sequence in given]
    while sum(lengths) > maxlen:
        lengths[lengths.index(max(lengths))] -= 1
    for (index, sequence), left in zip(given, lengths, strict=True):
        if left < len(sequence) and not -left - 1 <= index <= left:
            raise InputError(
                f"cannot shorten a sequence of {len(sequence)} to {left} at index {index}; "
                f"expected an index from {-left - 1} to {left}"
            )
    for (index, sequence), left in zip(given, lengths, strict=True):
        surplus = len(sequence) - left
        if surplus:
            begin = index if index >= 0 else left + 1 + index
            del sequence[begin : begin + surplus]
    return [sequence for _, sequence in given]


def orthogonally_resize(a: np.ndarray, new_shape: Sequence[int], window: int = 2) -> np.ndarray:
    """Weights of another shape with the same norm: along each axis, windows of entries are repeated, then cut.

    Shape: any -> `new_shape`
    Source: Su, kexue.fm/archives/8444. `autoresize_weights=True` does this while loading.

    Raises: InputError for another number of dimensions, or where a growing axis is not a multiple of the window.
    """
    from bert4x.checkpoints.weights import orthogonally_resize as resize

    a = np.asarray(a)
    if a.ndim != len(new_shape):
        raise InputError(f"an array of shape {a.shape} cannot become {tuple(new_shape)}: another number of dimensions")
    try:
        return resize(a, tuple(new_shape), window)
    except ConfigError as error:
        raise InputError(str(error)) from None


def _rectangular(value: Any, name: str) -> np.ndarray:
    try:
        return np.array(value)
    except ValueError as error:
        raise InputError(f"{name} has rows of different lengths; pad them with sequence_padding ({error})") from None


def _lengths(length: int | Sequence[int], seq_dims: int) -> list[int]:
    lengths = [length] if np.ndim(length) == 0 else list(length)
    if len(lengths) != seq_dims or not all(isinstance(size, int | np.integer) and size >= 0 for size in lengths):
        raise InputError(f"length is {length!r}; expected {seq_dims} whole number(s), one for each of seq_dims")
    return lengths


def _dtype_with(value: float, dtype: np.dtype) -> np.dtype:
    """The dtype if it holds the value, or one that holds both."""
    with np.errstate(invalid="ignore", over="ignore"):
        held = np.asarray(value).astype(dtype)
    return dtype if held == np.asarray(value) else np.result_type(dtype, np.min_scalar_type(value))
