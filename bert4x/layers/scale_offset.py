"""bert4keras' affine layer and its normalisation, which take their condition in a list."""

import keras
from keras import ops

from bert4x.layers.base import Layer, activation


@keras.saving.register_keras_serializable("bert4x")
class ScaleOffset(Layer):
    """x * gamma + beta, learned for each feature; `scale` and `offset` may be False, or numbers that stay.

    With `conditional=True` it takes `[x, condition]`, and both get a term linear in the condition, which starts at zero
    (Su, kexue.fm/archives/7124); `hidden_units` puts one dense layer before both.

    Shape: (..., D), or [(B, T, D), (B, C) or (B, T, C)] -> the shape of x
    """

    def __init__(
        self,
        scale=True,
        offset=True,
        conditional=False,
        hidden_units=None,
        hidden_activation="linear",
        hidden_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset
        self.conditional = conditional
        self.hidden_units = hidden_units
        self.hidden_activation = hidden_activation
        self.hidden_initializer = keras.initializers.get(hidden_initializer)

    def build(self, input_shape):
        x_shape, condition_shape = input_shape if self.conditional else (input_shape, None)
        size = x_shape[-1]
        if self.offset is True:
            self.beta = self.add_weight(shape=(size,), initializer="zeros", name="beta", autocast=False)
        if self.scale is True:
            self.gamma = self.add_weight(shape=(size,), initializer="ones", name="gamma", autocast=False)
        if self.conditional and self.hidden_units:
            act, start = activation(self.hidden_activation), self.hidden_initializer
            self.hidden_dense = self.new_dense("hidden_dense", self.hidden_units, condition_shape, act, False, start)
            condition_shape = (*condition_shape[:-1], self.hidden_units)
        for name, asked in (("beta_dense", self.offset), ("gamma_dense", self.scale)):
            if self.conditional and asked not in (False, None):
                setattr(self, name, self.new_dense(name, size, condition_shape, use_bias=False))

    def call(self, inputs):
        x, condition = inputs if self.conditional else (inputs, None)
        return ops.cast(self.transform(ops.cast(x, "float32"), condition), self.compute_dtype)

    def transform(self, x, condition):
        """Shape: (..., D) float32 -> the same"""
        if condition is not None and self.hidden_units:
            condition = self.hidden_dense(condition)
        if condition is not None and len(condition.shape) < len(x.shape):
            condition = condition[:, None]
        x = x if self.scale in (False, None) else x * self.learned("gamma", self.scale, condition)
        return x if self.offset in (False, None) else x + self.learned("beta", self.offset, condition)

    def learned(self, name: str, asked, condition):
        """Scale or offset."""
        value = ops.cast(getattr(self, name) if asked is True else asked, "float32")
        return value if condition is None else value + ops.cast(getattr(self, f"{name}_dense")(condition), "float32")

    def compute_mask(self, inputs, mask=None):
        return mask[0] if self.conditional and mask is not None else mask

    def compute_output_spec(self, inputs):
        return self.symbolic((inputs[0] if self.conditional else inputs).shape)


@keras.saving.register_keras_serializable("bert4x")
class LayerNormalization(ScaleOffset):
    """Layer normalisation (Ba et al. 2016, arXiv 1607.06450), with the arguments of bert4keras' layer; with
    `zero_mean=False` it divides by the root mean square. In float32 whatever the policy.

    Shape: (..., D), or with `conditional=True` [(B, T, D), (B, C) or (B, T, C)] -> the shape of x
    """

    def __init__(self, zero_mean=True, unit_variance=True, epsilon=None, **kwargs):
        super().__init__(**kwargs)
        self.zero_mean = zero_mean
        self.unit_variance = unit_variance
        self.epsilon = epsilon or keras.config.epsilon()

    def transform(self, x, condition):
        if self.zero_mean:
            x = x - ops.mean(x, axis=-1, keepdims=True)
        if self.unit_variance:
            x = x / ops.sqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        return super().transform(x, condition)
