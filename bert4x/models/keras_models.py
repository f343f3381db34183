"""What Keras' own models on top of ours, as `keras.Model(model.inputs, ...)` makes them, also take."""

import functools
import warnings
from collections.abc import Callable

import keras
from keras import ops
from keras.src.models.functional import Functional

from bert4x.layers.loss import ROWS, Loss
from bert4x.models.inputs import INPUT_NAMES, as_arrays, standardize


def extend_keras(ours: type) -> None:
    """Lets Keras' Functional models take what those of the class `ours` take; other models are as they were."""
    Functional.__call__ = take_names(Functional.__call__, ours)
    Functional.call = take_names(Functional.call, ours)  # which training and predicting on JAX call at once
    Functional.predict = take_lists(Functional.predict)
    Functional.compute_loss = by_labels(Functional.compute_loss)
    keras.layers.Lambda.compute_output_shape = by_rows(keras.layers.Lambda.compute_output_shape)


def by_rows(compute_output_shape: Callable) -> Callable:
    """The shape that a `Lambda` gives, where its function takes every second row of a batch, as sentence vectors of
    pairs do: outside TensorFlow Keras tries numbers of rows by which such functions do not divide.
    """

    @functools.wraps(compute_output_shape)
    def computed(self, input_shape):
        try:
            return compute_output_shape(self, input_shape)
        except NotImplementedError:
            shapes = keras.tree.map_shape_structure(lambda shape: (shape[0] or ROWS, *shape[1:]), input_shape)
            found = compute_output_shape(self, shapes)
            return keras.tree.map_shape_structure(lambda shape: (None, *shape[1:]) if shape else shape, found)

    return computed


def take_names(call: Callable, ours: type) -> Callable:
    """Keras' call of a Functional model, which for a model over ours, as `keras.Model(model.inputs, ...)` makes it,
    also takes the dict that ours takes. Keras itself knows inputs only by the names of their layers.
    """

    @functools.wraps(call)
    def called(self, inputs, *args, **kwargs):
        if isinstance(inputs, dict) and not isinstance(self, ours):
            names = [tensor.name for tensor in self.inputs]
            over_ours = any(name.endswith(INPUT_NAMES["token_ids"]) for name in names)
            if over_ours and not set(names) <= set(inputs):
                inputs, mask = standardize(self, inputs, kwargs.pop("mask", None))
                if mask is not None:
                    with warnings.catch_warnings():  # Keras says that the mask ends at the model; within, it counts
                        warnings.filterwarnings("ignore", message=".*does not support masking")
                        return call(self, inputs, *args, mask=mask, **kwargs)
        return call(self, inputs, *args, **kwargs)

    return called


def take_lists(predict: Callable) -> Callable:
    """Keras' `predict` of a Functional model, which also takes nested Python lists, as that of Keras 2."""

    @functools.wraps(predict)
    def predicted(self, x, *args, **kwargs):
        return predict(self, as_arrays(self, x), *args, **kwargs)

    return predicted


def by_labels(compute_loss: Callable) -> Callable:
    """Keras' loss of a Functional model, where a loss that gives one number a row (`per_row`), as its labels say what
    counts, sees outputs without their masks: Keras would take those, of tokens, for weights of the rows. And the time
    to update the metrics of `Loss` layers.
    """

    @functools.wraps(compute_loss)
    def computed(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, Loss):
                layer.update_metrics()
        outputs, losses = keras.tree.flatten(y_pred), keras.tree.flatten(self.loss)
        losses = losses if len(losses) == len(outputs) else losses * len(outputs)
        if any(gives_rows(loss) for loss in losses):
            pairs = zip(outputs, losses, strict=False)
            bare = [ops.reshape(one, ops.shape(one)) if gives_rows(loss) else one for one, loss in pairs]
            y_pred = keras.tree.pack_sequence_as(y_pred, bare)
        return compute_loss(self, x, y, y_pred, sample_weight, training)

    return computed


def gives_rows(loss) -> bool:
    """Whether a loss, or the one within a `functools.partial`, is marked `per_row`."""
    return getattr(getattr(loss, "func", loss), "per_row", False)
