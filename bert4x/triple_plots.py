"""A picture of the triples that texts state; it needs matplotlib (`pip install "bert4x[plot]"`)."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from bert4x.errors import InputError
from bert4x.plots import families, matplotlib_figure

SUBJECT, OBJECT, BOTH = "#1764ab", "#c4501b", "#7a4f9a"
WIDE = 0x2E80  # characters from here on are as wide as two Latin ones
LINE = 46.0  # widths of Chinese characters in a line
MOST = 40  # lines drawn


def triples(texts: str | Sequence[str], found: Sequence[Any], path: str | os.PathLike | None = None, title: str = ""):
    """A text with its subjects and objects marked, and above it an arrow from each subject to its object, on which the
    predicate is written; or several texts, one below the other.

    A text is broken into lines where no arrow is crossed. Of a very long one, the lines with arrows come first, and
    only `MOST` are drawn.

    Args:
        texts: a text, or a list of them.
        found: what a task for triples gives for it: `.predicate`, `.subject_span` and `.object_span` of each.
        path: a file to write, such as "triples.png"; by the ending also pdf, svg ...

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib; InputError for spans that are not in the text.
    """
    text, found = joined([texts], [found]) if isinstance(texts, str) else joined(texts, found)
    figure_class, font = matplotlib_figure()
    lines = [(start, end, inside(found, start, end)) for start, end in broken(text, found)]
    lines = sorted(sorted(lines, key=lambda line: not line[2])[:MOST])
    heights = [levels(arrows) for *_, arrows in lines]
    rows = [1.5 + 0.85 * (max(own, default=-1) + 1) for own in heights]
    columns = max((width(text[start:end]) for start, end, _ in lines), default=1.0)
    size = max(4.0, 0.5 + 0.2 * columns), 0.5 + (0.35 if title else 0) + 0.4 * sum(rows)
    figure = figure_class(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.7, columns + 0.7), ylim=(-sum(rows), 0.2))
    axes.axis("off")
    bottom = 0.0
    for (start, end, arrows), own, row in zip(lines, heights, rows, strict=True):
        bottom -= row
        draw_line(axes, text, (start, end), arrows, own, bottom + 0.75, families(font))
    if title:
        figure.suptitle(title, fontsize=12, family=families(font))
    if path is not None:
        figure.savefig(path, dpi=160)
    return figure


class Arrow(NamedTuple):
    """A triple, by its characters."""

    predicate: str
    subject_span: tuple[int, int]
    object_span: tuple[int, int]


def joined(texts: Sequence[str], found: Sequence[Sequence[Any]]) -> tuple[str, list[Arrow]]:
    """All texts as one, a line each, and their triples in it. Raises: InputError for spans that are not in the text."""
    if len(texts) != len(found):
        raise InputError(f"{len(texts)} texts, and triples of {len(found)}; expected as many")
    whole, arrows = "", []
    for text, own in zip(texts, found, strict=True):
        for triple in own:
            spans = triple.subject_span, triple.object_span
            for start, end in spans:
                if not 0 <= start < end <= len(text):
                    raise InputError(f"the span {start, end} of {triple!r} is none of a text of {len(text)} characters")
            moved = ((start + len(whole), end + len(whole)) for start, end in spans)
            arrows.append(Arrow(triple.predicate, *moved))
        whole += text + "\n"
    return whole.removesuffix("\n"), arrows


def width(text: str) -> float:
    """How wide a text is, in Chinese characters."""
    return sum(1.0 if ord(character) >= WIDE else 0.58 for character in text)


def reach(triple: Any) -> tuple[int, int]:
    """The first and last character of a triple."""
    spans = triple.subject_span, triple.object_span
    return min(start for start, _ in spans), max(end for _, end in spans)


def inside(found: Sequence[Any], start: int, end: int) -> list[Any]:
    """The triples of one line, the short ones first."""
    own = [triple for triple in found if start <= reach(triple)[0] < end]
    return sorted(own, key=lambda triple: reach(triple)[1] - reach(triple)[0])


def broken(text: str, found: Sequence[Any]) -> list[tuple[int, int]]:
    """The lines of a text: as long as `LINE` allows, longer where a triple needs it; line breaks end a line, too."""
    crossed = {place for triple in found for place in range(reach(triple)[0] + 1, reach(triple)[1])}
    lines, start, last, wide = [], 0, 0, 0.0
    for place, character in enumerate(text):
        if place > start and place not in crossed:
            if text[place - 1] == "\n":
                lines.append((start, place))
                start, last, wide = place, place, 0.0
            last = place
        wide += width(character)
        if wide > LINE and last > start:
            lines.append((start, last))
            start, wide = last, width(text[last : place + 1])
    return [*lines, (start, len(text))] if start < len(text) or not lines else lines


def levels(arrows: Sequence[Any]) -> list[int]:
    """For each arrow how high it goes: as low as meets none of those before it, nor their labels."""
    taken: list[tuple[float, float, int]] = []
    for triple in arrows:
        left, right = sorted((start + end) / 2 for start, end in (triple.subject_span, triple.object_span))
        grow = max(0.0, 0.9 * width(triple.predicate) + 0.5 - (right - left)) / 2
        left, right, level = left - grow, right + grow, 0
        while any(level == other and left < stop and begin < right for begin, stop, other in taken):
            level += 1
        taken.append((left, right, level))
    return [level for *_, level in taken]


def draw_line(axes, text: str, line: tuple[int, int], arrows: Sequence[Any], heights, y: float, fonts) -> None:
    """One line of the text at height y, with its marks and arrows."""
    from matplotlib.patches import FancyBboxPatch

    start, end = line
    lefts = [0.0]
    for character in text[start:end]:
        lefts.append(lefts[-1] + width(character))
    colours: dict[tuple[int, int], str] = {}
    for triple in arrows:
        for span, colour in ((triple.subject_span, SUBJECT), (triple.object_span, OBJECT)):
            colours[span] = colour if colours.get(span, colour) == colour else BOTH
    for (a, b), colour in sorted(colours.items(), key=lambda item: item[0][0] - item[0][1]):
        left, right = lefts[a - start], lefts[b - start]
        box = {"boxstyle": "round,pad=0,rounding_size=0.2", "facecolor": colour, "alpha": 0.22, "edgecolor": colour}
        axes.add_patch(FancyBboxPatch((left, y - 0.45), right - left, 0.9, **box))
    for place, character in enumerate(text[start:end]):
        if character.isprintable() and not character.isspace():
            middle = (lefts[place] + lefts[place + 1]) / 2
            axes.text(middle, y, character, ha="center", va="center", fontsize=11, family=fonts, parse_math=False)
    for triple, level in zip(arrows, heights, strict=True):
        middles = [(lefts[a - start] + lefts[b - start]) / 2 for a, b in (triple.subject_span, triple.object_span)]
        draw_arrow(axes, *middles, y + 0.5, y + 1.15 + 0.85 * level, triple.predicate, fonts)


def draw_arrow(axes, begin: float, end: float, foot: float, top: float, label: str, fonts) -> None:
    """Up from the subject, along, and down to the object."""
    shift = 0.12 if end >= begin else -0.12  # so that arrows out of and into one word can be told apart
    begin, end = begin + shift, end - shift
    axes.plot([begin, begin, end, end], [foot, top, top, foot + 0.2], color="#777777", linewidth=1.0, zorder=1)
    axes.plot([end], [foot + 0.12], marker="v", markersize=5, color="#777777", zorder=2)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    style = {"ha": "center", "va": "center", "fontsize": 9, "color": "#333333", "family": fonts, "parse_math": False}
    axes.text((begin + end) / 2, top, label, bbox=box, zorder=3, **style)
