"""Dilated gated convolutions, and attention as a pool: the parts of DGCNN."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("bert4x")
class DilatedGatedConv(keras.layers.Layer):
    """A gated convolution with a way past it: x (1 - g) + v g, of which values v and gates g see `kernel` tokens that
    stand `rate` apart (Su, kexue.fm/archives/5409). Padding is neither seen nor given.

    Args:
        rate: of dilation.
        kernel: tokens seen.
        drop_gate: share of the gates that are noise in training: of which the rate is drawn as dropout of g.

    Shape: (B, T, D)[, mask (B, T)] -> (B, T, D)
    """

    def __init__(self, rate: int = 1, kernel: int = 3, drop_gate: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.kernel, self.drop_gate, self.supports_masking = rate, kernel, drop_gate, True

    def build(self, shape):
        size = shape[-1]
        self.convolution = keras.layers.Conv1D(
            2 * size, self.kernel, padding="same", dilation_rate=self.rate, name="convolution", dtype=self.dtype_policy
        )
        self.convolution.build(shape)
        self.dropout = keras.layers.Dropout(self.drop_gate, name="gate_dropout", dtype=self.dtype_policy)
        super().build(shape)

    def call(self, x, mask=None, training=None):
        real = None if mask is None else ops.cast(mask, x.dtype)[..., None]
        seen = x if real is None else x * real
        value, gate = ops.split(self.convolved(seen), 2, axis=-1)
        gate = self.dropout(ops.sigmoid(gate), training=training)
        out = seen * (1 - gate) + value * gate
        return out if real is None else out * real

    def convolved(self, x):
        """The convolution as one product with the tokens that each sees, side by side: with PyTorch on a processor,
        training takes two thirds of the time.

        Shape: (B, T, D) -> (B, T, 2 D)
        """
        length, before = ops.shape(x)[1], (self.kernel - 1) * self.rate // 2
        padded = ops.pad(x, ((0, 0), (before, (self.kernel - 1) * self.rate - before), (0, 0)))
        seen = ops.concatenate([padded[:, i * self.rate : i * self.rate + length] for i in range(self.kernel)], axis=-1)
        kernel, bias = (ops.cast(weight, x.dtype) for weight in self.convolution.weights)
        return ops.matmul(seen, ops.reshape(kernel, (-1, kernel.shape[-1]))) + bias

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "kernel": self.kernel, "drop_gate": self.drop_gate}


@keras.saving.register_keras_serializable("bert4x")
class AttentionPooling(keras.layers.Layer):
    """One vector of a text: the mean of its tokens, weighted by softmax(v tanh(W x)) (kexue.fm/archives/5409).

    Shape: (B, T, D)[, mask (B, T)] -> (B, D)
    """

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], shape[-1]), "glorot_uniform", name="kernel")
        self.vector = self.add_weight((shape[-1],), "glorot_uniform", name="vector")
        super().build(shape)

    def call(self, x, mask=None):
        scores = ops.sum(ops.tanh(ops.matmul(x, self.kernel)) * self.vector, axis=-1)
        if mask is not None:
            scores = ops.where(ops.cast(mask, "bool"), scores, -1e4)
        return ops.sum(ops.softmax(scores, axis=-1)[..., None] * x, axis=1)

    def compute_mask(self, x, mask=None):
        return None

    def compute_output_shape(self, shape):
        return shape[0], shape[-1]
