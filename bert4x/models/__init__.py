"""How any family is built; of bert4keras.models' names those that are here, imported when asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bert4x.models.build import build_transformer_model

_HOME = {"build_transformer_model": "bert4x.models.build"}

__all__ = ["build_transformer_model"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'bert4x.models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
