"""Vectors without a model: how similar they are, the nearest of many, and forms that take less room. In NumPy."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert4x.errors import InputError, UnknownOptionError, nearest

PRECISIONS = ("float32", "int8", "binary")
BLOCK = 1 << 22  # numbers of a corpus that are compared at a time


class Found(NamedTuple):
    """A text of a corpus: its number, from 0, and how similar it is to the query."""

    index: int
    score: float


def as_vectors(values, what: str = "vectors") -> np.ndarray:
    """Vectors as an array of rows. Shape: (D,) or (N, D) -> (N, D). Raises: InputError for what is none."""
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind == "f":
        array = array[None]
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(
            f"{what}: found an array of shape {array.shape} and dtype {array.dtype}; expected (N, D) numbers"
        )
    return array


def check_count(name: str, value, least: int = 1) -> None:
    """Raises: InputError for what is no whole number, or one below the least."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} = {value!r}; expected a whole number, at least {least}")


def finite(array: np.ndarray, what: str) -> np.ndarray:
    """Rows in float32. Raises: InputError that names the first row with NaN or infinity. Shape: (N, D) -> the same"""
    array = np.asarray(array, "float32")
    good = np.isfinite(array).all(axis=1)
    if not good.all():
        raise InputError(f"{what}: row {int(np.argmin(good))} holds NaN or infinity")
    return array


def similarity(first, second, kind: str = "cosine") -> np.ndarray:
    """How similar each vector is to each other one; more is nearer.

    Shape: (N, D), (M, D) -> (N, M)
    Raises: InputError for vectors of two sizes, NaN; UnknownOptionError
    """
    first, second = (as_vectors(x, what) for x, what in ((first, "the first vectors"), (second, "the second vectors")))
    if first.shape[1] != second.shape[1]:
        raise InputError(f"vectors of {first.shape[1]} and of {second.shape[1]} numbers cannot be compared")
    first, second = finite(first, "the first vectors"), finite(second, "the second vectors")
    if kind == "cosine":
        return unit(first) @ unit(second).T
    if kind == "dot":
        return first @ second.T
    if kind == "euclidean":
        first, second = first.astype("float64"), second.astype("float64")  # near ones would differ by rounding alone
        squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
        return -np.sqrt(np.maximum(squares, 0)).astype("float32")
    if kind == "manhattan":
        return -np.stack([np.abs(second - row).sum(1) for row in first]) if len(first) else np.zeros((0, len(second)))
    raise UnknownOptionError(
        f"no similarity {kind!r}; {nearest(str(kind), ('cosine', 'dot', 'euclidean', 'manhattan'))}"
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows at length 1; zeros stay. Shape: (N, D) -> the same"""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def search(queries, corpus, top_k: int = 10, kind: str = "cosine") -> list[list[Found]]:
    """The nearest vectors of a corpus to each query, the nearest first; of equal ones, those that come first. Exact:
    all are compared, a part at a time, so that a corpus on disk (`numpy.load(path, mmap_mode="r")`) need not fit in
    memory.

    Shape: queries (Q, D), corpus (N, D)
    Raises: InputError for a corpus of other sizes, NaN, and a `top_k` below 1.
    """
    check_count("top_k", top_k)
    queries, corpus = as_vectors(queries, "queries"), as_vectors(corpus, "the corpus")
    if queries.shape[1] != corpus.shape[1]:
        raise InputError(
            f"the query has {queries.shape[1]} numbers, the vectors of the corpus {corpus.shape[1]}: these are of "
            "another model, or of other dimensions"
        )
    best = [(np.zeros(0, int), np.zeros(0, "float32"))] * len(queries)
    for start, part in parts(corpus):
        scores = similarity(queries, part, kind)
        for number, row in enumerate(scores):
            places = np.concatenate([best[number][0], np.arange(start, start + len(row))])
            row = np.concatenate([best[number][1], row])
            order = np.argsort(-row, kind="stable")[:top_k]
            best[number] = places[order], row[order]
    return [[Found(int(i), float(s)) for i, s in zip(*one, strict=True)] for one in best]


def parts(corpus: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of a corpus, each with the number of its first row. Shape: (N, D) -> (n, D) each"""
    rows = max(1, BLOCK // max(1, corpus.shape[1]))
    for start in range(0, len(corpus), rows):
        yield start, corpus[start : start + rows]


def packed(vectors: np.ndarray, precision: str, ranges: np.ndarray | None = None) -> np.ndarray:
    """Vectors that take less room: "int8", each number in 256 steps between the least and the largest of its place, or
    "binary", a bit for each number above 0, eight in a byte (compare by the number of equal bits).

    Args:
        ranges: for int8, the least and the largest number of each place, (2, D); by default those of these vectors.
            What is compared must have the same.
    Shape: (N, D) -> (N, D) int8, or (N, D / 8) uint8
    Raises: UnknownOptionError; InputError for NaN.
    """
    if precision not in PRECISIONS:
        raise UnknownOptionError(f"no precision {precision!r}; {nearest(str(precision), PRECISIONS)}")
    vectors = finite(vectors, "vectors")
    if precision == "float32":
        return vectors
    if precision == "binary":
        return np.packbits(vectors > 0, axis=1)
    low, high = (vectors.min(0), vectors.max(0)) if ranges is None else checked_ranges(ranges, vectors.shape[1])
    steps = np.maximum(high - low, 1e-12) / 255
    return (np.clip(np.floor((vectors - low) / steps), 0, 255) - 128).astype("int8")


def checked_ranges(ranges, size: int) -> np.ndarray:
    """The least and the largest number of each place, (2, D). Raises: InputError for another shape, or NaN."""
    ranges = finite(as_vectors(ranges, "ranges"), "ranges")
    if ranges.shape != (2, size):
        raise InputError(f"ranges of shape {ranges.shape}; expected (2, {size}): the least and the largest numbers")
    return ranges


def is_texts(values) -> bool:
    """Whether these are texts, and no vectors."""
    return (
        isinstance(values, Iterable)
        and not isinstance(values, np.ndarray)
        and all(isinstance(value, str) for value in values)
    )


def paired(first: np.ndarray, second: np.ndarray, kind: str) -> np.ndarray:
    """How similar each vector is to its partner. Shape: (N, D), (N, D) -> (N,)"""
    return np.array([similarity(a[None], b[None], kind)[0, 0] for a, b in zip(first, second, strict=True)])


def whitening(vectors, dimensions: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A matrix and a bias that make the numbers of vectors uncorrelated, of mean 0 and variance 1: x W + b. The first
    columns are those of the largest variances, so that fewer may be kept.

    Source: BERT-whitening, kexue.fm/archives/8069 (Su et al. 2021, arXiv 2103.15316).

    Shape: (N, D) -> (D, K), (K,), in float32
    Raises: InputError for less vectors than numbers that are kept, or more of these than there are.
    """
    vectors = finite(as_vectors(vectors), "vectors").astype("float64")
    size = vectors.shape[1] if dimensions is None else dimensions
    if type(size) is not int or not 0 < size <= vectors.shape[1]:
        raise InputError(f"dimensions = {dimensions!r}; expected 1 to {vectors.shape[1]}")
    if len(vectors) <= size:
        raise InputError(f"{len(vectors)} vectors; expected more than the {size} numbers that are to be independent")
    mean = vectors.mean(0)
    axes, variances, _ = np.linalg.svd(np.cov((vectors - mean).T, bias=True).reshape(vectors.shape[1], -1))
    kernel = (axes / np.sqrt(np.maximum(variances, 1e-12)))[:, :size]
    return kernel.astype("float32"), (-mean @ kernel).astype("float32")
