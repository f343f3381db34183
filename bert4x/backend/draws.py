"""Random numbers that a layer draws without a generator of its own, as Keras 2's backend has them.

TensorFlow has its own generators, which work in any graph, also in one that reads data. On JAX what is compiled needs a
`keras.random.SeedGenerator`, and Keras says so.
"""

from collections.abc import Sequence

import keras
from keras import ops

from bert4x.errors import InputError


def _drawn(name: str, shape: Sequence[int], *numbers: float, dtype: str | None, seed: int | None):
    """What TensorFlow's, or else Keras', function of this name draws.

    Raises: InputError for a seed elsewhere: Keras would draw the same numbers every time.
    """
    dtype = dtype or keras.backend.floatx()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        function = getattr(tf.random, name if name != "randint" else "uniform")
        return function(shape, *numbers, dtype=dtype, seed=seed)
    if seed is not None:
        raise InputError(
            f"seed={seed}: Keras 3 draws the same numbers in every call then; make keras.random.SeedGenerator({seed}) "
            f"in __init__, and call keras.random.{name.removesuffix('_normal')}(..., seed=generator)"
        )
    function = getattr(keras.random, name)
    return function(tuple(shape), *numbers, dtype=dtype)


def random_uniform(
    shape: Sequence[int],
    minval: float = 0.0,
    maxval: float | None = None,
    dtype: str | None = None,
    seed: int | None = None,
):
    """Numbers from `minval` up to `maxval`, which is 1 unless told; whole ones for a dtype of these."""
    whole = keras.backend.is_int_dtype(dtype) if dtype else False
    bounds = (int(minval), int(maxval)) if whole else (minval, 1.0 if maxval is None else maxval)
    return _drawn("randint" if whole else "uniform", shape, *bounds, dtype=dtype, seed=seed)


def random_normal(
    shape: Sequence[int], mean: float = 0.0, stddev: float = 1.0, dtype: str | None = None, seed: int | None = None
):
    """Numbers of a normal distribution."""
    return _drawn("normal", shape, mean, stddev, dtype=dtype, seed=seed)


def truncated_normal(
    shape: Sequence[int], mean: float = 0.0, stddev: float = 1.0, dtype: str | None = None, seed: int | None = None
):
    """Numbers of a normal distribution, at most two standard deviations from the mean."""
    return _drawn("truncated_normal", shape, mean, stddev, dtype=dtype, seed=seed)


def random_bernoulli(shape: Sequence[int], p: float = 0.0, dtype: str | None = None, seed: int | None = None):
    """1 with probability p, else 0."""
    return ops.cast(_drawn("uniform", shape, 0.0, 1.0, dtype=None, seed=seed) < p, dtype or keras.backend.floatx())


random_binomial = random_bernoulli  # its first name
