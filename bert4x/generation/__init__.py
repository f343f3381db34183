"""Decoding: one compiled engine for greedy and beam search, sampling, streaming and scoring."""

from bert4x.generation.options import GenerationOptions
from bert4x.generation.text import Piece

__all__ = ["GenerationOptions", "Piece"]
