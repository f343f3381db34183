"""Pictures of training: the curves of one run, and several ways to train beside one another."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert4x.errors import InputError
from bert4x.plots.figures import families, matplotlib_figure, save
from bert4x.training.report import best_of


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
