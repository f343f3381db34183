"""A picture of attention weights."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert4x.errors import InputError
from bert4x.plots.figures import families, matplotlib_figure, save


def attention(
    weights: Any,
    tokens: Sequence[str],
    sources: Sequence[str] | None = None,
    path: str | os.PathLike | None = None,
    title: str = "",
):
    """A picture of what each token attends to: a square for each head, in it a row for each token; the darker a field,
    the more of the token's attention goes to the one below it.

        hidden, attentions = bert4x.load(return_attentions=True)(model_inputs)
        plots.attention(attentions[-1][0], tokenizer.tokenize(text), path="attention.png")

    Args:
        weights: those of one layer for one text, or of one head. Shape: (A, T, S) or (T, S)
        tokens: the T tokens that attend.
        sources: the S tokens that are attended to, if they are others: of an encoder-decoder's "cross".
        path: a file to write, such as "attention.png"; by the ending also pdf, svg ...

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib; InputError for another shape.
    """
    sources = tokens if sources is None else sources
    if hasattr(weights, "detach"):  # PyTorch's, which may want to be differentiated
        weights = weights.detach().cpu()
    squares = np.asarray(weights, "float32")
    squares = squares[None] if squares.ndim == 2 else squares
    if squares.ndim != 3 or squares.shape[1:] != (len(tokens), len(sources)):
        raise InputError(
            f"weights of shape {np.shape(weights)}; expected (heads, {len(tokens)}, {len(sources)}), those of one "
            "layer for one text, or of one head"
        )
    figure_class, font = matplotlib_figure(title + "".join([*tokens, *sources]))
    columns = min(len(squares), 4)
    rows = -(-len(squares) // columns)
    wide, high = (max(2.2, 0.7 + 0.2 * len(side)) for side in (sources, tokens))
    figure = figure_class(figsize=(columns * wide, rows * high), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    label = {"fontsize": 8, "family": families(font)}
    for head, axes in enumerate(panels):
        if head >= len(squares):
            axes.set_axis_off()
            continue
        image = axes.imshow(squares[head], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(sources)), sources, **label)
        for text in axes.get_xticklabels():
            text.set_rotation(90 if len(text.get_text()) > 1 else 0)
        axes.set_yticks(range(len(tokens)), tokens, **label)
        axes.tick_params(length=0)
        axes.set_title(f"head {head + 1}" if len(squares) > 1 else "", fontsize=9)
    figure.colorbar(image, ax=list(figure.axes), shrink=0.6, label="share of a token's attention")
    if title:
        figure.suptitle(title, fontsize=12, family=families(font))
    save(figure, path, dpi=140)
    return figure
