"""Two networks that train each other: one makes what the other is to tell from data (GAN, Goodfellow et al. 2014)."""

import keras
from keras import ops

from bert4x.errors import ConfigError, nearest
from bert4x.training.compiled import Compiled, apply_gradients, no_gradient, unique, value_and_gradients


def cross_entropy(real, made):
    """Losses of the judge and of the maker: the judge tells which is data, the maker wants to be taken for data (the
    loss that does not saturate).

    Shape: (B, ...) scores of data, (B, ...) of what was made -> two scalars
    """
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(made)), ops.mean(ops.softplus(-made))


def hinge(real, made):
    """The same with a margin: the judge wants scores above 1 and below -1, the maker high ones.

    Shape: (B, ...), (B, ...) -> two scalars
    """
    return ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + made)), -ops.mean(made)


LOSSES = {"cross_entropy": cross_entropy, "hinge": hinge}


class Rivals:
    """A generator and a discriminator, one update of each in turn, by Adam with a first momentum of 0.5.

    Args:
        generator: a model from vectors of a normal distribution. Shape: (B, Z) -> as data
        discriminator: a model from data to scores, higher for what is taken for true.
        loss: "hinge" or "cross_entropy".
        learning_rate: of both, or of each.

    Raises: ConfigError for another loss.
    """

    def __init__(self, generator, discriminator, loss: str = "hinge", learning_rate=2e-4, seed: int = 0):
        if loss not in LOSSES:
            raise ConfigError(f"no loss {loss!r}; {nearest(str(loss), LOSSES)}")
        self.models, self.loss = (discriminator, generator), LOSSES[loss]
        self.seeds = keras.random.SeedGenerator(seed)
        rates = learning_rate if isinstance(learning_rate, tuple) else (learning_rate, learning_rate)
        self.optimizers = [keras.optimizers.Adam(rate, beta_1=0.5) for rate in reversed(rates)]
        for model, optimizer in zip(self.models, self.optimizers, strict=True):
            optimizer.build(model.trainable_variables)
        self.state = unique([*discriminator.variables, *generator.variables, self.seeds.state])
        self.run = Compiled(self.updates, [*self.state, *(v for o in self.optimizers for v in o.variables)])

    def update(self, data) -> tuple[float, float]:
        """One update of the discriminator, then one of the generator. Returns the loss of each.

        Shape: (B, ...)
        """
        return tuple(float(ops.convert_to_numpy(loss)) for loss in self.run(data))

    def make(self, vectors):
        """What the generator makes of vectors, as it does after training. Shape: (N, Z) -> (N, ...) array"""
        return self.models[1].predict(vectors, batch_size=256, verbose=0)

    def updates(self, data):
        discriminator, generator = self.models

        def vectors():
            return keras.random.normal((data.shape[0], generator.input_shape[-1]), seed=self.seeds)

        with no_gradient():
            made = ops.stop_gradient(generator(vectors(), training=True))

        def judged():
            loss = self.loss(discriminator(data, training=True), discriminator(made, training=True))[0]
            return loss, loss

        def taken():
            scores = discriminator(generator(vectors(), training=True), training=True)
            loss = self.loss(scores, scores)[1]
            return loss, loss

        losses = []
        for function, model, optimizer in zip((judged, taken), self.models, self.optimizers, strict=True):
            (loss, _), gradients = value_and_gradients(function, model.trainable_variables, self.state)
            apply_gradients(optimizer, gradients, model.trainable_variables)
            losses.append(loss)
        return losses
