"""What decoding gives back: rows of new ids with their log-probabilities, or one token of a stream after the other."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.beam import BeamSearch
from bert4x.generation.options import GenerationOptions
from bert4x.numpy_ops import ops_of


class Output(NamedTuple):
    """Decoded rows: new ids with -1 after the end, the log-probability of each row (of beams: the score that they
    are compared by), and of each token.

    Shape: (R, N) int32, (R,) float32, (R, N) float32
    """

    ids: np.ndarray
    scores: np.ndarray
    log_probabilities: np.ndarray


class Token(NamedTuple):
    """One token of a stream: its id, log-probability, and whether it ended the row."""

    id: int
    log_probability: float
    is_stop: bool


def outputs(search, state, rows: int, options: GenerationOptions) -> Output:
    """What a finished decoding gives back."""
    ops = ops_of(state.token)
    if isinstance(search, BeamSearch):
        wanted = options.num_return_sequences
        values = state.ended, state.ended_ids, state.ended_log_probabilities, state.ended_scores
        ended, ids, log_probabilities, scores = (ops.convert_to_numpy(x)[:rows, :wanted] for x in values)
        if not ended.any(axis=1).all():
            raise nothing_allowed(int(np.argmin(ended.any(axis=1))))
        ids = np.where(ended[:, :, None], ids, -1).reshape(rows * wanted, -1)
        log_probabilities = np.where(ended[:, :, None], log_probabilities, 0).reshape(rows * wanted, -1)
        scores = np.where(ended, scores, -np.inf).astype("float32").reshape(-1)
    else:
        ids = ops.convert_to_numpy(state.ids)[:rows, -search.room :]
        log_probabilities = ops.convert_to_numpy(state.log_probabilities)[:rows]
        scores = log_probabilities.sum(axis=1)
    longest = int((ids >= 0).sum(axis=1).max())
    return Output(ids[:, :longest].astype("int32"), scores, log_probabilities[:, :longest])


def nothing_allowed(prompt: int) -> GenerationError:
    """The error about a prompt without a single sequence."""
    return GenerationError(
        f"prompt {prompt} has no continuation that the options allow: at some place all tokens are forbidden. Allow "
        "more of them (suppress_ids, no_repeat_ngram_size, min_new_tokens), or ask for fewer new ones"
    )


def with_ended(state, room: int, ended: Callable, rows: int) -> np.ndarray:
    """Which rows have ended, now that their ids were looked at. Shape: -> (`rows`,) bool"""
    ops = ops_of(state.token)
    finished = np.array(ops.convert_to_numpy(state.finished))
    ids = ops.convert_to_numpy(state.ids)[:rows, -room:]
    finished[:rows] |= [ended(row, new) for row, new in enumerate(ids)]
    return finished
