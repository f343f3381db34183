"""How attention knows the positions of tokens. A scheme is one class here; an attention layer holds at most one.

`Rotary` turns queries and keys, `RelativeVectors` add to scores and to values, `Disentangled` to scores. `RelativeBias`
does so as a layer with a table, called once for all attention layers of a stack: what it gives is their `bias`.

Positions are (T,), the same in all rows, or (B, T), as where prompts of different lengths are padded on the left.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from bert4x.errors import ConfigError
from bert4x.layers.base import Unmasked, initializer
from bert4x.layers.position_embeddings import sinusoids


@dataclass(frozen=True)
class Positions:
    """Base of the schemes that an attention layer holds; `.keras` files keep their fields."""

    inside_scores: ClassVar[bool] = False  # whether scores depend on more than the products of queries and keys

    def turn(self, query, key, positions):
        """Queries and keys of the same tokens, as they are multiplied and as the cache keeps the keys.

        Shape: (B, A, T, d), (B, K, T, d), (T,) or (B, T) -> (B, A, T, d), (B, K, T, d)
        """
        return query, key

    def get_config(self):
        """The settings, as a dict for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("bert4x")
@dataclass(frozen=True)
class Rotary(Positions):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864): pair i of the features of a query or key at
    position p is turned by the angle p / theta^(2 i / d), so that products depend on differences of positions.

    Pairs are features 2 i and 2 i + 1 with `interleaved=True`, as published; otherwise i and i + d / 2, as in LLaMA.
    With `log_n`, the length in training, queries at later positions p are multiplied by log(p + 1) / log(log_n), which
    keeps the entropy of attention (Su, kexue.fm/archives/8823; Qwen, arXiv 2309.16609).
    """

    theta: float = 10000.0
    interleaved: bool = False
    log_n: int | None = None

    def turn(self, query, key, positions):
        size = query.shape[-1]
        if size % 2:
            raise ConfigError(f"rotary positions turn pairs, but heads have {size} features; expected an even number")
        positions = ops.cast(positions, "float32")
        angles = positions[..., None] * self.frequencies(size, positions)
        angles = angles[None] if len(angles.shape) == 2 else angles[:, None]  # (1, T, d / 2) or (B, 1, T, d / 2)
        cos, sin = (ops.cast(x * self.magnitude(), query.dtype) for x in (ops.cos(angles), ops.sin(angles)))
        turned = self.turned(query, cos, sin)
        if self.log_n is not None:
            factor = ops.maximum(ops.log(positions + 1) / math.log(self.log_n), 1.0)
            factor = factor[:, None] if len(factor.shape) == 1 else factor[:, None, :, None]
            turned = turned * ops.cast(factor, turned.dtype)
        return turned, self.turned(key, cos, sin)

    def frequencies(self, size: int, positions):
        """The angle of each pair for one position. Shape: (d / 2,) float32"""
        return inverse_powers(self.theta, size).astype("float32")

    def magnitude(self) -> float:
        """What queries and keys are multiplied by."""
        return 1.0

    def turned(self, x, cos, sin):
        """Shape: (B, A, T, d), (1, T, d / 2) or (B, 1, T, d / 2) -> (B, A, T, d)"""
        if self.interleaved:
            pairs = ops.reshape(x, (*ops.shape(x)[:-1], x.shape[-1] // 2, 2))
            first, second = pairs[..., 0], pairs[..., 1]
            pairs = ops.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
            return ops.reshape(pairs, ops.shape(x))
        first, second = ops.split(x, 2, axis=-1)
        return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


@keras.saving.register_keras_serializable("bert4x")
@dataclass(frozen=True)
class LinearRotary(Rotary):
    """Positions divided by `factor` (Chen et al. 2023, arXiv 2306.15595)."""

    factor: float = 1.0

    def frequencies(self, size: int, positions):
        return super().frequencies(size, positions) / np.float32(self.factor)


@keras.saving.register_keras_serializable("bert4x")
@dataclass(frozen=True)
class DynamicRotary(Rotary):
    """Theta grows with the length L of the longest row, beyond the length in training, `trained_length`, to
    theta * (factor * L / trained_length - factor + 1)^(d / (d - 2)): dynamic NTK (as in transformers).

    Decoding with a cache keeps keys as they were turned when they were read, at the length of that time.
    """

    factor: float = 1.0
    trained_length: int = 2048

    def frequencies(self, size: int, positions):
        length = ops.maximum(ops.max(positions) + 1, float(self.trained_length))
        growth = self.factor * length / self.trained_length - (self.factor - 1)
        powers = np.arange(0, size, 2, dtype="float32") / size
        return inverse_powers(self.theta, size).astype("float32") / growth ** (powers * (size / (size - 2)))


@keras.saving.register_keras_serializable("bert4x")
@dataclass(frozen=True)
class YarnRotary(Rotary):
    """YaRN (Peng et al. 2023, arXiv 2309.00071): pairs that turn more than `beta_fast` times within the length in
    training stay, those that turn less than `beta_slow` times have positions divided by `factor`, with a ramp between;
    queries and keys are multiplied by `attention_factor`, by default 0.1 log(factor) + 1.
    """

    factor: float = 1.0
    trained_length: int = 2048
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def frequencies(self, size: int, positions):
        low, high = (
            size * math.log(self.trained_length / (turns * 2 * math.pi)) / (2 * math.log(self.theta))
            for turns in (self.beta_fast, self.beta_slow)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), size - 1)
        divided = np.clip((np.arange(size // 2) - low) / max(high - low, 0.001), 0, 1)
        return (inverse_powers(self.theta, size) * (divided / self.factor + 1 - divided)).astype("float32")

    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0


@keras.saving.register_keras_serializable("bert4x")
@dataclass(frozen=True)
class Llama3Rotary(Rotary):
    """Pairs that turn more than `high_turns` times within the length in training stay, those that turn less than
    `low_turns` times have positions divided by `factor`, with a ramp between (Llama 3.1, as in transformers).
    """

    factor: float = 8.0
    trained_length: int = 8192
    low_turns: float = 1.0
    high_turns: float = 4.0

    def frequencies(self, size: int, positions):
        inverse = inverse_powers(self.theta, size)
        turns = self.trained_length * inverse / (2 * math.pi)
        kept = np.clip((turns - self.low_turns) / (self.high_turns - self.low_turns), 0, 1)
        return (inverse * (kept + (1 - kept) / self.factor)).astype("float32")


def inverse_powers(theta: float, size: int) -> np.ndarray:
    """1 / theta^(2 i / d). Shape: (d / 2,) float64"""
    return theta ** (-np.arange(0, size, 2) / size)


@keras.saving.register_keras_serializable("bert4x")
@dataclass(frozen=True)
class RelativeVectors(Positions):
    """Fixed vectors for the distances between tokens, cut off at `max_distance`, added to keys and to values (Shaw et
    al. 2018, arXiv 1803.02155); sinusoids in NEZHA (Wei et al. 2019, arXiv 1909.00204).
    """

    inside_scores: ClassVar[bool] = True
    max_distance: int = 64

    def vectors(self, query_positions, key_positions, size: int, dtype: str):
        """Shape: (T,) or (B, T), (S,) or (B, S) -> (T, S, d) or (B, T, S, d)"""
        distance = ops.clip(distances(query_positions, key_positions), -self.max_distance, self.max_distance)
        table = ops.convert_to_tensor(sinusoids(2 * self.max_distance + 1, size), dtype=dtype)
        return ops.take(table, distance + self.max_distance, axis=0)

    def scores(self, query, query_positions, key_positions):
        """What is added to the products of queries and keys.

        Shape: (B, A, T, d) -> (B, A, T, S)
        """
        vectors = self.vectors(query_positions, key_positions, query.shape[-1], query.dtype)
        return ops.einsum("batd,tsd->bats" if len(vectors.shape) == 3 else "batd,btsd->bats", query, vectors)

    def values(self, weights, size: int, query_positions, key_positions):
        """What is added to the mixed values of this size.

        Shape: (B, A, T, S) -> (B, A, T, size)
        """
        vectors = self.vectors(query_positions, key_positions, size, weights.dtype)
        return ops.einsum("bats,tsd->batd" if len(vectors.shape) == 3 else "bats,btsd->batd", weights, vectors)


@keras.saving.register_keras_serializable("bert4x")
@dataclass(frozen=True)
class Disentangled(Positions):
    """DeBERTa's learned vectors of distances (He et al. 2020, arXiv 2006.03654), of `DisentangledAttention`. Distances
    up to half of `buckets` have their own, longer ones share them up to `max_distance`; -1: none share.
    """

    buckets: int = -1
    max_distance: int = 512

    def rows(self, query_positions, key_positions):
        """The number of the vector of each distance. Shape: (T,) or (B, T), (S,) or (B, S) -> (1 or B, T, S) int32"""
        distance = -distances(query_positions, key_positions)
        distance = distance if len(distance.shape) == 3 else distance[None]
        span, near = self.max_distance, self.buckets // 2
        table = np.arange(max(span, near) + 1)
        if self.buckets > 0:
            growth = np.log(np.maximum(table, near) / near) / np.log(max(span - 1, near + 1) / near)
            span, table = self.buckets, np.where(table <= near, table, near + np.ceil(growth * (near - 1) - 1e-9))
        bucket = ops.take(ops.convert_to_tensor(table.astype("int32")), ops.minimum(ops.abs(distance), len(table) - 1))
        return ops.clip(span + ops.sign(distance) * bucket, 0, 2 * span - 1)


@keras.saving.register_keras_serializable("bert4x")
class RelativeBias(Unmasked):
    """T5's learned numbers for buckets of distances, added to scores (Raffel et al. 2019, arXiv 1910.10683).

    The first half of the buckets holds one distance each, the others grow like logarithms up to `max_distance`, beyond
    which all is one bucket. With `bidirectional=True` half of the buckets are for keys after the query, otherwise these
    share a bucket with distance 0.

    Shape: x (B, T, D), whose length counts where no positions are given[, query_positions (T,) or (B, T),
    key_positions (S,) or (B, S), keys (B, S, D), whose length counts where they are others] -> (1 or B, A, T, S)
    float32
    """

    def __init__(self, heads, buckets=32, max_distance=128, bidirectional=True, stddev=0.02, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.buckets = buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.stddev = stddev

    def build(self, x_shape):
        shape, start = (self.buckets, self.heads), initializer(self.stddev)
        self.embeddings = self.add_weight(shape=shape, initializer=start, name="embeddings", autocast=False)

    def call(self, x, query_positions=None, key_positions=None, keys=None):
        if query_positions is None:
            query_positions = ops.arange(ops.shape(x)[1], dtype="int32")
        if keys is not None:
            key_positions = ops.arange(ops.shape(keys)[1], dtype="int32")
        key_positions = query_positions if key_positions is None else key_positions
        distance = distances(query_positions, key_positions)
        bucket = bucket_of(distance, self.buckets, self.max_distance, self.bidirectional)
        bias = ops.moveaxis(ops.take(ops.cast(self.embeddings, "float32"), bucket, axis=0), -1, -3)
        return bias if len(bias.shape) == 4 else bias[None]

    def compute_output_spec(self, x, query_positions=None, key_positions=None, keys=None):
        batch, length = 1 if query_positions is None else x.shape[0], (x if keys is None else keys).shape[1]
        return self.symbolic((batch, self.heads, x.shape[1], length), "float32")


def bucket_of(distance, buckets: int, max_distance: int, bidirectional: bool):
    """That of T5 for a distance, see `RelativeBias`. Shape: (T, S) or (B, T, S) int32 -> the same, int32"""
    buckets = buckets // 2 if bidirectional else buckets
    near, all_distances = buckets // 2, np.arange(max_distance + 1)
    growth = np.log(np.maximum(all_distances, 1) / near) / np.log(max_distance / near)
    far = near + np.floor(growth * (buckets - near) + 1e-9)  # exact where a distance begins a bucket
    table = np.where(all_distances < near, all_distances, np.minimum(far, buckets - 1)).astype("int32")
    size = ops.abs(distance) if bidirectional else ops.maximum(-distance, 0)
    found = ops.take(ops.convert_to_tensor(table), ops.minimum(size, max_distance), axis=0)
    return found + buckets * ops.cast(distance > 0, "int32") if bidirectional else found


def distances(query_positions, key_positions):
    """How far each key is after each query.

    Shape: (T,) or (B, T), (S,) or (B, S) -> (T, S) or (B, T, S) int32
    """
    query, key = (ops.cast(x, "int32") for x in (query_positions, key_positions))
    return ops.expand_dims(key, -2) - ops.expand_dims(query, -1)  # ONNX has no slices by `...` of one axis
