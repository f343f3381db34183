"""Decoding: one compiled engine for greedy and beam search, sampling, streaming and scoring.

What computes is imported when first used: options are read, by the command for one, before Keras is needed.
"""

import importlib
from typing import TYPE_CHECKING

from bert4x.generation.options import GenerationOptions

if TYPE_CHECKING:
    from bert4x.generation.text import Continuation, Piece, continuations

__all__ = ["Continuation", "GenerationOptions", "Piece", "continuations"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'bert4x.generation' has no attribute {name!r}")
    return getattr(importlib.import_module("bert4x.generation.text"), name)
