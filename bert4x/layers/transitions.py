"""The best labels by scores of labels and of transitions between them: NumPy only, so that it runs without Keras."""

import numpy as np

from bert4x.errors import InputError
from bert4x.numpy_ops import log_softmax

PADDED = -1e12  # the scores of padding in the output: finite, and below any that a model gives


def chain_potentials(scores: np.ndarray, trans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What places, and steps between them, give in a conditional random field.

    Shape: (T, L), (L, L) -> (T, L), (T - 1, L, L)
    """
    return scores, np.broadcast_to(trans, (len(scores) - 1, *trans.shape))


def memm_potentials(scores: np.ndarray, trans: np.ndarray, bidirectional: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same of a maximum entropy Markov model.

    Shape: (T, L), (L, L) -> (T, L), (T - 1, L, L)
    """
    places = log_softmax(scores, -1)
    steps = log_softmax((scores[1:, None, :] + trans) / 2, 2)
    if not bidirectional:
        return np.concatenate([places[:1], np.zeros_like(places[1:])]), steps
    ends = np.zeros_like(places)
    ends[0] += places[0] / 2
    ends[-1] += places[-1] / 2
    return ends, (steps + log_softmax((scores[:-1, :, None] + trans) / 2, 1)) / 2


def best_path(places: np.ndarray, steps: np.ndarray, starts=None, ends=None) -> np.ndarray:
    """The labels with the largest sum of what places and steps between them give (Viterbi 1967).

    Shape: (T, L), (T - 1, L, L) -> (T,), T > 0
    Raises: InputError where starts and ends leave no path.
    """
    places = places.copy()
    for name, place, allowed in (("starts", 0, starts), ("ends", -1, ends)):
        if allowed is not None:
            others = np.ones(places.shape[1], bool)
            allowed = list(allowed)
            if not all(0 <= label < len(others) for label in allowed):
                raise InputError(f"{name} is {allowed}; expected labels from 0 to {len(others) - 1}, or None for all")
            others[allowed] = False
            places[place, others] = -np.inf
    best, before = places[0], []
    for place, step in zip(places[1:], steps, strict=True):
        through = best[:, None] + step
        before.append(through.argmax(0))
        best = through.max(0) + place
    path = [best.argmax()]
    if best[path[0]] == -np.inf:
        raise InputError(f"no path of {len(places)} labels from starts {starts} to ends {ends}; allow more of them")
    for labels in reversed(before):
        path.append(labels[path[-1]])
    return np.array(path[::-1])
