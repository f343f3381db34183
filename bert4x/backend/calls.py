"""Whether a layer is called to train, without an argument that says so."""

from collections.abc import Callable
from typing import Any

from keras.src.backend.common.global_state import get_global_attribute


def learning_phase() -> int:
    """1 within a layer or model that is called with training=True, else 0."""
    context = get_global_attribute("current_call_ctx")
    return int(bool(context and context.get_value("training")))


def in_train_phase(x: Any, alt: Any, training: bool | None = None):
    """x in training, else the alternative: tensors, or functions without arguments of which only one is called."""
    chosen = x if (learning_phase() if training is None else training) else alt
    return chosen() if callable(chosen) else chosen


def in_test_phase(x: Any, alt: Any, training: bool | None = None):
    """The alternative in training, else x."""
    return in_train_phase(alt, x, training)


def symbolic(function: Callable) -> Callable:
    """The function itself; Keras 2 marked some so."""
    return function
