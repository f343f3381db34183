"""The position-wise feed-forward network."""

import keras

from bert4x.layers.base import Layer, activation, initializer
from bert4x.layers.recompute import recomputed


@keras.saving.register_keras_serializable("bert4x")
class FeedForward(Layer):
    """Two dense layers with an activation between them (Vaswani et al. 2017, section 3.3).

    With `gated=True` it is a gated linear unit (Shazeer 2020, arXiv 2002.05202): the activation is that of a third
    layer, the gate, by which what the intermediate one gives is multiplied.

    With `recompute=True`, what it computes in training is not kept, but computed again in the backward pass.

    Shape: (B, T, D) -> (B, T, D)
    """

    def __init__(
        self, units, activation="gelu_erf", use_bias=True, stddev=0.02, recompute=False, gated=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.units = units
        self.activation = activation
        self.use_bias = use_bias
        self.stddev = stddev
        self.recompute = recompute
        self.gated = gated

    def build(self, x_shape):
        # Numbers of their own; not a second seed of Keras', which would change what all later layers start with.
        first = initializer(self.stddev)
        second, third = (initializer(self.stddev, seed=first.seed + i) for i in (1, 2))
        act, bias, inner = activation(self.activation), self.use_bias, (*x_shape[:-1], self.units)
        if self.gated:
            self.gate_dense = self.new_dense("gate", self.units, x_shape, act, bias, third)
            act = None
        self.intermediate_dense = self.new_dense("intermediate", self.units, x_shape, act, bias, first)
        self.output_dense = self.new_dense("output", x_shape[-1], inner, None, bias, second)

    def call(self, x, training=None):
        return recomputed(self, self.transform, x) if self.recompute and training else self.transform(x)

    def transform(self, x):
        """Shape: (B, T, D) -> (B, T, D)"""
        inner = self.intermediate_dense(x)
        return self.output_dense(self.gate_dense(x) * inner if self.gated else inner)

    def compute_output_spec(self, x, training=None):
        return self.symbolic(x.shape)
