"""Gradients by what a layer gives, on each backend."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras

from bert4x.training.compiled import unique


@contextlib.contextmanager
def replaced_output(layer: keras.layers.Layer, replace: Callable) -> Iterator[None]:
    """Within the block the first thing that the layer gives is what a function makes of it."""
    call, done = layer.call, []

    def replacing(*args, **kwargs):
        result = call(*args, **kwargs)
        if done:  # the table of a tied head is another use
            return result
        done.append(True)
        return replace(result)

    object.__setattr__(layer, "call", replacing)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def value_and_gradient_by_output(function: Callable, layer: keras.layers.Layer, state: Iterable) -> tuple:
    """What a function without arguments returns, (value, others), and the gradient of the value by what a layer gives,
    which can be differentiated again.

    Args:
        state: all variables that the function reads or changes.
    """
    if keras.backend.backend() == "jax":
        return on_jax(function, layer, unique(state))
    return (on_tensorflow if keras.backend.backend() == "tensorflow" else on_torch)(function, layer)


def on_tensorflow(function, layer):
    """By a tape that watches the output."""
    import tensorflow as tf

    given = []
    with tf.GradientTape() as tape:

        def watched(x):
            tape.watch(x)
            given.append(x)
            return x

        with replaced_output(layer, watched):
            results = function()
    return results, tape.gradient(results[0], given[0])


def on_torch(function, layer):
    """By autograd, with the output as its source."""
    import torch

    given = []

    def watched(x):
        given.append(x if x.requires_grad else x.detach().requires_grad_())  # of a table that is frozen, too
        return given[0]

    with torch.enable_grad(), replaced_output(layer, watched):
        results = function()
    return results, torch.autograd.grad(results[0], given[0], create_graph=True)[0]


def on_jax(function, layer, state):
    """By zeros that are added to the output, and what the value changes with."""
    import jax
    import jax.numpy as jnp

    shapes = []

    def pure(replace, *shift):
        pairs = [(v, v.value) for v in state]
        with (
            keras.StatelessScope(pairs, collect_losses=True) as scope,
            replaced_output(layer, lambda x: replace(x, *shift)),
        ):
            value, others = function()
        return value, (others, [scope.get_current_value(v) for v in state])

    def noted(x):
        shapes.append((x.shape, x.dtype))
        return x

    jax.eval_shape(lambda: pure(noted)[0])
    shifted = jax.value_and_grad(lambda shift: pure(lambda x, s: x + s, shift), has_aux=True)
    (value, (others, after)), gradient = shifted(jnp.zeros(*shapes[0]))
    for variable, now in zip(state, after, strict=True):
        variable.assign(now)
    return (value, others), gradient
