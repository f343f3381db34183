"""Sequences and batches put together and divided, and the maximum over real tokens: layers of bert4keras' scripts."""

import keras
from keras import ops

from bert4x.layers.base import Layer

PADDED = -1e9  # less than any hidden state


@keras.saving.register_keras_serializable("bert4x")
class Concatenate1D(Layer):
    """Sequences one after the other; of those without a mask all tokens are real.

    Shape: [(B, T, D), (B, S, D), ...] -> (B, T + S + ..., D)
    """

    def call(self, inputs):
        return ops.concatenate(inputs, axis=1)

    def compute_mask(self, inputs, mask=None):
        if mask is None or all(one is None for one in mask):
            return None
        real = [ops.ones_like(x[..., 0], "bool") if m is None else m for x, m in zip(inputs, mask, strict=True)]
        return ops.concatenate(real, axis=1)

    def compute_output_spec(self, inputs):
        lengths = [x.shape[1] for x in inputs]
        batch, _, size = inputs[0].shape
        return self.symbolic((batch, None if None in lengths else sum(lengths), size), inputs[0].dtype)


@keras.saving.register_keras_serializable("bert4x")
class BatchSplit(Layer):
    """A batch, or each of several tensors, in as many parts as `parts` says, or in the shares that it lists; the last
    part has what is left. Of several tensors all parts of the first come first.

    Shape: (B, ...) -> a list of (b, ...)
    """

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, inputs):
        if isinstance(inputs, list | tuple):
            return [part for one in inputs for part in self.call(one)]
        rows = ops.shape(inputs)[0]
        shares = self.parts if isinstance(self.parts, list | tuple) else None
        count, total = (len(shares), sum(shares)) if shares else (self.parts, self.parts)
        ends = [
            rows * sum(shares[: i + 1]) // total if shares else -(-rows // count) * (i + 1) for i in range(count - 1)
        ]
        bounds = [0, *ends, rows]
        return [inputs[bounds[i] : bounds[i + 1]] for i in range(count)]

    def compute_mask(self, inputs, mask=None):
        masks = mask if isinstance(mask, list | tuple) else [mask]
        count = len(self.parts) if isinstance(self.parts, list | tuple) else self.parts
        return [part for one in masks for part in ([None] * count if one is None else self.call(one))]

    def compute_output_spec(self, inputs):
        several = inputs if isinstance(inputs, list | tuple) else [inputs]
        count = len(self.parts) if isinstance(self.parts, list | tuple) else self.parts
        return [self.symbolic((None, *x.shape[1:]), x.dtype) for x in several for _ in range(count)]


@keras.saving.register_keras_serializable("bert4x")
class BatchConcat(Layer):
    """Batches one after the other. Shape: a list of (b, ...) -> (B, ...)"""

    def call(self, inputs):
        return ops.concatenate(inputs, axis=0)

    def compute_mask(self, inputs, mask=None):
        return None if mask is None or any(one is None for one in mask) else ops.concatenate(mask, axis=0)

    def compute_output_spec(self, inputs):
        return self.symbolic((None, *inputs[0].shape[1:]), inputs[0].dtype)


@keras.saving.register_keras_serializable("bert4x")
class GlobalMaxPooling1D(keras.layers.GlobalMaxPooling1D):
    """The maximum over real tokens. Shape: (B, T, D) -> (B, D)"""

    def __init__(self, data_format=None, **kwargs):
        super().__init__(data_format=data_format, **kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is not None:
            axis = -1 if self.data_format == "channels_last" else 1
            inputs = ops.where(ops.expand_dims(ops.cast(mask, "bool"), axis), inputs, ops.cast(PADDED, inputs.dtype))
        return super().call(inputs)

    def compute_mask(self, inputs, mask=None):
        return None
