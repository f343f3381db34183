"""Prompts of different lengths as one batch of few possible shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert4x.errors import GenerationError


@dataclass(frozen=True)
class Prompt:
    """Ids and segments of one prompt, without padding; of a source also the token that its target starts with.

    Shape: (T,) and (T,) integers
    """

    ids: np.ndarray
    segments: np.ndarray
    start: int | None = None


def read_prompts(ids, segment_ids=None, padding_mask=None, pad_id: int | None = None) -> list[Prompt]:
    """The prompts of an array or a list of lists. Padding is where the mask says so; without one, the ids `pad_id` at
    either end of a row (inside it, an id is a token whatever it is).

    Shape: (B, T) or B lists -> B prompts
    Raises: GenerationError for anything that is no batch of token ids, and for an empty prompt.
    """
    rows = [as_row(row, "token_ids") for row in as_rows(ids, "token_ids")]
    if not rows:
        raise GenerationError("no prompts: the batch is empty")
    segments = rows_like(rows, segment_ids, "segment_ids") or [np.zeros_like(row) for row in rows]
    masks = rows_like(rows, padding_mask, "padding_mask") or [None] * len(rows)
    prompts = []
    for number, (row, segment, mask) in enumerate(zip(rows, segments, masks, strict=True)):
        real = np.asarray(mask, bool) if mask is not None else np.ones(len(row), bool)
        if mask is None and pad_id is not None:
            tokens = np.flatnonzero(row != pad_id)
            real[:] = False
            real[slice(tokens[0], tokens[-1] + 1) if len(tokens) else slice(0)] = True
        if not real.any():
            raise GenerationError(f"prompt {number} is empty; give at least one token to continue")
        prompts.append(Prompt(row[real], segment[real]))
    return prompts


def as_rows(values, name: str) -> Sequence:
    """The rows of a batch: a list as it is, anything else by way of NumPy. Raises: GenerationError"""
    if isinstance(values, list | tuple):
        return values
    array = np.asarray(values)
    if array.ndim != 2:
        raise GenerationError(f"{name} have shape {array.shape}; expected (batch, length), or a list of lists")
    return list(array)


def as_row(values, name: str) -> np.ndarray:
    """One row of int64, so that no id wraps around before it is checked. Raises: GenerationError. Shape: -> (T,)"""
    try:
        array = np.asarray(values)
    except ValueError as error:  # of lists in lists
        raise GenerationError(f"{name} have a row of lists of different lengths; expected integers") from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        raise GenerationError(f"{name} have a row of {array.dtype} of shape {array.shape}; expected (length,) integers")
    return array.astype("int64")


def rows_like(rows: list[np.ndarray], values, name: str) -> list[np.ndarray] | None:
    """Rows that go with those of the ids. Raises: GenerationError when they do not. Shape: -> (T,) each, as the ids"""
    if values is None:
        return None
    others = [as_row(row, name) for row in as_rows(values, name)]
    if [len(row) for row in others] != [len(row) for row in rows]:
        raise GenerationError(f"{name} and token_ids differ in shape")
    return others


def bucket(size: int, least: int = 16) -> int:
    """The size that is compiled for: 16, 24, 32, 48, 64, 96 ..., at most half again as large."""
    power = least
    while power < size:
        power *= 2
    return power * 3 // 4 if least < power and size <= power * 3 // 4 else power


def as_batch(prompts: Sequence[Prompt], rows: int, sources: bool = False) -> dict[str, np.ndarray]:
    """The inputs of a model, in a bucket of lengths. Padded on the left, so that all prompts end in the same slot; but
    `sources` of an encoder-decoder on the right, and their targets have one token so far. Rows that are not needed are
    all padding.

    Shape: token_ids, segment_ids, position_ids, padding_mask, each (rows, length); or token_ids, padding_mask,
    each (rows, length), and target_ids, target_mask, each (rows, 1)
    """
    length = bucket(max(len(prompt.ids) for prompt in prompts))
    shape = rows, length
    ids, segments, mask = np.zeros(shape, "int32"), np.zeros(shape, "int32"), np.zeros(shape, bool)
    for row, prompt in enumerate(prompts):
        at = slice(0, len(prompt.ids)) if sources else slice(length - len(prompt.ids), length)
        ids[row, at], segments[row, at], mask[row, at] = prompt.ids, prompt.segments, True
    if sources:
        starts = np.zeros((rows, 1), "int32")
        starts[: len(prompts), 0] = [prompt.start for prompt in prompts]
        return {"token_ids": ids, "padding_mask": mask, "target_ids": starts, "target_mask": np.ones_like(starts, bool)}
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype("int32")
    return {"token_ids": ids, "segment_ids": segments, "position_ids": positions, "padding_mask": mask}
