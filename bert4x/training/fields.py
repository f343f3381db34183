"""What generative models follow: the score of noised data, and the field of charges; and how it is followed.

Sources: Vincent 2011 and Su, kexue.fm/archives/9509 (conditional score matching); Xu et al. 2022, arXiv 2209.11178, and
Su, kexue.fm/archives/9305 (Poisson flow).
"""

from itertools import pairwise

import numpy as np
from keras import ops


def conditional_score(noised, clean, deviation):
    """The gradient of log N(noised; clean, deviation^2). A network that is trained on it by squared error becomes the
    score of all noised data, as its mean over what is clean is just that.

    Shape: (..., D), (..., D), number or (..., 1) -> (..., D)
    """
    return ops.divide(ops.subtract(clean, noised), ops.square(deviation))


def poisson_field(places, data):
    """The direction of the electric field of data that lie as charges in a plane, at places above it: the sum of
    (x - x_i, t) / (|x - x_i|^2 + t^2)^((D + 1) / 2), made one long.

    Shape: (N, D + 1) of which t comes last, (M, D) -> (N, D + 1)
    """
    apart = places[:, None] - ops.pad(data, ((0, 0), (0, 1)))
    logs = ops.log(ops.sum(ops.square(apart), axis=-1) + 1e-12)
    shares = ops.softmax(-0.5 * places.shape[-1] * logs, axis=-1)  # the size of the sum does not matter
    field = ops.sum(shares[..., None] * apart, axis=1)
    return field * ops.rsqrt(ops.sum(ops.square(field), axis=-1, keepdims=True) + 1e-12)


def poisson_noise(heights, dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """Draws of the density that is proportional to (|x|^2 + t^2)^(-(D + 1) / 2) at heights t: what a single charge in
    the plane looks like from there, and so where points start that come down from high above. The mean of what is
    clean, given charges x_i with such noise, is m = sum w_i x_i by the weights of `poisson_field`, so that
    (x - m) / t is the slope of the field: a network that finds the clean point knows the field (Xu et al. 2023,
    arXiv 2302.04265), as with the score.

    Shape: (N,) -> (N, D)
    """
    noise, share = rng.normal(0, 1, (len(heights), dimensions)), rng.beta(dimensions / 2, 0.5, len(heights))
    radius = np.asarray(heights) * np.sqrt(share / np.maximum(1 - share, 1e-6))
    return noise * (radius / np.linalg.norm(noise, axis=1))[:, None]


def follow(slope, start, times):
    """Solves dx/dt = slope(x, t) from the first of the times to the last (Heun's steps).

    Args:
        slope: of (N, D) and a number.

    Shape: (N, D) -> the same
    """
    x = start
    for before, after in pairwise(times):
        first = slope(x, before)
        second = slope(x + (after - before) * first, after)
        x = x + (after - before) / 2 * (first + second)
    return x
