"""What generative models follow: the score of noised data, and the field of charges; and how it is followed.

Sources: Vincent 2011 and Su, kexue.fm/archives/9509 (conditional score matching); Xu et al. 2022, arXiv 2209.11178, and
Su, kexue.fm/archives/9305 (Poisson flow).
"""

from itertools import pairwise

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
