"""Keras 2's `K` on Keras 3: what `keras.ops` lacks, and what means something else there.

Every other name is that of `keras.ops` or `keras.backend`. Shapes and defaults are Keras 2's: `K.concatenate` and
`K.argmax` go along the last axis, `K.sqrt` of a negative number is 0.
"""

import difflib
from typing import Any

import keras
from keras import ops

from bert4x.backend import calls, differences, draws, numbers, shapes, variables

ROOMS = (variables, shapes, numbers, draws, calls, differences)
OURS = {
    name: function
    for room in ROOMS
    for name, function in vars(room).items()
    if getattr(function, "__module__", "") == room.__name__ and not name.startswith("_")
}
GONE = {
    "get_session": "Keras 3 has no sessions, a model computes at once; delete the line",
    "set_session": "Keras 3 has no sessions, a model computes at once; delete the line",
    "set_learning_phase": "Keras 3 is told in each call: model(x, training=True)",
    "placeholder": "the inputs of a model are keras.Input(shape)",
}


def __getattr__(name: str) -> Any:
    if name in OURS:
        return OURS[name]
    for room in (ops, keras.backend):
        if hasattr(room, name) and not name.startswith("_"):
            return getattr(room, name)
    if name in GONE:
        raise AttributeError(f"no K.{name}: {GONE[name]}")
    like = ", ".join(f"K.{one}" for one in difflib.get_close_matches(name, __dir__()))
    raise AttributeError(f"no K.{name}, and no keras.ops.{name}{like and f'; did you mean {like}?'}")


def __dir__() -> list[str]:
    return sorted({*OURS, *dir(ops), *dir(keras.backend)})
