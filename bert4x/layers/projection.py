"""A matrix that is used in both directions."""

import keras
from keras import ops

from bert4x.layers.base import Layer, initializer


@keras.saving.register_keras_serializable("bert4x")
class TiedProjection(Layer):
    """A matrix without bias, and with `reverse=True` its transpose.

    Shape: (B, T, E) -> (B, T, units); reversed: (B, T, units) -> (B, T, E)
    """

    def __init__(self, units, stddev=0.02, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.stddev = stddev

    def build(self, x_shape):
        shape, start = (x_shape[-1], self.units), initializer(self.stddev)
        self.kernel = self.add_weight(shape=shape, initializer=start, name="kernel")

    def call(self, x, reverse=False):
        return ops.matmul(x, ops.transpose(self.kernel) if reverse else self.kernel)

    def compute_output_spec(self, x, reverse=False):
        return self.symbolic((*x.shape[:-1], self.kernel.shape[0] if reverse else self.units))
