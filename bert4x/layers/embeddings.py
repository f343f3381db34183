"""Embeddings of tokens, one row of a table for all, and the output bias of a language model's head."""

import contextlib
import contextvars
import types

import keras
from keras import ops

from bert4x.layers.base import Layer, LoadsWeights, initializer
from bert4x.layers.limits import check_numbers
from bert4x.layers.quantized import check_int8, int8_matmul

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
    words are taken, too: `mask_zero=True` for `pad_id=0`, `mode="dense"` for `reverse=True`. In the `call` of a
    subclass `embeddings` is a tensor, which may be given other values until it returns.

    Shape: (B, T) ids -> (B, T, E); reversed: (B, T, E) -> (B, T, V)
    Raises: InputError for an id without a row, where ids can be looked at.
    """

    def __init__(self, *args, pad_id=None, mask_zero=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.pad_id = 0 if mask_zero and pad_id is None else pad_id
        self.supports_masking = True
        self.own_call = types.SimpleNamespace(runs=False, embeddings=None)  # a subclass's; Keras tracks nothing in it
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

    def __call__(self, *args, **kwargs):
        self.own_call.runs = type(self).call is not Embedding.call
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self.own_call.runs, self.own_call.embeddings = False, None

    @property
    def embeddings(self):
        if not self.own_call.runs:
            return super().embeddings
        if self.own_call.embeddings is None:  # a Keras variable times an array of float64 would be float64
            self.own_call.embeddings = ops.copy(super().embeddings)
        return self.own_call.embeddings

    @embeddings.setter
    def embeddings(self, values):
        self.own_call.embeddings = values

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


@keras.saving.register_keras_serializable("bert4x")
class RowEmbedding(Layer):
    """Adds one row of a table to all tokens, such as that of the task in ERNIE.

    Shape: (B, T, E) -> (B, T, E)
    """

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
