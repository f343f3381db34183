"""Choosing tokens: filters of a distribution, and drawing from it with random numbers made beforehand."""

import zlib
from collections.abc import Sequence

import numpy as np

from bert4x.numpy_ops import ops_of

BISECTIONS = 48  # halvings of the interval in which a threshold lies: 2 ** -48 is below any probability that matters


def threshold(probabilities, weights, amount):
    """The largest t such that the tokens with probability >= t have at least this much weight together.

    Found by bisection: on XLA it takes less time than sorting the vocabulary.

    Shape: (B, V), (B, V), () -> (B, 1)
    """
    ops = ops_of(probabilities)
    high = ops.max(probabilities, axis=-1, keepdims=True)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        enough = ops.sum(ops.where(probabilities >= middle, weights, 0.0), axis=-1, keepdims=True) >= amount
        return ops.where(enough, middle, low), ops.where(enough, high, middle)

    return ops.fori_loop(0, BISECTIONS, halve, (ops.zeros_like(high), high))[0]


def keep_top_k(probabilities, k):
    """The k likeliest tokens (and any as likely as the last of them), renormalised.

    Shape: (B, V), () -> (B, V)
    """
    ops = ops_of(probabilities)
    k = ops.cast(k, "float32")
    return keep(probabilities, threshold(probabilities, ops.ones_like(probabilities), k))


def keep_top_p(probabilities, p):
    """The fewest likeliest tokens that together have probability p: nucleus sampling (Holtzman et al. 2019,
    arXiv 1904.09751), renormalised.

    Shape: (B, V), () -> (B, V)
    """
    return keep(probabilities, threshold(probabilities, probabilities, p))


def keep_min_p(probabilities, p):
    """Tokens at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082), renormalised.

    Shape: (B, V), () -> (B, V)
    """
    ops = ops_of(probabilities)
    return keep(probabilities, p * ops.max(probabilities, axis=-1, keepdims=True))


def keep(probabilities, least):
    """The tokens at least so likely, renormalised.

    Shape: (B, V), (B, 1) -> (B, V)
    """
    ops = ops_of(probabilities)
    kept = ops.where(probabilities >= least, probabilities, 0.0)
    return kept / ops.sum(kept, axis=-1, keepdims=True)


def draw(probabilities, uniform):
    """The token whose interval of the cumulative probabilities, in the vocabulary's order, holds the number.

    Shape: (B, V), (B,) -> (B,) int32
    """
    ops = ops_of(probabilities)
    upper = ops.cumsum(probabilities, axis=-1)
    target = uniform[:, None] * upper[:, -1:]  # the last sum is 1 but for rounding
    drawn = ops.sum(ops.cast(upper <= target, "int32"), axis=-1)
    drawn = ops.minimum(drawn, probabilities.shape[1] - 1)
    possible = ops.take_along_axis(probabilities, drawn[:, None], axis=1)[:, 0] > 0
    return ops.where(possible, drawn, likeliest(probabilities))  # probability 0 must not come out of rounding


def likeliest(scores):
    """The first of the highest scores. XLA on a CPU takes longer for `argmax` than for these two passes.

    Shape: (B, V) -> (B,) int32
    """
    ops = ops_of(scores)
    highest = ops.max(scores, axis=-1, keepdims=True)
    places = ops.arange(scores.shape[-1], dtype="int32")[None, :]
    return ops.min(ops.where(scores == highest, places, scores.shape[-1] - 1), axis=-1)


def highest(scores, k: int):
    """`top_k` of many scores. XLA on a CPU sorts them all for it; here, only blocks that can hold one of the k highest:
    those with the k highest maxima.

    Shape: (B, N) -> (B, k), (B, k) int32 places
    """
    ops = ops_of(scores)
    batch, size = scores.shape
    width = 128
    blocks = -(-size // width)
    if blocks <= 2 * k:
        values, places = ops.top_k(scores, k)
        return values, ops.cast(places, "int32")
    padded = ops.pad(scores, ((0, 0), (0, blocks * width - size)), constant_values=-np.inf)
    padded = ops.reshape(padded, (batch, blocks, width))
    best = ops.sort(ops.cast(ops.top_k(ops.max(padded, axis=-1), k)[1], "int32"))  # of equal scores the first places
    values, places = ops.top_k(ops.reshape(ops.take_along_axis(padded, best[:, :, None], axis=1), (batch, -1)), k)
    places = ops.cast(places, "int32")
    return values, ops.take_along_axis(best, places // width, axis=1) * width + places % width


def uniforms(seed: int | None, prompts: Sequence[np.ndarray], samples: int, steps: int) -> np.ndarray:
    """Random numbers in [0, 1) for every row and step, by NumPy's Philox.

    They depend on the seed, the prompt, how often that prompt came before in the batch, and the number of the sample:
    so a prompt has the same continuations whatever else is in the batch, on every backend, streamed or not.

    Shape: B prompts of ids -> (B * samples, steps) float32
    """
    seed = int(np.random.SeedSequence().entropy) if seed is None else int(seed)
    before: dict[bytes, int] = {}
    rows = []
    for prompt in prompts:
        key = np.asarray(prompt, "int32").tobytes()
        nth = before[key] = before.get(key, -1) + 1
        for sample in range(samples):
            sequence = np.random.SeedSequence([seed, zlib.crc32(key), nth * samples + sample])
            rows.append(np.random.Generator(np.random.Philox(sequence)).random(steps, dtype="float32"))
    return np.stack(rows)
