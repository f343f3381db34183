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
    """The labels with the largest sum of what places and steps between them give.

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
    (path,), (best,) = best_paths(places[None], steps[None], np.array([len(places)]))
    if best == -np.inf:
        raise InputError(f"no path of {len(places)} labels from starts {starts} to ends {ends}; allow more of them")
    return path


def best_paths(places: np.ndarray, steps: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels with the largest sum of scores for several texts (Viterbi 1967), and these sums; of several as good,
    those with smaller labels at their ends.

    Shape: (B, T, L), (B, T - 1, L, L), (B,) -> (B, T) int, (B,); what is beyond a text does not matter
    """
    rows, best, before = np.arange(len(places)), places[:, 0], []
    for t in range(1, places.shape[1]):
        through = best[:, :, None] + steps[:, t - 1]
        before.append(through.argmax(1))
        best = np.where(t < lengths[:, None], through.max(1) + places[:, t], best)
    paths = np.empty(places.shape[:2], int)
    paths[:, -1] = best.argmax(1)
    for t in range(places.shape[1] - 1, 0, -1):
        paths[:, t - 1] = np.where(t < lengths, before[t - 1][rows, paths[:, t]], paths[:, t])
    return paths, best.max(1)
