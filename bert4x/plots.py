"""Pictures of what models do; they need matplotlib (`pip install matplotlib`)."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert4x.errors import InputError
from bert4x.figures import MissingMatplotlibError, families, matplotlib_figure, save
from bert4x.training.report import best_of

__all__ = ["MissingMatplotlibError", "attention", "comparison", "curves", "decoding_paths"]

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


def curves(records: Sequence[dict], path: str | os.PathLike | None = None, best: str = "", title: str = ""):
    """How a run went: the loss of every update, thin, with its running mean; below, the scores of every epoch.

    Args:
        records: those of a run's metrics.jsonl.
        best: the score that says which epoch was best; it is marked.
        path: a file to write, such as "curves.png"; by the ending also pdf, svg ...

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib.
    """
    figure_class, font = matplotlib_figure(title)
    losses = [(record["update"], record["loss"]) for record in records if "loss" in record]
    epochs = [record for record in records if "epoch" in record]
    names = [name for name in (epochs[0] if epochs else {}) if name not in ("epoch", "update", "seconds")]
    names = [
        name for name in names if not any(record.get(name, 0) > 1 for record in epochs)
    ]  # counts have another scale
    figure = figure_class(figsize=(8, 5.6 if names else 3.2), layout="constrained")
    axes = figure.subplots(2 if names else 1, 1, sharex=True, squeeze=False)[:, 0]
    if losses:
        updates, values = np.array(losses, "float64").T
        axes[0].plot(updates, values, color="#1764ab", alpha=0.25, linewidth=0.8)
        axes[0].plot(updates, running_mean(values, max(1, len(values) // 40)), color="#1764ab", linewidth=1.6)
    axes[0].set_ylabel("loss")
    lines = []
    for name in names:
        points = [(record["update"], record[name]) for record in epochs if name in record]
        (line,) = axes[1].plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        lines.append(line)
        if name == best:
            top = points[best_of([value for _, value in points])]
            axes[1].annotate(f"{top[1]:.4g}", top, xytext=(0, 6), textcoords="offset points", ha="center")
            axes[1].plot(*top, marker="o", markersize=8, color=line.get_color())
    tell_apart(lines)
    if names:
        axes[1].legend(frameon=False, handlelength=3.5)
        axes[1].set_ylabel("score")
    axes[-1].set_xlabel("updates")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, family=families(font))
    save(figure, path, dpi=140)
    return figure


def comparison(runs, path: str | os.PathLike | None = None, score: str = "score", title: str = ""):
    """Several ways to train, each several times: for each the mean score along the way, between its best and worst.

    Args:
        runs: for each way by name, the scores of its runs: lists of (update, score).
        path: a file to write, such as "comparison.png"; by the ending also pdf, svg ...
        score: what the scores are.

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib; InputError for a way without scores.
    """
    figure_class, font = matplotlib_figure("".join(runs) + score + title)
    figure = figure_class(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, each in runs.items():
        if not each or not all(each):
            raise InputError(f"{name!r} has a run without scores; expected (update, score) of every run")
        # Where runs stopped early, what all of them have.
        updates = sorted(set.intersection(*({update for update, _ in run} for run in each)))
        values = np.array([[dict(run)[update] for update in updates] for run in each])
        times = f", {len(each)} runs" if len(each) > 1 else ""
        (line,) = axes.plot(updates, values.mean(axis=0), marker="o", markersize=3, label=f"{name}{times}")
        axes.fill_between(updates, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15)
    tell_apart(axes.lines)
    axes.set_xlabel("updates")
    axes.set_ylabel(score, family=families(font))
    axes.legend(frameon=False, prop={"family": families(font)})
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, family=families(font))
    save(figure, path, dpi=140)
    return figure


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


def tell_apart(lines: Sequence[Any]) -> None:
    """Of equal lines the first is whole; each of the others, above it, is dashed, and shows a part of its own."""
    for line in lines:
        equal = [other for other in lines if np.array_equal(other.get_xydata(), line.get_xydata(), equal_nan=True)]
        place = equal.index(line)
        if place:
            line.set_linestyle((-4 * place, (4, 4 * (len(equal) - 1))))


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values at every place. Shape: (N,) -> (N,)"""
    total = np.cumsum(np.insert(values, 0, 0.0))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - width, 0)
    return (total[last] - total[first]) / (last - first)


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
