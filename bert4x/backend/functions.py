"""Functions of `bert4keras.backend` that are neither Keras' nor attention's."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bert4x.activation_names import say_what_gelu_is
from bert4x.errors import ConfigError


def set_gelu(version: str) -> None:
    """What "gelu" means in configs that `build_transformer_model` reads from now on: "erf" or "tanh".

    Without it that is what the original code of the family computes: tanh for ALBERT and GPT2, erf for others.

    Raises: ConfigError for another version.
    """
    if not isinstance(version, str) or version.lower() not in ("erf", "tanh"):
        raise ConfigError(f"gelu version {version!r}; expected 'erf' or 'tanh'")
    say_what_gelu_is(f"gelu_{version.lower()}")


def get_available_gpus() -> list[str]:
    """Names of the GPUs that the backend sees."""
    return keras.distribution.list_devices("gpu")


def batch_gather(params: Any, indices: Any):
    """Of each row of a batch, what stands at its places along the axis after those that both have.

    Shape: (B, T, ...), (B, K) -> (B, K, ...); and (N, ...), (K,) -> (K, ...)
    """
    indices = ops.cast(indices, "int32")
    axis = len(indices.shape) - 1
    for _ in range(len(params.shape) - axis - 1):
        indices = ops.expand_dims(indices, -1)
    return ops.take_along_axis(params, indices, axis=axis)


def pool1d(
    x: Any,
    pool_size: int,
    strides: int = 1,
    padding: str = "valid",
    data_format: str | None = None,
    pool_mode: str = "max",
):
    """Windows over a sequence of vectors: the largest number of each, or with `pool_mode` "avg" the mean.

    Shape: (B, T, D) -> (B, T', D)
    Raises: ConfigError for another `pool_mode`.
    """
    pool = {"max": ops.max_pool, "avg": ops.average_pool}.get(pool_mode)
    if pool is None:
        raise ConfigError(f"pool_mode {pool_mode!r}; expected 'max' or 'avg'")
    return pool(x, pool_size, strides, padding, data_format)


def divisible_temporal_padding(x: Any, n: int):
    """Zeros at the end, so that n divides the length. Shape: (B, T, D) -> (B, T', D)"""
    missing = -ops.shape(x)[1] % n
    return ops.pad(x, ((0, 0), (0, missing), (0, 0)))


def root_mean_square(x: Any, axis: int | None = None, keepdims: bool = False):
    """The root of the mean of squares."""
    return ops.sqrt(ops.mean(ops.square(x), axis=axis, keepdims=keepdims))


def swish(x: Any):
    """x times its sigmoid (Ramachandran et al. 2017, arXiv 1710.05941)."""
    return ops.silu(x)


def leaky_relu(x: Any, alpha: float = 0.2):
    """x, or alpha times it where that is negative."""
    return ops.leaky_relu(x, alpha)


def recompute_grad(call: Callable) -> Callable:
    """The function itself: computing again is an option of a model here, `recompute=True`."""
    return call


if os.environ.get("RECOMPUTE", "0").lower() in ("1", "true", "yes", "on", "t", "y"):
    warnings.warn(
        "bert4x does not read the variable RECOMPUTE; give build_transformer_model(..., recompute=True)", stacklevel=2
    )
