"""Pictures of what models do; they need matplotlib (`pip install matplotlib`)."""

from bert4x.plots.attentions import attention
from bert4x.plots.chess import chess_board
from bert4x.plots.classes import confusion
from bert4x.plots.decoding import decoding_paths
from bert4x.plots.extraction import triples
from bert4x.plots.figures import MissingMatplotlibError
from bert4x.plots.glyphs import glyphs, page
from bert4x.plots.runs import comparison, curves

__all__ = [
    "MissingMatplotlibError",
    "attention",
    "chess_board",
    "comparison",
    "confusion",
    "curves",
    "decoding_paths",
    "glyphs",
    "page",
    "triples",
]
