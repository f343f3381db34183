"""What a case found: tables of Markdown, the raw figures as JSON, and a picture of both."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import common
from tests.benchmarks.compare import Measured, is_limit, limit

OURS, PEER = "#2a6fb0", "#9aa5b1"


@dataclass
class Table:
    """A table of strings."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"**{self.title}**\n\n{text}\n" if self.title else text + "\n"


@dataclass
class Curves:
    """Figures that grow with something, both axes logarithmic: by contender the (x, y) of each point."""

    x: str
    y: str
    points: Mapping[str, Sequence[tuple[float, float]]]


@dataclass
class Report:
    """What one case found. `bars`: seconds of every call, by what was run and who ran it. `problems`: what differs, or
    did not run, in a line each.
    """

    name: str
    title: str
    tables: Sequence[Table]
    bars: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    curves: Sequence[Curves] = ()
    problems: Sequence[str] = ()
    machine: Mapping[str, str] = field(default_factory=common.machine)

    def markdown(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        parts = [f"### {self.title}\n", facts + "\n", *[table.markdown() for table in self.tables]]
        return "\n".join(parts + ["\n".join(f"- {line}" for line in self.problems) + "\n"] * bool(self.problems))

    def write(self, folder: Path) -> None:
        """NAME.md, NAME.json and, where matplotlib is, NAME.svg."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.md").write_text(self.markdown(), "utf-8")
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (folder / f"{self.name}.json").write_text(text + "\n", "utf-8")
        if self.bars or self.curves:
            try:
                draw(self, folder / f"{self.name}.svg")
            except ImportError:
                print("no picture: matplotlib is not installed")


def wanted_rows(rows: Sequence[tuple[str, str, str]]) -> Table:
    """A table of what was measured beside what is wanted."""
    return Table("", ("", "measured", "wanted"), rows)


def verdict(value: float | None, least: float | None = None, most: float | None = None) -> tuple[str, str]:
    """A measured ratio and what is wanted, as cells."""
    bound = f"at least {least:.2f}" if least is not None else f"at most {most:.2f}"
    if value is None:
        return "not measured", bound
    met = value >= least if least is not None else value <= most
    return f"{value:.2f}", f"{bound}, " + ("reached" if met else "**missed**")


def spread(times: Sequence[float]) -> str:
    """Median and quartiles, in the unit that suits them."""
    low, middle, high = quartiles(times)
    unit, factor = ("ms", 1e3) if middle < 1 else ("s", 1)
    digits = 1 if middle * factor >= 10 else 2
    return f"{middle * factor:.{digits}f} {unit} ({low * factor:.{digits}f} to {high * factor:.{digits}f})"


def quartiles(times: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(times) < 2:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


def comparison(run: str, measured: Measured, operations: float | None = None) -> Table:
    """Who took how long for one run, fastest first; with its operations (or bytes) also their share of the limit."""
    ours, peak = measured.best(run, "bert4x"), limit(measured)
    rows = []
    for name, figures in sorted(measured.figures[run].items(), key=lambda item: item[1].median):
        part = operations / figures.median / peak if operations and peak else None
        rows.append(
            (
                name,
                spread(figures.seconds),
                f"{figures.median / ours.median:.2f}" if ours else "",
                "" if part is None else f"{part:.2f}",
                f"{figures.peak / 1e9:.2f} GB",
                "" if figures.difference is None else f"{figures.difference:.1e}",
            )
        )
    columns = ("", "median (quartiles)", "times our best", "share of the limit", "peak memory", "difference")
    return Table(run, columns, rows)


def bars(measured: Measured) -> dict[str, dict[str, list[float]]]:
    """What `Report.bars` wants."""
    return {
        run: {name: figures.seconds for name, figures in of.items()}
        for run, of in measured.figures.items()
        if not is_limit(run, measured)
    }


def draw(report: Report, path: Path) -> None:
    """Horizontal bars of medians with quartiles, or curves. Raises: ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = report.name
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(8, 1), facecolor="white", layout="constrained")
    if report.curves:
        axes = grid(figure, report.curves)
        for curves in report.curves:
            draw_curves(axes[curves.y, curves.x], curves)
    else:
        heights = [0.8 + 0.28 * len(times) for times in report.bars.values()]
        figure.set_size_inches(8, sum(heights) + 0.6)
        panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for (run, times), axis in zip(report.bars.items(), panels, strict=True):
            draw_bars(axis, run, times)
    facts = report.machine
    figure.suptitle(report.title, fontsize=11)
    versions = [f"{name} {facts[name]}" for name in common.PACKAGES if name in facts]
    if facts:
        figure.supxlabel(f"{facts['processor']}, {facts['date']}\n{', '.join(versions)}", fontsize=6)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def grid(figure, curves: Sequence[Curves]) -> dict[tuple[str, str], Any]:
    """Axes by what is measured, a row each, and by what it grows with, a column each."""
    rows, columns = (list(dict.fromkeys(getattr(one, name) for one in curves)) for name in ("y", "x"))
    figure.set_size_inches(3.2 * len(columns), 2.5 * len(rows) + 0.4)
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharey="row")
    return {(y, x): axes[i, j] for i, y in enumerate(rows) for j, x in enumerate(columns)}


def draw_bars(axis, title: str, times: Mapping[str, Sequence[float]]) -> None:
    """One panel, slowest at the bottom."""
    names = sorted(times, key=lambda name: -statistics.median(times[name]))
    found = [quartiles(times[name]) for name in names]
    middles = [middle for _, middle, _ in found]
    errors = [[m - low for low, m, _ in found], [high - m for _, m, high in found]]
    colors = [OURS if name.startswith("bert4x") else PEER for name in names]
    drawn = axis.barh(names, middles, xerr=errors, color=colors, height=0.7, error_kw={"elinewidth": 0.8})
    axis.bar_label(drawn, [f" {m:.3g}" for m in middles], fontsize=7)
    axis.set_title(f"{title}: seconds, median and quartiles", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.margins(x=0.12)


def draw_curves(axis, curves: Curves) -> None:
    """One panel of lines; ticks are the values themselves, as people write them."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    for name, points in curves.points.items():
        axis.loglog(*zip(*points, strict=True), marker="o", markersize=3, label=name, linewidth=1.2)
    places = sorted({x for points in curves.points.values() for x, _ in points})
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        one.set_minor_locator(NullLocator())
    axis.set_xlabel(curves.x, fontsize=8)
    axis.set_ylabel(curves.y, fontsize=8)
    axis.label_outer()
    axis.grid(alpha=0.3, linewidth=0.4)
    axis.tick_params(labelsize=7)
    if len(curves.points) > 1:
        axis.legend(fontsize=7)
