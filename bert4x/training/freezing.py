"""Which layers train: as when a model was compiled, which is what scripts for Keras 2 expect."""

import functools
from collections.abc import Callable

import keras


def as_compiled(model: keras.Model) -> keras.Model:
    """The model, which from its next `compile` on trains what was trainable then, whatever is frozen later.

    So Keras 2 has it; Keras 3 looks at `trainable` when training begins. BERT-of-Theseus compiles two models over the
    same layers, one of them with these frozen, and trains both.
    """
    states: dict[keras.layers.Layer, bool] = {}
    compiled = model.compile

    @functools.wraps(compiled)
    def compile(*args, **options):
        states.clear()
        states.update(trainable(model))
        return compiled(*args, **options)

    model.compile = compile
    for name in ("fit", "train_on_batch"):
        setattr(model, name, with_states(model, getattr(model, name), states))
    return model


def with_states(model: keras.Model, train: Callable, states: dict) -> Callable:
    """A method that trains while these layers are trainable or not; after it they are as before."""

    @functools.wraps(train)
    def trained(*args, **options):
        before = trainable(model)
        give(states)
        try:
            return train(*args, **options)
        finally:
            give(before)

    return trained


def trainable(model: keras.Model) -> dict:
    """Whether each layer trains, of a layer that holds others before these."""
    return {layer: layer.trainable for layer in model._flatten_layers()}


def give(states: dict) -> None:
    """Makes layers trainable or not; what holds others first, as Keras hands its own on."""
    for layer, value in states.items():
        if layer.trainable != value:
            layer.trainable = value
