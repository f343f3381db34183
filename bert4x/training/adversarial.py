"""Training against the worst perturbation of the token embeddings, or against the slope towards it.

An adversary is called with a step (`bert4x.training.trainer.Trainer`) and a batch, and returns the loss and the
gradients of an update. It may move the embedding table meanwhile; afterwards the table is what it was, bit for bit, and
so is it where a pass overflowed: the gradients then are not finite, and `keras.optimizers.LossScaleOptimizer` leaves
the update out. Every pass in training draws its own dropout, as published.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import keras
from keras import ops

from bert4x.errors import ConfigError, nearest
from bert4x.layers.gradients import differentiated_twice
from bert4x.training.compiled import Gradients, no_gradient
from bert4x.training.keras_step import train_against
from bert4x.training.perturbation import (
    TABLE,
    all_layers,
    embedding_table,
    layer_named,
    perturbed,
    table_gradient,
    unit,
    vectors_gradient,
)


@dataclass(frozen=True)
class Adversary:
    """Base of all: numbers are checked, and are what an option's text gives in order.

    Raises: ConfigError for a number that is not positive and finite.
    """

    def __post_init__(self):
        for name, value in numbers(self).items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{type(self).__name__}: {name} = {value!r}; expected a positive, finite number")

    def __call__(self, step, inputs, targets) -> tuple[object, Gradients]:
        """The loss of a batch and its gradients by `step.variables`, scaled as the optimizer wants them."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it does to a batch")


@dataclass(frozen=True)
class FGM(Adversary):
    """The fast gradient method (Miyato, Dai and Goodfellow 2017, arXiv 1605.07725) on the embedding table.

    delta = epsilon * g / |g| over the whole table, g being the gradient of the loss. The update is made of the
    gradients at the perturbed point alone, and the loss is the one there (Su, kexue.fm/archives/7234); other
    implementations add the gradients at the clean one. Costs two passes.
    """

    epsilon: float = 0.5
    layer: str = TABLE

    def __call__(self, step, inputs, targets):
        table = embedding_table(step.model, self.layer)

        def loss():
            return step.loss(inputs, targets)

        with perturbed(table, self.perturbation(step, loss, table)):
            return step.value_and_gradients(loss)

    def perturbation(self, step, loss: Callable, table):
        """Shape: (V, E)"""
        return self.epsilon * unit(table_gradient(step, loss, table)[1])


@dataclass(frozen=True)
class PGD(FGM):
    """Projected gradient descent (Madry et al. 2018, arXiv 1706.06083) in the L2 norm.

    `steps` times the perturbation goes `alpha` along the gradient where it is, and back into the ball of radius
    epsilon. The update is made of the gradients at the last point. Costs `steps` + 1 passes.
    """

    epsilon: float = 1.0
    alpha: float = 0.3
    steps: int = 3

    def perturbation(self, step, loss, table):
        delta = ops.zeros(table.shape, "float32")
        for _ in range(self.steps):
            with perturbed(table, delta):
                _, gradient = table_gradient(step, loss, table)
            delta = delta + self.alpha * unit(gradient)
            norm = ops.sqrt(ops.sum(ops.square(delta)))
            delta = delta * ops.minimum(1.0, self.epsilon / ops.maximum(norm, self.epsilon))
        return delta


@dataclass(frozen=True)
class GradientPenalty(Adversary):
    """Adds epsilon / 2 * |dL/dE|^2 to the loss L, E being the embedding table: what the fast gradient method adds to
    it in first order (Su, kexue.fm/archives/7234). The gradients are of second order, which TensorFlow does not have
    for a model with `recompute=True`.

    Raises: ConfigError for such a model on TensorFlow.
    """

    epsilon: float = 1.0
    layer: str = TABLE

    def __call__(self, step, inputs, targets):
        self.check(step.model)

        def penalized():
            with differentiated_twice():
                loss, slope = self.slope(step, lambda: step.loss(inputs, targets))
            return loss + self.epsilon / 2 * ops.sum(ops.square(slope))

        return step.value_and_gradients(penalized)

    def slope(self, step, loss: Callable) -> tuple:
        """The loss, and its gradient by the table, which can be differentiated again."""
        return table_gradient(step, loss, embedding_table(step.model, self.layer), differentiable=True)

    def check(self, model):
        if keras.backend.backend() == "tensorflow" and any(getattr(x, "recompute", False) for x in all_layers(model)):
            raise ConfigError(
                "TensorFlow has no gradient penalty for a model loaded with recompute=True; load it without, or take "
                "another adversary: the fast gradient method ('fgm') does about the same"
            )


@dataclass(frozen=True)
class TokenGradientPenalty(GradientPenalty):
    """The same with the gradient by the vectors of the tokens of a batch, as bert4keras' script has it."""

    def slope(self, step, loss):
        """The loss, and its gradient by what the embedding layer gives. Shape: (B, T, E)"""
        return vectors_gradient(step, loss, layer_named(step.model, self.layer))


@dataclass(frozen=True)
class VAT(Adversary):
    """Virtual adversarial training (Miyato et al. 2018, arXiv 1704.03976): adds to the loss how far the outputs move
    under the perturbation that moves them most, found by power iteration from noise (Su, kexue.fm/archives/7466).

    `step.divergence` compares the outputs. Those passes are without dropout: at no perturbation, where the method
    takes it to be 0, the divergence would be that of two dropout masks. Costs `steps` + 2 passes and a forward one.
    """

    epsilon: float = 1.0
    xi: float = 10.0
    steps: int = 1
    layer: str = TABLE
    seeds: keras.random.SeedGenerator = field(default_factory=keras.random.SeedGenerator, compare=False, repr=False)

    @property
    def variables(self) -> list:
        """What a state of training must hold."""
        return [self.seeds.state]

    def __call__(self, step, inputs, targets):
        divergence, worst = self.worst(step, inputs)
        loss, gradients = step.value_and_gradients(lambda: step.loss(inputs, targets))
        with worst:
            moved, others = step.value_and_gradients(divergence)
        return loss + moved, [ours + theirs for ours, theirs in zip(gradients, others, strict=True)]

    def worst(self, step, inputs):
        """How far the outputs are from what they are now, as a function, and a block in which the table is moved so
        that they move most.
        """
        table = embedding_table(step.model, self.layer)
        with no_gradient():
            clean = keras.tree.map_structure(ops.stop_gradient, step.predictions(inputs, training=False))

        def divergence(training=False):
            return step.divergence(clean, step.predictions(inputs, training))

        direction = unit(keras.random.normal(table.shape, seed=self.seeds))
        for _ in range(self.steps):
            with perturbed(table, self.xi * direction):
                direction = unit(table_gradient(step, divergence, table)[1])
        return divergence, perturbed(table, self.epsilon * direction)


@dataclass(frozen=True)
class UnlabelledVAT(VAT):
    """The divergence alone, with dropout in the pass that is learned from: an update from texts without labels, as in
    bert4keras' script.
    """

    def __call__(self, step, inputs, targets):
        divergence, worst = self.worst(step, inputs)
        with worst:
            return step.value_and_gradients(lambda: divergence(training=True))


ADVERSARIES = {"fgm": FGM, "pgd": PGD, "gradient-penalty": GradientPenalty, "vat": VAT}


def read_adversary(text: str | None) -> Adversary | None:
    """The adversary that an option names: "fgm", "fgm:0.5", "pgd:1:0.3:3" (epsilon, alpha, steps), "gradient-penalty:1"
    or "vat:1:10:1" (epsilon, xi, steps); None for none.

    Raises: ConfigError
    """
    if text is None:
        return None
    name, *given = text.split(":")
    if name not in ADVERSARIES:
        raise ConfigError(f"no adversary {name!r}; {nearest(name, ADVERSARIES)}")
    cls = ADVERSARIES[name]
    taken = [(f.name, f.type) for f in fields(cls) if f.type in (int, float)]
    if len(given) > len(taken):
        expected = ":".join([name, *(name for name, _ in taken)])
        raise ConfigError(f"{text!r} gives {len(given)} numbers; expected at most {expected}")
    values = {}
    for (parameter, kind), number in zip(taken, given, strict=False):
        try:
            values[parameter] = kind(number)
        except ValueError as error:
            raise ConfigError(f"{text!r}: {parameter} is {number!r}; expected a number, {kind.__name__}") from error
    return cls(**values)


def adversarial_training(model: keras.Model, embedding_name: str = TABLE, epsilon: float = 0.5) -> None:
    """Makes `fit` of a compiled Keras model train by the fast gradient method; the function of this name that scripts
    for bert4keras carry (Su, kexue.fm/archives/7234). Loss and metrics are those at the perturbed point, as there.

    It holds until another adversary is called for, also for another `compile`.

    Raises: ConfigError when the model is not compiled, or has no such embeddings.
    """
    train_against(model, FGM(epsilon, embedding_name))


def gradient_penalty(model: keras.Model, embedding_name: str = TABLE, epsilon: float = 1.0) -> None:
    """Makes `fit` of a compiled Keras model add epsilon / 2 * |dL/dx|^2 to its loss L, x being the vectors that the
    embedding layer gives, one for each token of the batch: the loss of bert4keras' script (Su, kexue.fm/archives/7234),
    in which, unlike `GradientPenalty`, a token that stands twice counts twice. It is part of the loss that is shown.

    Raises: ConfigError as `adversarial_training`.
    """
    train_against(model, TokenGradientPenalty(epsilon, embedding_name))


def virtual_adversarial_training(
    model: keras.Model, embedding_name: str = TABLE, epsilon: float = 1.0, xi: float = 10.0, iters: int = 1
) -> None:
    """Makes `fit` and `train_on_batch` of a compiled Keras model learn from texts without labels: its loss compares
    what it gives under the worst perturbation with what it gives without (Su, kexue.fm/archives/7466). Compile it with
    a loss between distributions, "kld" for example; labels are not looked at.

    Raises: ConfigError as `adversarial_training`.
    """
    train_against(model, UnlabelledVAT(epsilon, xi, iters, embedding_name))


def numbers(adversary) -> dict[str, float]:
    """The numbers an adversary has, by name."""
    return {f.name: getattr(adversary, f.name) for f in fields(adversary) if f.type in (int, float)}
