"""Normalisation: of layers, plain and conditional, and by the root mean square."""

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.layers.base import Layer, activation
from bert4x.layers.gradients import layer_normalization


@keras.saving.register_keras_serializable("bert4x")
class LayerNorm(Layer):
    """Layer normalisation (Ba et al. 2016, arXiv 1607.06450), computed in float32 whatever the policy.

    With `conditional=True` it takes `(x, condition)`: scale and offset get a term linear in the condition, starting at
    zero so that a loaded model is unchanged (Su, kexue.fm/archives/7124). `hidden_units` puts one shared dense layer
    with `hidden_activation` before both projections.

    Shape: (B, T, D)[, (B, C) or (B, T, C)] -> (B, T, D)
    """

    has_offset = True

    def __init__(self, epsilon=1e-12, conditional=False, hidden_units=None, hidden_activation="linear", **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.conditional = conditional
        self.hidden_units = hidden_units
        self.hidden_activation = hidden_activation

    def build(self, x_shape, condition_shape=None):
        size = x_shape[-1]
        self.gamma = self.add_weight(shape=(size,), initializer="ones", name="gamma", autocast=False)
        if self.has_offset:
            self.beta = self.add_weight(shape=(size,), initializer="zeros", name="beta", autocast=False)
        if self.conditional:
            self.build_condition(size, condition_shape)

    def build_condition(self, size, condition_shape):
        """The dense layers from the condition to scale and offset."""
        if self.hidden_units:
            act, start = activation(self.hidden_activation), "glorot_uniform"
            self.hidden_dense = self.new_dense("hidden_dense", self.hidden_units, condition_shape, act, False, start)
            condition_shape = (*condition_shape[:-1], self.hidden_units)
        self.gamma_dense = self.new_dense("gamma_dense", size, condition_shape, use_bias=False)
        if self.has_offset:
            self.beta_dense = self.new_dense("beta_dense", size, condition_shape, use_bias=False)

    def condition_of(self, x, condition):
        """The condition as the dense layers read it. Shape: (B, C) or (B, T, C) -> (B, 1 or T, C)"""
        if self.hidden_units:
            condition = self.hidden_dense(condition)
        return condition[:, None, :] if len(condition.shape) == len(x.shape) - 1 else condition

    def call(self, x, condition=None):
        gamma = ops.cast(self.gamma, "float32")
        beta = ops.cast(self.beta, "float32") if self.has_offset else None
        if not self.conditional:
            normed = layer_normalization(ops.cast(x, "float32"), gamma, beta, epsilon=self.epsilon)
            return ops.cast(normed, self.compute_dtype)
        condition = self.condition_of(x, condition)
        gamma = gamma + ops.cast(self.gamma_dense(condition), "float32")
        normed = layer_normalization(ops.cast(x, "float32"), epsilon=self.epsilon) * gamma
        if self.has_offset:
            normed = normed + (beta + ops.cast(self.beta_dense(condition), "float32"))
        return ops.cast(normed, self.compute_dtype)

    def compute_output_spec(self, x, condition=None):
        return self.symbolic(x.shape)


@keras.saving.register_keras_serializable("bert4x")
class ScaleNorm(LayerNorm):
    """Layer normalisation with a scale alone, without an offset."""

    has_offset = False


@keras.saving.register_keras_serializable("bert4x")
class RMSNorm(LayerNorm):
    """x / sqrt(mean(x^2) + epsilon) times a learned scale (Zhang and Sennrich 2019, arXiv 1910.07467), in float32; with
    `scale=False` it learns nothing. Conditional as `LayerNorm` is, but only the scale.

    Shape: (..., D)[, (B, C) or (B, T, C)] -> (..., D)
    Raises: ConfigError for a condition without a scale.
    """

    has_offset = False

    def __init__(self, epsilon=1e-6, scale=True, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)
        self.scale = scale
        if self.conditional and not scale:
            raise ConfigError("scale=False leaves nothing that a condition could change; expected conditional=False")

    def build(self, x_shape, condition_shape=None):
        if self.scale:
            super().build(x_shape, condition_shape)

    def call(self, x, condition=None):
        wide, gamma = ops.cast(x, "float32"), ops.cast(self.gamma, "float32") if self.scale else None
        if not self.conditional:
            return ops.cast(ops.rms_normalization(wide, gamma, epsilon=self.epsilon), self.compute_dtype)
        gamma = gamma + ops.cast(self.gamma_dense(self.condition_of(x, condition)), "float32")
        return ops.cast(ops.rms_normalization(wide, epsilon=self.epsilon) * gamma, self.compute_dtype)
