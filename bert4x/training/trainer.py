"""One update of the weights: loss, gradients, optimizer, average."""

import contextlib
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from bert4x.devices import layout
from bert4x.errors import ConfigError
from bert4x.layers.means import counting, dividing_by
from bert4x.training import compiled
from bert4x.training.compiled import Compiled, Gradients, apply_gradients, divided, no_gradient
from bert4x.training.ema import ExponentialMovingAverage


class Trainer:
    """Takes the steps of training; see `bert4x.training.loop` for what is around them.

    Args:
        model: called with the inputs of a batch.
        loss: (outputs, targets) -> scalar.
        adversary: (trainer, inputs, targets) -> (loss, gradients); see `bert4x.training.adversarial`.
        ema: momentum of the moving average of the weights, or None.
        divergence: (outputs, other outputs) -> scalar, for adversaries that compare outputs.
        gathers: whether an update may be made of several batches, as if they were one. What a loss takes a mean of is
            then counted first, over all of them: of rows, and in `bert4x.layers.means.token_mean`, which the losses of
            bert4x use, of the places that count.
        join: (outputs of batches, targets of batches) -> (outputs, targets) as of one batch, for a loss that compares
            rows with each other, of which there are no shares. Such batches are computed twice: for their outputs, by
            which the loss of all is differentiated, and for the gradients from there on (Gao et al. 2021, arXiv
            2101.06983), so that no more is held than one batch and all outputs.
    Raises: ConfigError for an adversary where batches are joined.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Callable,
        optimizer: keras.optimizers.Optimizer,
        *,
        adversary: Callable | None = None,
        ema: float | None = None,
        divergence: Callable | None = None,
        gathers: bool = False,
        join: Callable | None = None,
    ):
        if gathers and join and adversary:
            raise ConfigError(
                "the loss of this task compares all rows of an update, in several batches: leave out the adversary"
            )
        self.join = join
        self.model, self.criterion, self.optimizer, self.adversary = model, loss, optimizer, adversary
        self.divergence = divergence
        self.outputs = None  # for adversaries: only `KerasStep` keeps them
        self.variables = list(model.trainable_variables)
        optimizer.build(self.variables)
        self.ema = ExponentialMovingAverage(self.variables, ema) if ema else None
        others = [*(self.ema.variables if self.ema else ()), *getattr(adversary, "variables", ())]
        self.kept = [*model.variables, *optimizer.variables, *others]  # what a state of training holds
        # Sums of gradients, empty between updates.
        sums = self.variables if gathers else ()
        self.sums = [
            keras.Variable("zeros", v.shape, v.dtype, trainable=False, name="sum", layout=layout(v)) for v in sums
        ]
        self.state = [*self.kept, *self.sums]
        self._learn = Compiled(self.learn_once, self.state)
        self._count = Compiled(self.count_once, model.variables, assigns=False)
        self._gather = Compiled(self.gather_once, self.state)
        self._update = Compiled(self.update_gathered, self.state)
        self._outputs = Compiled(self.outputs_once, self.state)
        self._joined = Compiled(self.joined_once, self.state)
        self._gather_from = Compiled(self.gather_from, self.state)
        self.counts = gathers  # until the loss turns out to take no mean but that over rows
        self.denominators: list | None = None  # of the means over places, while gradients are gathered

    def learn(self, micro_batches: list, learning_rate: float):
        """One update from the gradient of some batches, (inputs, targets), as if they were one; returns the loss of
        them all. Adversaries are an exception: each batch has a perturbation, or a penalty, of its own.
        """
        self.optimizer.learning_rate = learning_rate
        micro_batches = [divided(batch) for batch in micro_batches]
        if not self.sums:
            (batch,) = micro_batches
            return self._learn(*batch)
        if self.join:
            return self.learn_joined(micro_batches)
        shares = self.shares(micro_batches)
        losses = [
            self._gather(*batch, share, denominators)
            for batch, (share, denominators) in zip(micro_batches, shares, strict=True)
        ]
        self._update()
        return sum(losses)

    def learn_joined(self, micro_batches: list):
        """One update from the loss of all batches joined; what dropout drops is the same both times."""
        seeds = [variable for variable in self.model.variables if "seed_generator" in variable.path]
        outputs, before = [], []
        for inputs, _ in micro_batches:
            before.append([np.array(ops.convert_to_numpy(seed.value)) for seed in seeds])
            outputs.append(self._outputs(inputs))
        after = [np.array(ops.convert_to_numpy(seed.value)) for seed in seeds]
        loss, gradients = self._joined(outputs, [targets for _, targets in micro_batches])
        for (inputs, _), gradient, states in zip(micro_batches, gradients, before, strict=True):
            assign_all(seeds, states)
            self._gather_from(inputs, gradient)
        assign_all(seeds, after)
        self._update()
        return loss

    def shares(self, micro_batches: list) -> list[tuple]:
        """What each batch counts for: its share of all rows, and what each `token_mean` of its loss is to divide by,
        which is its share of all the places that count.
        """
        rows = np.array([len(inputs[0]) for inputs, _ in micro_batches], "float32")
        shares, totals = rows / rows.sum(), []
        if self.counts:
            counts = [self._count(*batch) for batch in micro_batches]
            totals = [ops.maximum(sum(parts), 1.0) for parts in zip(*counts, strict=True)]
            self.counts = bool(totals)
        return [(share, [total * share for total in totals]) for share in shares]

    def averaged(self):
        """A block in which the model has the averaged weights, if there are any."""
        return self.ema.swapped_in() if self.ema else contextlib.nullcontext()

    def predictions(self, inputs, training: bool):
        """What the model gives for a batch."""
        return self.model(list(inputs), training=training)

    def loss(self, inputs, targets):
        """The loss of a batch, in training: with dropout."""
        outputs = self.predictions(inputs, training=True)
        with dividing_by(self.denominators):
            return self.criterion(outputs, targets)

    def value_and_gradients(self, function: Callable, differentiable: bool = False):
        """The value of a function without arguments, and its gradients; those are scaled as the optimizer wants them
        (`keras.optimizers.LossScaleOptimizer`).
        """

        def scaled():
            value = function()
            return self.optimizer.scale_loss(value), value

        (_, value), gradients = compiled.value_and_gradients(scaled, self.variables, self.state, differentiable)
        return value, gradients

    def gradients(self, inputs, targets) -> tuple:
        """Loss and gradients of a batch."""
        if self.adversary is not None:
            return self.adversary(self, inputs, targets)
        return self.value_and_gradients(lambda: self.loss(inputs, targets))

    def update(self, gradients: Gradients) -> None:
        """Applies gradients."""
        apply_gradients(self.optimizer, gradients, self.variables)
        if self.ema:
            self.ema.update()

    def learn_once(self, inputs, targets):
        loss, gradients = self.gradients(inputs, targets)
        self.update(gradients)
        return loss

    def count_once(self, inputs, targets):
        """How many values each `token_mean` of the loss has. Compiled, no more of the model is computed than it takes.

        Shape: scalars
        """
        with counting() as counts:
            self.criterion(self.model(list(inputs), training=False), targets)
        return counts

    def gather_once(self, inputs, targets, share, denominators):
        self.denominators = denominators or None
        try:
            loss, gradients = self.gradients(inputs, targets)
        finally:
            self.denominators = None
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.assign(total.value + ops.cast(share, gradient.dtype) * gradient)
        return share * loss

    def outputs_once(self, inputs):
        with no_gradient():
            return self.model(list(inputs), training=True)

    def joined_once(self, outputs, targets):
        """The loss of all batches, and its gradients by the outputs of each, scaled as the optimizer wants them."""

        def scaled(*outputs):
            loss = self.criterion(*self.join(outputs, targets))
            return self.optimizer.scale_loss(loss), loss

        (_, loss), gradients = compiled.gradients_of(scaled, outputs)
        return loss, gradients

    def gather_from(self, inputs, gradient):
        """Adds up the gradients of a batch, by that of its outputs."""

        def value():
            outputs = self.model(list(inputs), training=True)
            return ops.sum(ops.cast(outputs, "float32") * gradient), ()

        _, gradients = compiled.value_and_gradients(value, self.variables, self.state)
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.assign(total.value + gradient)

    def update_gathered(self):
        self.update([total.value for total in self.sums])
        for total in self.sums:
            total.assign(ops.zeros_like(total.value))


def assign_all(variables: list, values: list) -> None:
    """Gives each variable its value."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
