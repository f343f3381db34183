"""Layers of networks that generate images against others that judge them (GAN)."""

import keras
from keras import ops

from bert4x.errors import ConfigError


@keras.saving.register_keras_serializable("bert4x")
class SpectralNorm(keras.layers.Wrapper):
    """A layer whose kernel, as a matrix of its outputs, is divided by its largest singular value, so that no input is
    stretched (Miyato et al. 2018, arXiv 1802.05957). The value is found by one power iteration a call, from where
    the last one in training ended; gradients pass through it.

    `keras.layers.SpectralNormalization` (3.15) writes the result into the kernel. With JAX that is lost in training,
    so that the trained model is not normalised; with TensorFlow and PyTorch no gradient passes the division.

    Args:
        layer: a Dense or a convolution, without activation.

    Shape: as the layer's
    Raises: ConfigError for layers with an activation, or without a kernel.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        activation = getattr(layer, "activation", None)
        if activation not in (None, keras.activations.linear):
            raise ConfigError(
                f"{layer.name} has the activation {activation.__name__}; expected none, put it after this"
            )

    def build(self, shape):
        super().build(shape)
        if not hasattr(self.layer, "kernel"):
            raise ConfigError(f"{self.layer.name} has no kernel; expected a Dense or a convolution")
        size = (1, self.layer.kernel.shape[-1])
        self.direction = self.add_weight(size, "random_normal", dtype="float32", trainable=False, name="direction")

    def call(self, x, training=None):
        kernel = ops.cast(self.layer.kernel, "float32")
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        left = ops.stop_gradient(unit(ops.matmul(self.direction, ops.transpose(matrix))))
        right = ops.stop_gradient(unit(ops.matmul(left, matrix)))
        if training:
            self.direction.assign(right)
        largest = ops.cast(ops.sum(ops.matmul(left, matrix) * right), self.compute_dtype)
        bias = self.layer.bias if getattr(self.layer, "use_bias", False) else 0.0
        bias = ops.cast(bias, self.compute_dtype)
        return (self.layer(x) - bias) / largest + bias  # without the bias, outputs are linear in the kernel

    def compute_output_shape(self, shape):
        return self.layer.compute_output_shape(shape)


def unit(x):
    """Rows of length one. Shape: (..., D) -> the same"""
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)


@keras.saving.register_keras_serializable("bert4x")
class SelfModulation(keras.layers.Layer):
    """Batch normalisation whose scale 1 + f(z) and shift g(z) come from the random vector z that an image is made of
    (SELF-MOD, Chen et al. 2018, arXiv 1810.01365; kexue.fm/archives/6549). f and g are networks of one hidden layer.

    Args:
        hidden: size of their hidden layers.
        momentum: of the means that are used after training.

    Shape: (B, ..., D), (B, Z) -> (B, ..., D)
    """

    def __init__(self, hidden: int = 32, momentum: float = 0.9, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.momentum = hidden, momentum

    def build(self, x_shape, z_shape):
        kept = {"dtype": self.dtype_policy}
        self.normal = keras.layers.BatchNormalization(momentum=self.momentum, center=False, scale=False, **kept)
        self.normal.build(x_shape)
        for name in ("scale", "shift"):
            first = keras.layers.Dense(self.hidden, activation="relu", name=f"{name}_hidden", **kept)
            last = keras.layers.Dense(x_shape[-1], name=name, **kept)
            first.build(z_shape)
            last.build((None, self.hidden))
            setattr(self, name, (first, last))

    def call(self, x, z, training=None):
        scale, shift = (
            ops.reshape(last(first(z)), (-1, *[1] * (len(x.shape) - 2), x.shape[-1]))
            for first, last in (self.scale, self.shift)
        )
        return self.normal(x, training=training) * (1 + scale) + shift

    def compute_output_shape(self, x_shape, z_shape):
        return x_shape

    def get_config(self):
        return super().get_config() | {"hidden": self.hidden, "momentum": self.momentum}
