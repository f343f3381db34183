"""The embedding table that an adversary moves: finding it, its gradient, moving it and putting it back."""

import contextlib
from collections.abc import Callable, Iterator

import keras
from keras import ops

from bert4x.errors import ConfigError, nearest
from bert4x.training.compiled import no_gradient, value_and_gradients
from bert4x.training.outputs import value_and_gradient_by_output

TABLE = "Embedding-Token"


def embedding_table(model: keras.Model, name: str = TABLE) -> keras.Variable:
    """The variable of the embedding layer of this name, wherever in the model it is.

    Shape: (V, E)
    Raises: ConfigError
    """
    layer = layer_named(model, name)
    table = next((variable for variable in layer.weights if variable.name == "embeddings"), None)
    if table is None or table.dtype == "int8":
        what = "has no embeddings" if table is None else "has embeddings of int8; load the model without quantize"
        raise ConfigError(f"the layer {name!r} {what}; expected a table of floats that can be perturbed")
    return table


def layer_named(model: keras.Model, name: str = TABLE) -> keras.layers.Layer:
    """The layer of this name, wherever in the model it is.

    Raises: ConfigError
    """
    found = {layer.name: layer for layer in all_layers(model)}
    if name not in found:
        held = [n for n, layer in found.items() if isinstance(layer, keras.layers.Embedding)]
        raise ConfigError(f"no layer {name!r} in the model {model.name!r}; {nearest(name, held or found)}")
    return found[name]


def all_layers(model) -> Iterator:
    """The layers of a model, and of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def table_gradient(step, function: Callable, table, differentiable: bool = False) -> tuple:
    """What a function without arguments returns, and its gradient by the table; without the optimizer's scale.

    Shape: scalar, (V, E) float32
    """
    with differentiable_table(table):
        results, (gradient,) = value_and_gradients(scaled(step, function), [table], step.state, differentiable)
    return unscaled(step, results, gradient)


def vectors_gradient(step, function: Callable, layer: keras.layers.Layer) -> tuple:
    """The same by what an embedding layer gives for the tokens of a batch; it can be differentiated again.

    Shape: scalar, (B, T, E) float32
    """
    results, gradient = value_and_gradient_by_output(scaled(step, function), layer, step.state)
    return unscaled(step, results, gradient)


def scaled(step, function: Callable) -> Callable:
    """The function, whose value the optimizer scales; beside it the value itself, and the outputs it is of."""

    def run():
        value = function()
        return step.optimizer.scale_loss(value), (value, step.outputs)

    return run


def unscaled(step, results: tuple, gradient) -> tuple:
    """The value of a function that was `scaled`, and the gradient by itself. The step has the outputs."""
    _, (value, step.outputs) = results
    return value, ops.cast(gradient, "float32") / step.optimizer.scale_loss(ops.ones(()))


@contextlib.contextmanager
def differentiable_table(table) -> Iterator[None]:
    """Within the block PyTorch has gradients by the table, though it be frozen."""
    trainable = table.trainable
    table.trainable = True
    try:
        yield
    finally:
        table.trainable = trainable


@contextlib.contextmanager
def perturbed(table, delta) -> Iterator[None]:
    """Within the block the table is moved by delta; afterwards it is what it was, bit for bit.

    Shape: (V, E)
    """
    with no_gradient():
        original = ops.copy(table.value)
        table.assign(original + ops.cast(delta, table.dtype))
    try:
        yield
    finally:
        table.assign(original)


def unit(gradient):
    """A gradient over its L2 norm; zeros where that is zero or not finite, which leaves the table as it is.

    Shape: any -> the same, float32
    """
    gradient = ops.cast(gradient, "float32")
    peak = ops.max(ops.abs(gradient))  # first, so that no square underflows
    gradient = gradient / ops.where(peak > 0, peak, 1.0)
    norm = ops.sqrt(ops.sum(ops.square(gradient)))
    usable = ops.logical_and(ops.isfinite(norm), norm > 0)
    return ops.where(usable, gradient / ops.where(usable, norm, 1.0), 0.0)
