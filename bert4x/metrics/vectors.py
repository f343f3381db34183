"""How well sentence vectors agree with people: correlations of similarity with grades, and ranks of what is right."""

from collections.abc import Sequence

import numpy as np

from bert4x.errors import InputError


def sts(similarities: Sequence[float], grades: Sequence[float]) -> dict[str, float]:
    """The correlations of similarities and grades: by ranks (Spearman, equal values at their mean rank), and Pearson's.
    Both are 0 where one side does not vary.

    Shape: (N,), (N,)
    Raises: InputError for two lengths, less than two pairs, or values that are not finite.
    """
    try:
        a, b = np.asarray(similarities, "float64"), np.asarray(grades, "float64")
    except (TypeError, ValueError) as error:
        raise InputError(f"similarities and grades are numbers: {error}") from None
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise InputError(
            f"similarities of shape {a.shape}, grades of shape {b.shape}; expected (N,) twice, N at least 2"
        )
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        raise InputError("similarities or grades hold NaN or infinity")
    return {"spearman": correlation(ranks(a), ranks(b)), "pearson": correlation(a, b)}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one side does not vary, as when a model gives every text the same value.

    Shape: (N,), (N,)
    """
    if np.ptp(a) == 0 or np.ptp(b) == 0:  # not by the deviation, which rounding makes more than 0
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each, from 1; equal ones have their mean rank. Shape: (N,) -> (N,)"""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def ranks_of_right(scores: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    """The ranks, from 1, of all right answers of each row, in order; of equal scores, right answers are the last.

    Shape: (N, M), (N, M) bool -> N arrays
    """
    return [1 + np.flatnonzero(one[np.lexsort((one, -row))]) for row, one in zip(scores, right, strict=True)]


def scores_of_ranks(ranks: Sequence[np.ndarray], k: int = 10) -> dict[str, float]:
    """Means over questions, by the ranks of all of their right answers: MRR (of the first one), recall@1, nDCG@k."""
    gains = [gain_at(one[one <= k]) / gain_at(np.arange(1, min(len(one), k) + 1)) for one in ranks]
    recalls = [float(one[0] == 1) / len(one) for one in ranks]
    return {"mrr": mean([1 / one[0] for one in ranks]), "recall@1": mean(recalls), f"ndcg@{k}": mean(gains)}


def gain_at(ranks: np.ndarray) -> float:
    """The discounted gain of right answers at these ranks."""
    return float((1 / np.log2(ranks + 1)).sum())


def ranks_of_first(scores: np.ndarray) -> np.ndarray:
    """The rank, from 1, of each row's right answer, which is the first; of equal scores it is the last.

    Shape: (N, M) -> (N,)
    """
    return (scores >= scores[:, :1]).sum(axis=1)


def retrieval(found: Sequence[Sequence], right: Sequence, k: int = 10) -> dict[str, float]:
    """Means over queries of what a search of at least `k` texts found: recall@k, MRR@k (of the first right one), nDCG@k
    (Järvelin and Kekäläinen 2002, with gains 2^grade - 1).

    Args:
        found: of each query, the names of texts, the nearest first.
        right: of each query, the names of those that answer it; or a dict of grades, above 0 for those.
    Raises: InputError for two lengths, a query that nothing answers, grades that are no numbers, and a `k` below 1.
    """
    if type(k) is not int or k < 1:
        raise InputError(f"k = {k!r:.40}; expected a whole number, at least 1")
    if not (isinstance(found, Sequence) and isinstance(right, Sequence)):
        raise InputError("found and right are lists, with what belongs to each query")
    if len(found) != len(right) or not len(found):
        raise InputError(f"{len(found)} queries, answers to {len(right)}; expected as many, at least one")
    recalls, firsts, gains = [], [], []
    for number, (names, answers) in enumerate(zip(found, right, strict=True)):
        grades = dict(answers) if isinstance(answers, dict) else dict.fromkeys(answers, 1)
        if wrong := [grade for grade in grades.values() if not isinstance(grade, int | float | np.number)]:
            raise InputError(f"query {number} has the grade {wrong[0]!r:.40}; expected a number")
        grades = {name: grade for name, grade in grades.items() if grade > 0}
        if not grades:
            raise InputError(f"query {number} has no right answer; leave it out")
        names = list(dict.fromkeys(names))[:k]
        hits = [rank for rank, name in enumerate(names, 1) if name in grades]
        recalls.append(len(hits) / len(grades))
        firsts.append(1 / hits[0] if hits else 0.0)
        ideal = gain(sorted(grades.values(), reverse=True)[:k])
        gains.append(gain([grades.get(name, 0) for name in names]) / ideal)
    return {f"recall@{k}": mean(recalls), f"mrr@{k}": mean(firsts), f"ndcg@{k}": mean(gains)}


def gain(grades: Sequence[float]) -> float:
    """The discounted gain of grades in the order of ranks."""
    return float(sum((2.0**grade - 1) / np.log2(rank + 1) for rank, grade in enumerate(grades, 1)))


def mean(values: Sequence[float]) -> float:
    """The mean of some numbers."""
    return float(np.mean(values))


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| of two sets of points: 0 where they are alike (Szekely and Rizzo 2013).

    Shape: (N, D), (M, D)
    """

    def mean(one, other):
        return np.linalg.norm(one[:, None] - other, axis=-1).mean()

    return float(2 * mean(a, b) - mean(a, a) - mean(b, b))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Fréchet distance of two normal distributions with the means and covariances of two sets of points:
    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)); of features of images it is known as FID (Heusel et al. 2017). Two
    samples of the same are apart too, and the more so the fewer points there are: compare sets of one size.

    Shape: (N, D), (M, D), N and M at least 2
    Raises: InputError for other shapes.
    """
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise InputError(
            f"points of shapes {a.shape} and {b.shape}; expected (N, D) and (M, D), two points or more each"
        )
    one, other = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one) + np.trace(other) - 2 * shared)
