"""Vectors of positions that are added to embeddings, learned or sinusoids; which token is at which position."""

import functools

import keras
import numpy as np
from keras import ops

from bert4x.errors import ConfigError, InputError, nearest
from bert4x.layers.base import Layer, Unmasked, initializer
from bert4x.layers.limits import check_numbers


def too_long(length: int, limit: int) -> str:
    """The message about a sequence that has no positions."""
    return (
        f"sequence of {length} tokens, but this model has positions for {limit}. Truncate the input "
        "(Tokenizer.encode(..., maxlen=...)), or load with hierarchical_position=True; an encoder-decoder, whose "
        "positions are sinusoids, with a larger max_position."
    )


MERGES = {  # how vectors of positions (T, E) or (B, T, E) go into x (B, T, D), by bert4keras' words
    "add": lambda x, e: x + e,
    "mul": lambda x, e: x * (e + 1),
    "zero": lambda x, e: e + ops.zeros_like(x[..., :1]),
    "concat": lambda x, e: ops.concatenate([x, e + ops.zeros_like(x[..., :1])], axis=-1),
}


@keras.saving.register_keras_serializable("bert4x")
class PositionEmbedding(Layer):
    """Adds a learned vector for each position.

    `hierarchical` (True for 0.4, or alpha itself) decomposes positions so that a table of P rows serves P * P
    positions: row i * P + j is alpha * u_i + (1 - alpha) * u_j with u = (p - alpha * p_0) / (1 - alpha)
    (Su, kexue.fm/archives/7947).

    `first` is the row of position 0; the rows before it are not used.

    bert4keras' arguments are taken, too: `input_dim` for `max_position`; `output_dim`, the size of the vectors E, by
    default that of x; `merge_mode`: "add", "mul" (x * (1 + e)), "zero" (e alone) or "concat"; with
    `custom_position_ids=True` it takes `[x, position_ids]`.

    Shape: (B, T, D)[, (B, T) position ids] -> (B, T, D); of "zero" (B, T, E), of "concat" (B, T, D + E)
    Raises: InputError when the sequence is longer than the table, and for a position without a row; ConfigError for
    another `merge_mode`, and for sizes that cannot be added.
    """

    def __init__(
        self,
        max_position=None,
        output_dim=None,
        merge_mode="add",
        hierarchical=False,
        embeddings_initializer=None,
        custom_position_ids=False,
        *,
        input_dim=None,
        stddev=0.02,
        first=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if merge_mode not in MERGES:
            raise ConfigError(f"no merge_mode {merge_mode!r}; {nearest(str(merge_mode), MERGES)}")
        self.max_position = input_dim if max_position is None else max_position
        self.output_dim = output_dim
        self.merge_mode = merge_mode
        self.hierarchical = hierarchical
        if embeddings_initializer is None and input_dim is not None:
            embeddings_initializer = "zeros"  # as bert4keras has it
        self.embeddings_initializer = embeddings_initializer
        self.custom_position_ids = custom_position_ids
        self.stddev = stddev
        self.first = first

    def build(self, x_shape, position_ids_shape=None):
        size = (x_shape[0] if self.custom_position_ids and not isinstance(x_shape[-1], int) else x_shape)[-1]
        if self.merge_mode in ("add", "mul") and self.output_dim not in (None, size):
            raise ConfigError(f"{self.name}: output_dim = {self.output_dim}, but its input has {size} features")
        start = initializer(self.stddev) if self.embeddings_initializer is None else self.embeddings_initializer
        shape = (self.max_position + self.first, self.output_dim or size)
        self.embeddings = self.add_weight(shape=shape, initializer=start, name="embeddings", autocast=False)

    def call(self, x, position_ids=None):
        if isinstance(x, list | tuple):
            x, position_ids = x
        vectors = self.consecutive(x) if position_ids is None else self.lookup(position_ids)
        return MERGES[self.merge_mode](x, ops.cast(vectors, x.dtype))

    def consecutive(self, x):
        """The vectors of positions 0, 1, 2 ... Shape: (B, T, D) -> (T, E)"""
        length = x.shape[1]
        limit = self.max_position**2 if self.hierarchical else self.max_position
        if isinstance(length, int) and length > limit:
            raise InputError(too_long(length, limit))
        position_ids = ops.arange(ops.shape(x)[1])
        if self.hierarchical:
            return self.lookup(position_ids)
        return ops.take(self.embeddings, position_ids + self.first, axis=0)

    def lookup(self, position_ids):
        """The vectors of positions. Shape: (T,) or (B, T) -> the same and E"""
        position_ids = ops.cast(position_ids, "int32")
        rows = self.max_position**2 if self.hierarchical else self.max_position
        check_numbers(position_ids, rows, f"{self.name}: position")
        if not self.hierarchical:
            return ops.take(self.embeddings, position_ids + self.first, axis=0)
        alpha = 0.4 if self.hierarchical is True else self.hierarchical
        table = self.embeddings[self.first :] if self.first else self.embeddings
        table = (table - alpha * table[:1]) / (1 - alpha)
        major = ops.take(table, position_ids // self.max_position, axis=0)
        return alpha * major + (1 - alpha) * ops.take(table, position_ids % self.max_position, axis=0)

    def compute_mask(self, x, mask=None):
        return mask[0] if isinstance(mask, list | tuple) else mask

    def compute_output_spec(self, x, position_ids=None):
        x = x[0] if isinstance(x, list | tuple) else x
        size = {"zero": 0}.get(self.merge_mode, x.shape[-1])
        size += (self.output_dim or x.shape[-1]) if self.merge_mode in ("zero", "concat") else 0
        return self.symbolic((*x.shape[:-1], size))


@keras.saving.register_keras_serializable("bert4x")
class RealPositions(Unmasked):
    """The positions of tokens where padding has none, wherever it stands: how many real ones come before.

    Shape: (B, T, E), whose Keras mask tells padding, (B, T) ids -> (B, T) int32
    """

    def call(self, x, ids, x_mask=None):  # two tensors, as in `Visibility`
        real = ops.ones_like(ids, dtype="int32") if x_mask is None else ops.cast(x_mask, "int32")
        return ops.maximum(ops.cumsum(real, axis=1) - 1, 0)

    def compute_output_spec(self, x, ids, x_mask=None):
        return self.symbolic(x.shape[:2], "int32")


@keras.saving.register_keras_serializable("bert4x")
class SinusoidalPosition(Layer):
    """Scales embeddings by the square root of their size and adds a fixed vector for each position
    (Vaswani et al. 2017, arXiv 1706.03762, sections 3.4 and 3.5): sin and cos of pos / 10000^(2i / E), in turn.

    Shape: (B, T, E)[, (T,) or (B, T) position ids] -> (B, T, E)
    Raises: InputError when the sequence is longer than `max_position`, and for a position beyond it.
    """

    def __init__(self, max_position, **kwargs):
        super().__init__(**kwargs)
        self.max_position = max_position

    def call(self, x, position_ids=None):
        length, size = x.shape[1:]
        if position_ids is None:
            if isinstance(length, int) and length > self.max_position:
                raise InputError(too_long(length, self.max_position))
            position_ids = ops.arange(ops.shape(x)[1])
        check_numbers(position_ids, self.max_position, f"{self.name}: position")
        table = ops.convert_to_tensor(sinusoids(self.max_position, size), dtype=self.compute_dtype)
        return x * ops.cast(size**0.5, x.dtype) + ops.take(table, position_ids, axis=0)

    def compute_output_spec(self, x, position_ids=None):
        return self.symbolic(x.shape)


@functools.lru_cache(maxsize=8)
def sinusoids(positions: int, size: int) -> np.ndarray:
    """The vectors of all positions, in double precision: in single, the angle of position 1000 is off by 1e-4.

    Shape: (positions, size)
    """
    i = np.arange(size)
    angles = np.arange(positions)[:, None] / 10000.0 ** (2 * (i // 2) / size)
    return np.where(i % 2 == 0, np.sin(angles), np.cos(angles)).astype("float32")
