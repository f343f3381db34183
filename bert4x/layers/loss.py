"""A loss as a layer: for what `compile(loss=...)` cannot say."""

import types

import keras
from keras import ops, tree

from bert4x.layers.base import Layer

ROWS = 2520  # divides by all numbers to 10: losses take every second row, as R-Drop's, or rows in groups
IDS = ("Input-Token", "Input-Segment", "Input-Position", "Input-Target")  # a model's inputs; names may have a prefix


@keras.saving.register_keras_serializable("bert4x")
class Loss(Layer):
    """bert4keras' way to train on a loss of several tensors: subclass it and write `compute_loss`; the model is then
    compiled without a loss.

        class CrossEntropy(Loss):
            def compute_loss(self, inputs, mask=None):
                ids, real, probabilities = inputs
                ...
                return scalar

        output = CrossEntropy(output_axis=2)([*model.inputs, model.output])
        training = keras.Model(model.inputs, output)
        training.compile(optimizer)

    The layer gives its inputs as they are: all of them, or those that `output_axis` numbers (one number or a list).

    `compute_loss` gets them and their Keras masks, (B, T) bool or None; `mask[i]` of what a model outputs tells real
    tokens, of its inputs it is None. Integer ids that come straight from a model's inputs arrive as float32, as all of
    bert4keras' inputs are, so that `loss * segment_ids` is a product of floats. Within it, `self.add_metric(value,
    name="accuracy")` has a mean of the value in what `fit` and `evaluate` report.

    Shape: tensors of any shape -> the same
    """

    def __init__(self, output_axis=None, **kwargs):
        super().__init__(**kwargs)
        self.output_axis = output_axis
        self.named = types.SimpleNamespace(metrics={}, values={})  # in which Keras does not look for state
        self.float_inputs: tuple[int, ...] = ()

    def compute_loss(self, inputs, mask=None):
        """The loss of a batch. Shape: -> ()"""
        raise NotImplementedError(f"{type(self).__name__} does not say what its loss is: write compute_loss in it")

    def call(self, inputs, mask=None):
        given = inputs
        if self.float_inputs:
            given = [ops.cast(x, "float32") if i in self.float_inputs else x for i, x in enumerate(inputs)]
        self.add_loss(self.compute_loss(given, mask))
        return self.chosen(inputs)

    def chosen(self, values):
        """Those of a list of inputs, or of their masks, that the layer gives."""
        if self.output_axis is None or values is None:
            return values
        if isinstance(self.output_axis, list | tuple):
            return [values[i] for i in self.output_axis]
        return values[self.output_axis]

    def compute_mask(self, inputs, mask=None):
        return self.chosen(mask)

    def compute_output_spec(self, inputs, mask=None):
        if isinstance(inputs, list | tuple):
            self.float_inputs = tuple(i for i, x in enumerate(inputs) if is_ids(x))
        given, masks = (tree.map_structure(trial, values) for values in (inputs, mask))
        super().compute_output_spec(given, mask=masks)  # a trial, in which metrics are made, and errors are seen
        return tree.map_structure(lambda x: self.symbolic(x.shape, x.dtype), self.chosen(inputs))

    def add_metric(self, value, name=None, aggregation="mean"):
        """Reports the mean of a value over the batches. Shape: any -> its mean in each batch"""
        name = name or f"{self.name}_metric"
        if name not in self.named.metrics:
            self.named.metrics[name] = keras.metrics.Mean(name=name)
            if keras.backend.backend() == "jax":
                self._tracker.unlock()
                self.named.values[name] = self.add_weight(
                    shape=(), dtype="float32", initializer="zeros", trainable=False, name=f"last_{name}"
                )
                self._tracker.lock()
        value = ops.stop_gradient(ops.mean(ops.cast(value, "float32")))
        if name in self.named.values:
            self.named.values[name].assign(value)
        else:
            self.named.metrics[name].update_state(value)

    def update_metrics(self):
        """On JAX: takes the values of the batch. While a layer computes, JAX lets it change weights, but no metrics."""
        for name, value in self.named.values.items():
            self.named.metrics[name].update_state(value)

    @property
    def metrics(self):
        return [*super().metrics, *self.named.metrics.values()]


def trial(x):
    """A symbolic tensor of `ROWS` rows in place of one of any number; Keras tries odd numbers on PyTorch."""
    known = x is None or not x.shape or x.shape[0] is not None
    return x if known else keras.KerasTensor((ROWS, *x.shape[1:]), x.dtype)


@keras.saving.register_keras_serializable("bert4x")
class AddedLoss(Loss):
    """A loss that was computed before, and comes last. See `with_loss`."""

    def compute_loss(self, inputs, mask=None):
        return inputs[-1]


def with_loss(model: keras.Model, loss) -> keras.Model:
    """A model of the same inputs and outputs that also trains on a loss computed from these symbolic tensors: Keras 2's
    `model.add_loss(loss)`.

    Shape: loss () symbolic
    """
    outputs = AddedLoss(list(range(len(model.outputs))))([*model.outputs, loss])
    return keras.Model(model.inputs, outputs if len(model.outputs) > 1 else outputs[0])


def is_ids(x) -> bool:
    """Whether a tensor is an integer input of one of our models."""
    history = getattr(x, "_keras_history", None)
    if history is None or not isinstance(history.operation, keras.layers.InputLayer):
        return False
    return keras.backend.is_int_dtype(x.dtype) and history.operation.name.endswith(IDS)
