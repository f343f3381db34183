"""`fit` of a compiled Keras model with the updates of an adversary."""

from collections.abc import Callable

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.training.compiled import apply_gradients, value_and_gradients
from bert4x.training.perturbation import embedding_table


class KerasStep:
    """What an adversary asks of a compiled model, as of a `bert4x.training.trainer.Trainer`: the loss of a batch, its
    gradients, and how far outputs are from others, by the loss that was compiled.

    `labels` and `outputs` are those of the last loss: metrics are made of them.
    """

    def __init__(self, model: keras.Model, adversary: Callable):
        self.model, self.adversary = model, adversary
        self.inputs = self.sample_weight = self.labels = self.outputs = None

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        return self.model.optimizer

    @property
    def variables(self) -> list:
        return self.model.trainable_variables

    @property
    def state(self) -> list:
        """All that an update reads or changes."""
        model, own = self.model, getattr(self.adversary, "variables", ())
        return [*model.variables, *self.optimizer.variables, *model.metrics_variables, *own]

    def predictions(self, inputs, training: bool):
        """What the model gives for a batch."""
        return self.model(inputs, training=training)

    def loss(self, inputs, targets):
        """The loss of a batch, in training: with dropout."""
        return self.divergence(targets, self.predictions(inputs, training=True))

    def divergence(self, labels, outputs):
        """The loss of outputs for labels, which may be other outputs."""
        self.labels, self.outputs = labels, outputs
        return self.model.compute_loss(self.inputs, labels, outputs, self.sample_weight, training=True)

    def value_and_gradients(self, function: Callable, differentiable: bool = False) -> tuple:
        """The value of a function without arguments, and its gradients, scaled as the optimizer wants them."""

        def scaled():
            value = function()
            return self.optimizer.scale_loss(value), (value, self.outputs)

        results, gradients = value_and_gradients(scaled, self.variables, self.state, differentiable)
        _, (value, self.outputs) = results
        return value, gradients

    def learn(self, data) -> dict:
        """One update by the adversary; returns what is shown of loss and metrics."""
        x, y, self.sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.inputs = x
        value, gradients = self.adversary(self, x, y)
        apply_gradients(self.optimizer, gradients, self.variables)
        mean = next(metric for metric in self.model.metrics if metric.name == "loss")
        mean.update_state(value, sample_weight=ops.shape(keras.tree.flatten(x)[0])[0])
        return self.model.compute_metrics(x, self.labels, self.outputs, self.sample_weight)

    def learn_stateless(self, state, data) -> tuple:
        """The same for JAX: the state goes in and comes out."""
        model, optimizer = self.model, self.optimizer
        groups = [
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
            model.metrics_variables,
        ]
        pairs = [pair for group, values in zip(groups, state, strict=True) for pair in zip(group, values, strict=True)]
        step = next(value for variable, value in pairs if variable is optimizer.iterations)
        # Keras' state of training has no place for an adversary's own, seeds: they are those of the step.
        own = [(v, v.value + ops.cast(step, v.dtype)) for v in getattr(self.adversary, "variables", ())]
        with keras.StatelessScope([*pairs, *own]) as scope:
            logs = self.learn(data)
        return logs, tuple([scope.get_current_value(variable) for variable in group] for group in groups)


def train_against(model: keras.Model, adversary: Callable) -> None:
    """Makes `fit` and `train_on_batch` of a compiled Keras model learn what an adversary makes of each batch.

    Args:
        adversary: one of `bert4x.training.adversarial`.
    Raises: ConfigError when the model is not compiled, or has no embeddings of the adversary's name.
    """
    if getattr(model, "optimizer", None) is None:
        raise ConfigError("this model has no optimizer; call adversarial_training after model.compile(...)")
    embedding_table(model, adversary.layer)
    step = KerasStep(model, adversary)
    model.optimizer.build(model.trainable_variables)
    model.train_step = step.learn_stateless if keras.backend.backend() == "jax" else step.learn
    model.train_function = None  # one that is compiled already trains otherwise
