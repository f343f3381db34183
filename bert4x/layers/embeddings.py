"""Token and position embeddings, and the output bias of a language model's head."""

import contextlib
import contextvars
import functools

import keras
import numpy as np
from keras import ops

from bert4x.errors import InputError
from bert4x.layers.base import Layer, LoadsWeights, check_int8, initializer
from bert4x.layers.limits import check_numbers
from bert4x.layers.quantized import int8_matmul

_transposed = contextvars.ContextVar("transposed_table", default=None)


@contextlib.contextmanager
def projecting_by(transposed):
    """Within the block, reversed embeddings multiply by this copy of their table. XLA on a CPU takes twice as long
    for the table itself; None stands for it.

    Shape: (E, V)
    """
    token = _transposed.set(transposed)
    try:
        yield
    finally:
        _transposed.reset(token)


@keras.saving.register_keras_serializable("bert4x")
class Embedding(LoadsWeights, keras.layers.ReversibleEmbedding):
    """Embedding table that also projects back onto the vocabulary (`reverse=True`, the tied output layer).

    `pad_id` names the id that is padding; later layers see it masked. The first position is never masked, because
    some models start sequences with id 0 (as in bert4keras). None means that every id is a real token. bert4keras'
    words are taken, too: `mask_zero=True` for `pad_id=0`, `mode="dense"` for `reverse=True`, and a subclass may give
    `embeddings` other values for as long as it computes.

    Shape: (B, T) ids -> (B, T, E); reversed: (B, T, E) -> (B, T, V)
    Raises: InputError for an id without a row, where ids can be looked at.
    """

    replaced = None

    def __init__(self, *args, pad_id=None, mask_zero=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.pad_id = 0 if mask_zero and pad_id is None else pad_id
        self.supports_masking = True
        if self.reverse_dtype is None:
            self.reverse_dtype = self.compute_dtype  # the table is read in float32

    def add_weight(self, *args, **kwargs):
        # Rows are read in float32 and rounded then: their gradients are added up in float32, and not in 16 bits.
        return super().add_weight(*args, **{"autocast": False} | kwargs)

    def call(self, inputs, reverse=False, mode=None):
        reverse = projects(reverse, mode)
        if reverse and _transposed.get() is not None:
            return ops.matmul(ops.cast(inputs, self.compute_dtype), _transposed.get())
        if not reverse:
            check_numbers(inputs, self.input_dim, f"{self.name}: id")
        return super().call(inputs, reverse=reverse)

    def compute_output_spec(self, inputs, reverse=False, mode=None):
        return super().compute_output_spec(inputs, reverse=projects(reverse, mode))

    @property
    def embeddings(self):
        return super().embeddings if self.replaced is None else self.replaced

    @embeddings.setter
    def embeddings(self, values):
        self.replaced = None if values is self._embeddings else values

    def transposed(self):
        """A copy of the table for `projecting_by`; None where it would not be used.

        Shape: (E, V)
        """
        if self.quantization_mode or self.lora_enabled:
            return None
        return ops.cast(ops.transpose(self.embeddings), self.compute_dtype)

    def quantized_build(self, embeddings_shape, mode, config=None):
        check_int8(mode)
        self._embeddings, self.embeddings_scale = self.add_quantized(
            "embeddings", embeddings_shape, self.embeddings_initializer
        )
        self._is_quantized = True

    def quantized_call(self, inputs, reverse=False, mode=None):
        if projects(reverse, mode):
            return int8_matmul(inputs, self._embeddings, self.embeddings_scale)
        check_numbers(inputs, self.input_dim, f"{self.name}: id")
        scale = ops.take(self.embeddings_scale, inputs, axis=0)[..., None]
        return ops.cast(ops.cast(ops.take(self._embeddings, inputs, axis=0), "float32") * scale, self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        if mask is not None or self.pad_id is None or keras.backend.is_float_dtype(inputs.dtype):  # hidden states
            return mask
        real = ops.not_equal(inputs, self.pad_id)
        return ops.concatenate([ops.ones_like(real[:, :1]), real[:, 1:]], axis=1)

    def get_config(self):
        return super().get_config() | {"pad_id": self.pad_id}


def projects(reverse, mode) -> bool:
    """Whether a call of a table asks for its output layer."""
    return reverse is True or "dense" in (reverse, mode)


def too_long(length: int, limit: int) -> str:
    """The message about a sequence that has no positions."""
    return (
        f"sequence of {length} tokens, but this model has positions for {limit}. Truncate the input "
        "(Tokenizer.encode(..., maxlen=...)), or load with hierarchical_position=True; an encoder-decoder, whose "
        "positions are sinusoids, with a larger max_position."
    )


@keras.saving.register_keras_serializable("bert4x")
class PositionEmbedding(Layer):
    """Adds a learned vector for each position.

    `hierarchical` (True for 0.4, or alpha itself) decomposes positions so that a table of P rows serves P * P
    positions: row i * P + j is alpha * u_i + (1 - alpha) * u_j with u = (p - alpha * p_0) / (1 - alpha)
    (Su, kexue.fm/archives/7947).

    `first` is the row of position 0; the rows before it are not used.

    Shape: (B, T, E)[, (B, T) position ids] -> (B, T, E)
    Raises: InputError when the sequence is longer than the table, and for a position without a row.
    """

    settings = ("max_position", "stddev", "hierarchical", "first")

    def __init__(self, max_position, stddev=0.02, hierarchical=False, first=0, **kwargs):
        super().__init__(**kwargs)
        self.max_position = max_position
        self.stddev = stddev
        self.hierarchical = hierarchical
        self.first = first

    def build(self, x_shape, position_ids_shape=None):
        shape = (self.max_position + self.first, x_shape[-1])
        start = initializer(self.stddev)
        self.embeddings = self.add_weight(shape=shape, initializer=start, name="embeddings", autocast=False)

    def call(self, x, position_ids=None):
        length = x.shape[1]
        if position_ids is None:
            limit = self.max_position**2 if self.hierarchical else self.max_position
            if isinstance(length, int) and length > limit:
                raise InputError(too_long(length, limit))
            position_ids = ops.arange(ops.shape(x)[1])
            if not self.hierarchical:
                return x + ops.cast(ops.take(self.embeddings, position_ids + self.first, axis=0), x.dtype)
        return x + ops.cast(self.lookup(position_ids), x.dtype)

    def lookup(self, position_ids):
        rows = self.max_position**2 if self.hierarchical else self.max_position
        check_numbers(position_ids, rows, f"{self.name}: position")
        if not self.hierarchical:
            return ops.take(self.embeddings, position_ids + self.first, axis=0)
        alpha = 0.4 if self.hierarchical is True else self.hierarchical
        table = self.embeddings[self.first :] if self.first else self.embeddings
        table = (table - alpha * table[:1]) / (1 - alpha)
        major = ops.take(table, position_ids // self.max_position, axis=0)
        return alpha * major + (1 - alpha) * ops.take(table, position_ids % self.max_position, axis=0)

    def compute_output_spec(self, x, position_ids=None):
        return self.symbolic(x.shape)


@keras.saving.register_keras_serializable("bert4x")
class RowEmbedding(Layer):
    """Adds one row of a table to all tokens, such as that of the task in ERNIE.

    Shape: (B, T, E) -> (B, T, E)
    """

    settings = ("rows", "row", "stddev")

    def __init__(self, rows, row=0, stddev=0.02, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows
        self.row = row
        self.stddev = stddev

    def build(self, x_shape):
        shape, start = (self.rows, x_shape[-1]), initializer(self.stddev)
        self.embeddings = self.add_weight(shape=shape, initializer=start, name="embeddings", autocast=False)

    def call(self, x):
        return x + ops.cast(self.embeddings[self.row], x.dtype)

    def compute_output_spec(self, x):
        return self.symbolic(x.shape)


@keras.saving.register_keras_serializable("bert4x")
class RealPositions(Layer):
    """The positions of tokens where padding has none, wherever it stands: how many real ones come before.

    Shape: (B, T, E), whose Keras mask tells padding, (B, T) ids -> (B, T) int32
    """

    def call(self, x, ids, x_mask=None):  # two tensors, as in `Visibility`
        real = ops.ones_like(ids, dtype="int32") if x_mask is None else ops.cast(x_mask, "int32")
        return ops.maximum(ops.cumsum(real, axis=1) - 1, 0)

    def compute_mask(self, x, mask=None):
        return None

    def compute_output_spec(self, x, ids, x_mask=None):
        return self.symbolic(x.shape[:2], "int32")


@keras.saving.register_keras_serializable("bert4x")
class SinusoidalPosition(Layer):
    """Scales embeddings by the square root of their size and adds a fixed vector for each position
    (Vaswani et al. 2017, arXiv 1706.03762, sections 3.4 and 3.5): sin and cos of pos / 10000^(2i / E), in turn.

    Shape: (B, T, E)[, (T,) or (B, T) position ids] -> (B, T, E)
    Raises: InputError when the sequence is longer than `max_position`, and for a position beyond it.
    """

    settings = ("max_position",)

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


@keras.saving.register_keras_serializable("bert4x")
class Bias(Layer):
    """Adds one learned number per feature: the bias of a tied output layer.

    Shape: (..., V) -> (..., V)
    """

    def build(self, x_shape):
        self.bias = self.add_weight(shape=(x_shape[-1],), initializer="zeros", name="bias")

    def call(self, x):
        return x + self.bias

    def compute_output_spec(self, x):
        return self.symbolic(x.shape)
