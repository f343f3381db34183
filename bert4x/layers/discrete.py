"""Discrete choices that are trained through: Gumbel softmax, and vectors from a codebook."""

from typing import ClassVar

import keras
from keras import ops

from bert4x.errors import ConfigError, nearest


def gumbel_softmax(logits, temperature=1.0, hard: bool = False, seed=None):
    """A draw of a choice that has a gradient (Jang et al. 2016, arXiv 1611.01144; kexue.fm/archives/6705): the softmax
    of logits with Gumbel noise, which is nearer to one-hot the lower the temperature.

    Args:
        hard: one-hot, with the gradient of the soft draw (straight through).
        seed: a number or `keras.random.SeedGenerator`.

    Shape: (..., N) -> the same
    """
    uniform = keras.random.uniform(ops.shape(logits), 1e-9, 1.0, dtype=logits.dtype, seed=seed)
    soft = ops.softmax((logits - ops.log(-ops.log(uniform))) / temperature, axis=-1)
    if not hard:
        return soft
    return straight_through(soft, ops.one_hot(ops.argmax(soft, axis=-1), logits.shape[-1], dtype=soft.dtype))


def straight_through(soft, hard):
    """The values of one, with the gradient of the other."""
    return soft + ops.stop_gradient(hard - soft)


@keras.saving.register_keras_serializable("bert4x")
class VectorQuantizer(keras.layers.Layer):
    """For each vector the nearest of a codebook, and its number (VQ-VAE, van den Oord et al. 2017, arXiv 1711.00937;
    kexue.fm/archives/6760).

    The gradient passes the choice by `through`: "straight", as it comes; or "rotated", turned and stretched as the
    vector was on its way to its code (rotation trick, Fifty et al. 2024, arXiv 2410.06424). The codes learn by a loss
    of the layer: ||sg(z) - e||^2 + commitment ||z - sg(e)||^2.

    Args:
        codes: of the codebook.
        commitment: how much vectors are drawn to their codes.
        linear: the codes are the rows of the codebook times a matrix that is learnt, so that those which are not chosen
            move too, and few remain unused (Zhu et al. 2024, arXiv 2411.02038; kexue.fm/archives/10519).

    Shape: (..., D) -> (..., D), (...) int32
    Raises: ConfigError for another `through`.
    """

    WAYS: ClassVar = ("straight", "rotated")

    def __init__(self, codes: int, commitment: float = 0.25, through: str = "straight", linear: bool = False, **kwargs):
        super().__init__(**kwargs)
        if through not in self.WAYS:
            raise ConfigError(f"no way {through!r} through a choice; {nearest(str(through), self.WAYS)}")
        self.codes, self.commitment, self.through, self.linear = codes, commitment, through, linear

    def build(self, shape):
        start = keras.initializers.RandomNormal(stddev=shape[-1] ** -0.5) if self.linear else "uniform"
        self.codebook = self.add_weight((self.codes, shape[-1]), start, name="codebook")
        if self.linear:
            self.matrix = self.add_weight((shape[-1], shape[-1]), "identity", name="matrix")
        super().build(shape)

    def call(self, z):
        codebook = ops.convert_to_tensor(self.codebook)
        if self.linear:
            codebook = ops.matmul(codebook, self.matrix)
        flat = ops.reshape(z, (-1, z.shape[-1]))
        distances = ops.sum(ops.square(codebook), -1) - 2 * ops.matmul(flat, ops.transpose(codebook))
        numbers = ops.cast(ops.argmin(distances, axis=-1), "int32")
        chosen = ops.take(codebook, numbers, axis=0)
        self.add_loss(
            ops.mean(ops.square(ops.stop_gradient(flat) - chosen))
            + self.commitment * ops.mean(ops.square(flat - ops.stop_gradient(chosen)))
        )
        given = rotated(flat, chosen) if self.through == "rotated" else straight_through(flat, chosen)
        return ops.reshape(given, ops.shape(z)), ops.reshape(numbers, ops.shape(z)[:-1])

    def compute_output_spec(self, z):
        return keras.KerasTensor(z.shape, self.compute_dtype), keras.KerasTensor(z.shape[:-1], "int32")

    def get_config(self):
        own = ("codes", "commitment", "through", "linear")
        return super().get_config() | {name: getattr(self, name) for name in own}


def rotated(z, e):
    """The codes e, by a rotation and a scale of the vectors z that count as constants.

    Shape: (N, D), (N, D) -> (N, D)
    """

    def unit(x):
        return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)

    constant_z, constant_e = ops.stop_gradient(z), ops.stop_gradient(e)
    a, b = unit(constant_z), unit(constant_e)
    middle = unit(a + b)
    norms = [ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12) for x in (constant_e, constant_z)]
    turned = z - 2 * ops.sum(z * middle, -1, keepdims=True) * middle + 2 * ops.sum(z * a, -1, keepdims=True) * b
    return norms[0] / norms[1] * turned


@keras.saving.register_keras_serializable("bert4x")
class FiniteScalarQuantizer(keras.layers.Layer):
    """Each number rounded to one of a few levels: a codebook that need not be learnt (FSQ, Mentzer et al. 2023,
    arXiv 2309.15505; kexue.fm/archives/9826).

    Args:
        levels: of each number of a vector, 2 or more; their product is how many codes there are.

    Shape: (..., D) -> (..., D) within -1 and 1, (...) int32 number of the code; D as many as levels
    Raises: ConfigError for other vectors, and for levels below 2.
    """

    def __init__(self, levels, **kwargs):
        super().__init__(**kwargs)
        self.levels = [int(level) for level in levels]
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(f"levels {levels!r}; expected numbers of 2 or more")

    def build(self, shape):
        if shape[-1] != len(self.levels):
            raise ConfigError(f"vectors of {shape[-1]} numbers, and levels for {len(self.levels)}; expected as many")
        super().build(shape)

    def call(self, z):
        steps = ops.convert_to_tensor([level - 1 for level in self.levels], z.dtype)
        place = steps * ops.sigmoid(z)
        whole = straight_through(place, ops.round(place))
        bases = [1]
        for level in self.levels[:-1]:
            bases.append(bases[-1] * level)
        numbers = ops.sum(ops.cast(ops.round(place), "int32") * ops.convert_to_tensor(bases, "int32"), axis=-1)
        return 2 * whole / steps - 1, numbers

    def compute_output_spec(self, z):
        return keras.KerasTensor(z.shape, self.compute_dtype), keras.KerasTensor(z.shape[:-1], "int32")

    def get_config(self):
        return super().get_config() | {"levels": self.levels}
