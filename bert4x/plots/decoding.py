"""A picture of decoding in two directions at once."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert4x.errors import InputError
from bert4x.plots.figures import families, matplotlib_figure, save

COLOURS = {"l2r": "#1764ab", "r2l": "#c4501b"}
NAMES = {"l2r": "left to right", "r2l": "right to left"}
FLOOR = -4.0  # log-probabilities below it have the palest colour


def decoding_paths(paths: Sequence[Any], labels: Any, path: str | os.PathLike | None = None, title: str = ""):
    """A picture of how one text was decoded in two directions at once: where both met, how sure they were, who won.

    Above, a row for each hypothesis: those from left to right begin on the left, those from right to left on the
    right; the darker a token, the likelier it was. Below, their log-probabilities add up along the way.

    Args:
        paths: what `BidirectionalDecoder.paths` gives for one source: `.direction`, `.ids`, `.log_probabilities` (N,)
            and `.score` of each, best first.
        labels: the tokenizer, or for each path the N strings to write on its tokens.
        path: a file to write, such as "paths.png"; by the ending also pdf, svg ...

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib; InputError when there are no paths, or labels do not fit them.
    """
    texts = token_texts(paths, labels)
    figure_class, font = matplotlib_figure(title + "".join(text for row in texts for text in row))
    rows = sorted(range(len(paths)), key=lambda i: (paths[i].direction != "l2r", -paths[i].score))
    winner = max(range(len(paths)), key=lambda i: paths[i].score)
    width = max(map(len, texts))
    figure = figure_class(figsize=(max(7.5, 2.6 + 0.62 * width), 3.4 + 0.48 * len(rows)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [0.48 * len(rows) + 0.3, 2.3]})
    for place, row in enumerate(rows):
        draw_row(above, paths[row], texts[row], place, width, row == winner, font)
        draw_sum(below, paths[row], width, row == winner)
    dress(figure, above, below, [paths[row] for row in rows], width, title, font)
    save(figure, path, dpi=160)
    return figure


def token_texts(paths: Sequence[Any], labels: Any) -> list[list[str]]:
    """What to write on the tokens of each path. Raises: InputError."""
    if not len(paths) or not all(len(one.ids) for one in paths):
        raise InputError(f"got {len(paths)} paths, of which every one needs at least one token")
    for one in paths:
        if one.direction not in COLOURS or len(one.log_probabilities) != len(one.ids):
            raise InputError(
                f"a path has direction {one.direction!r}, {len(one.ids)} ids and {len(one.log_probabilities)} "
                "log-probabilities; expected 'l2r' or 'r2l', and as many of one as of the other"
            )
    if hasattr(labels, "ids_to_tokens"):
        labels = [labels.ids_to_tokens(one.ids) for one in paths]
    if [len(row) for row in labels] != [len(one.ids) for one in paths]:
        raise InputError(f"the labels have lengths {[len(row) for row in labels]}; expected one for each token")
    return [[str(text) for text in row] for row in labels]


def places(one: Any, width: int) -> np.ndarray:
    """The columns of a path's tokens: from the left edge, or up to the right one. Shape: (N,)"""
    return np.arange(len(one.ids)) + (0 if one.direction == "l2r" else width - len(one.ids))


def draw_row(axes, one: Any, texts: list[str], place: int, width: int, won: bool, font: str | None) -> None:
    """One hypothesis as a row of tokens."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    ink = np.array(to_rgb(COLOURS[one.direction]))
    columns = places(one, width)
    for column, text, value in zip(columns, texts, one.log_probabilities, strict=True):
        sure = 0.06 + 0.94 * (1 - max(float(value), FLOOR) / FLOOR)
        corner = (column - 0.46, place - 0.38)
        axes.add_patch(Rectangle(corner, 0.92, 0.76, facecolor=sure * ink + 1 - sure, edgecolor="none"))
        size = min(11.0, 34.0 / max(1.0, sum(2 if ord(c) > 0x2E80 else 1.15 for c in text)))
        colour = "white" if sure > 0.55 else "#222222"
        axes.text(column, place, text, ha="center", va="center", fontsize=size, color=colour, family=families(font))
    if won:
        corner = (columns[0] - 0.5, place - 0.44)
        axes.add_patch(Rectangle(corner, len(columns), 0.88, fill=False, edgecolor="#111111", linewidth=1.8))
    score, weight = f"{one.score:.2f}" + (" ★" if won else ""), "bold" if won else "normal"
    right = axes.get_yaxis_transform()
    colour = COLOURS[one.direction]
    axes.text(1.01, place, score, va="center", fontsize=10, fontweight=weight, color=colour, transform=right)


def draw_sum(axes, one: Any, width: int, won: bool) -> None:
    """The log-probability of a hypothesis as it grows, from its own side."""
    step = 1 if one.direction == "l2r" else -1
    columns = np.concatenate([[-0.5 if step > 0 else width - 0.5], places(one, width)[::step]])
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(one.log_probabilities, "float64")[::step])])
    style = {"linewidth": 2.6, "zorder": 3} if won else {"linewidth": 1.1, "alpha": 0.65}
    axes.plot(columns, sums, marker=">" if step > 0 else "<", markersize=5, color=COLOURS[one.direction], **style)


def dress(figure, above, below, paths: list[Any], width: int, title: str, font: str | None) -> None:
    """Axes, labels and the key."""
    above.set(xlim=(-0.7, width - 0.3), ylim=(len(paths) - 0.45, -0.55), yticks=[])
    above.tick_params(bottom=False)
    above.spines[:].set_visible(False)
    for direction in COLOURS:
        own = [place for place, one in enumerate(paths) if one.direction == direction]
        if own:
            name = f"{NAMES[direction]} →" if direction == "l2r" else f"← {NAMES[direction]}"
            style = {"ha": "right", "va": "center", "fontsize": 9, "color": COLOURS[direction]}
            above.text(-0.012, np.mean(own), name, transform=above.get_yaxis_transform(), **style)
    above.set_title("the darker a token, the likelier it was", loc="left", fontsize=9, color="#555555")
    above.text(1.01, 1.0, "score", va="bottom", fontsize=9, color="#555555", transform=above.transAxes)
    below.set_xticks(range(width), [str(i + 1) for i in range(width)], fontsize=8)
    below.set_xlabel("place in the text", fontsize=9)
    below.set_ylabel("log-probability so far", fontsize=9)
    below.tick_params(axis="y", labelsize=8)
    below.grid(axis="y", color="#e4e4e4")
    below.set_axisbelow(True)
    below.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12, family=families(font))
