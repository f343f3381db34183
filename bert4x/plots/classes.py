"""A picture of which class is taken for which; it needs matplotlib (`pip install matplotlib`)."""

import os

import numpy as np

from bert4x.errors import InputError
from bert4x.metrics.classes import ClassScores
from bert4x.plots.figures import families, matplotlib_figure, save

MOST_NUMBERS = 25  # labels up to which the numbers are written into the cells


def confusion(scores: ClassScores, path: str | os.PathLike | None = None, title: str = ""):
    """The confusion matrix: a row for each label that texts have, a column for each that was predicted, the darker
    the larger its share of the row. The right ones are on the diagonal.

    Args:
        scores: what `bert4x.metrics.score_classes` gives, of texts with one label each.
        path: a file to write, such as "confusion.png"; by the ending also pdf, svg ...

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib; InputError for texts with several labels.
    """
    if not scores.confusion:
        raise InputError("texts have several labels each, of which none is taken for another; expected one each")
    figure_class, font = matplotlib_figure("".join(scores.labels) + title)
    matrix = np.array(scores.confusion)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size, names = len(scores.labels), [label if len(label) <= 16 else label[:15] + "…" for label in scores.labels]
    side = min(3.2 + 0.5 * size, 16)
    figure = figure_class(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the row")
    style = {"family": families(font), "fontsize": 9 if size <= MOST_NUMBERS else 6}
    turned = {"rotation": 90} if max(map(len, names)) > 4 or size > 12 else {}
    axes.set_xticks(range(size), names, **style, **turned)
    axes.set_yticks(range(size), names, **style)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if size <= MOST_NUMBERS:
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "#222222"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=9, color=colour)
    if title:
        axes.set_title(title, family=families(font))
    save(figure, path, dpi=140)
    return figure
