"""Draws of a normal distribution that is learnt, with a gradient, and how far it is from the standard one."""

import keras
from keras import ops


def normal_divergence(mean, log_variance):
    """The Kullback-Leibler divergence of a normal distribution from the standard one, in nats:
    (m^2 + v - log v - 1) / 2, summed.

    Shape: (..., D), (..., D) -> (...)
    """
    return ops.sum(ops.square(mean) + ops.exp(log_variance) - log_variance - 1, axis=-1) / 2


@keras.saving.register_keras_serializable("bert4x")
class ReparametrizedNormal(keras.layers.Layer):
    """A draw of a normal distribution as mean + deviation x noise, so that both get gradients; the mean itself where
    there is no training (VAE, Kingma and Welling 2013, arXiv 1312.6114; kexue.fm/archives/5253, 5332).

    The divergence from the standard normal distribution is a loss of the layer. Its weight rises from nothing over the
    first updates (annealing, Bowman et al. 2015, arXiv 1511.06349), or a decoder may learn to do without the draw.

    Args:
        weight: of the divergence in the end.
        annealing: updates over which it rises; 0: it is there from the beginning.
        seed: of the noise.

    Shape: (B, D), (B, D) -> (B, D)
    """

    def __init__(self, weight: float = 1.0, annealing: int = 0, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.weight, self.annealing, self.seed = weight, annealing, seed
        self.noise = keras.random.SeedGenerator(seed)
        self.updates = self.add_weight((), "zeros", "float32", trainable=False, name="updates")

    def call(self, mean, log_variance, training=None):
        risen = ops.minimum(self.updates / self.annealing, 1.0) if self.annealing else 1.0
        self.add_loss(self.weight * risen * ops.mean(normal_divergence(mean, log_variance)))
        if not training:
            return mean
        self.updates.assign_add(1.0)
        noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.noise)
        return mean + ops.exp(log_variance / 2) * noise

    def compute_output_shape(self, mean_shape, log_variance_shape):
        return mean_shape

    def get_config(self):
        return super().get_config() | {"weight": self.weight, "annealing": self.annealing, "seed": self.seed}
