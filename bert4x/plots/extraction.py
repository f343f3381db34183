"""A picture of the triples that texts state; it needs matplotlib (`pip install matplotlib`)."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from bert4x.errors import InputError
from bert4x.plots.figures import families, matplotlib_figure, save

# A colour for each predicate, in the order they come; readable on white, and apart for the colour-blind (after Okabe
# and Ito 2008).
COLOURS = "#0072b2", "#c4501b", "#007a5e", "#a3498a", "#8a6d00", "#5b4fa2", "#2e7d9a", "#8c3b2e", "#4f6b1f", "#555555"
MARK = "#5a6b7d"  # of subjects and objects
# How an arrow is drawn, and what stands before its label: found, without anything to compare with; found and right;
# found and wrong; there and not found.
STYLES = {"": ("-", ""), "right": ("-", "✓ "), "wrong": ((0, (5, 2)), "✗ "), "missed": ((0, (1, 1.6)), "? ")}
WRONG, MISSED = "#b3261e", "#777777"
WIDE = 0x2E80  # characters from here on are as wide as two Latin ones
LINE = 46.0  # widths of Chinese characters in a line
MOST = 40  # lines drawn


def triples(
    texts: str | Sequence[str],
    found: Sequence[Any],
    path: str | os.PathLike | None = None,
    title: str = "",
    gold: Sequence[Any] | None = None,
):
    """A text with its subjects and objects marked, and above it an arrow from each subject to its object, on which the
    predicate is written, each predicate in a colour of its own; or several texts, one below the other.

    A text is broken into lines where no arrow is crossed. Of a very long one, the lines with arrows come first, and
    only `MOST` are drawn. Compared with `gold`, right arrows have a tick, wrong ones are red and dashed, and those that
    were missed are grey and dotted.

    Args:
        texts: a text, or a list of them.
        found: what a task for triples gives for it: `.predicate`, `.subject_span` and `.object_span` of each.
        path: a file to write, such as "triples.png"; by the ending also pdf, svg ...
        gold: what is right: for each text its (subject, predicate, object), as strings. One that is not in the text
            cannot be drawn.

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib; InputError for spans that are not in the text.
    """
    if isinstance(texts, str):
        texts, found, gold = [texts], [found], None if gold is None else [gold]
    text, arrows = joined(texts, found, gold)
    figure_class, font = matplotlib_figure(text + title + "".join(arrow.predicate for arrow in arrows))
    lines = [(start, end, inside(arrows, start, end)) for start, end in broken(text, arrows)]
    lines = sorted(sorted(lines, key=lambda line: not line[2])[:MOST])
    heights = [levels(own) for *_, own in lines]
    rows = [1.5 + 0.85 * (max(own, default=-1) + 1) for own in heights]
    columns = max((width(text[start:end]) for start, end, _ in lines), default=1.0)
    size = max(4.0, 0.5 + 0.2 * columns), 0.5 + (0.35 if title else 0) + 0.4 * sum(rows)
    figure = figure_class(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set(xlim=(-0.7, columns + 0.7), ylim=(-sum(rows), 0.2))
    axes.axis("off")
    predicates = list(dict.fromkeys(arrow.predicate for arrow in arrows))
    colours = {predicate: COLOURS[n % len(COLOURS)] for n, predicate in enumerate(predicates)}
    bottom = 0.0
    for (start, end, own), high, row in zip(lines, heights, rows, strict=True):
        bottom -= row
        draw_line(axes, text, (start, end), own, high, bottom + 0.75, families(font), colours)
    if title:
        figure.suptitle(title, fontsize=12, family=families(font))
    if gold is not None:
        figure.supxlabel("✓ right   ✗ wrong   ? missed", fontsize=8, color=MARK)
    save(figure, path, dpi=160)
    return figure


class Arrow(NamedTuple):
    """A triple, by its characters; and whether it is right, if that is known."""

    predicate: str
    subject_span: tuple[int, int]
    object_span: tuple[int, int]
    state: str = ""


def joined(texts: Sequence[str], found: Sequence[Sequence[Any]], gold: Sequence[Any] | None) -> tuple[str, list[Arrow]]:
    """All texts as one, a line each, and their triples in it. Raises: InputError for spans that are not in the text."""
    for what, lists in (("triples of", found), ("right ones of", gold)):
        if lists is not None and len(texts) != len(lists):
            raise InputError(f"{len(texts)} texts, and {what} {len(lists)}; expected as many")
    whole, arrows = "", []
    for number, (text, own) in enumerate(zip(texts, found, strict=True)):
        for triple in own:
            for start, end in (triple.subject_span, triple.object_span):
                if not 0 <= start < end <= len(text):
                    raise InputError(f"the span {start, end} of {triple!r} is none of a text of {len(text)} characters")
        drawn = [Arrow(triple.predicate, triple.subject_span, triple.object_span) for triple in own]
        if gold is not None:
            drawn = compared(text, drawn, [tuple(triple) for triple in gold[number]])
        spans = [[tuple(place + len(whole) for place in span) for span in arrow[1:3]] for arrow in drawn]
        arrows += [Arrow(arrow.predicate, *moved, arrow.state) for arrow, moved in zip(drawn, spans, strict=True)]
        whole += text + "\n"
    return whole.removesuffix("\n"), arrows


def compared(text: str, arrows: Sequence[Arrow], gold: Sequence[tuple[str, str, str]]) -> list[Arrow]:
    """The arrows of one text, right or wrong, and those that were missed, at their first places in it."""
    words = [(text[slice(*a.subject_span)], a.predicate, text[slice(*a.object_span)]) for a in arrows]
    states = ["right" if own in gold else "wrong" for own in words]
    marked = [arrow._replace(state=state) for arrow, state in zip(arrows, states, strict=True)]
    for subject, predicate, object in dict.fromkeys(gold):
        if (subject, predicate, object) not in words and subject in text and object in text:
            spans = [(text.index(word), text.index(word) + len(word)) for word in (subject, object)]
            marked.append(Arrow(predicate, *spans, "missed"))
    return marked


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
        label = 0.9 * width(STYLES[triple.state][1] + triple.predicate)
        grow = max(0.0, label + 0.5 - (right - left)) / 2
        left, right, level = left - grow, right + grow, 0
        while any(level == other and left < stop and begin < right for begin, stop, other in taken):
            level += 1
        taken.append((left, right, level))
    return [level for *_, level in taken]


def draw_line(axes, text: str, line: tuple[int, int], arrows: Sequence[Arrow], heights, y: float, fonts, colours):
    """One line of the text at height y, with its marks and arrows."""
    from matplotlib.patches import FancyBboxPatch

    start, end = line
    lefts = [0.0]
    for character in text[start:end]:
        lefts.append(lefts[-1] + width(character))
    marked = {span for arrow in arrows for span in (arrow.subject_span, arrow.object_span)}
    box = {"boxstyle": "round,pad=0,rounding_size=0.2", "facecolor": MARK, "alpha": 0.2, "edgecolor": MARK}
    for a, b in sorted(marked, key=lambda span: span[0] - span[1]):
        left, right = lefts[a - start], lefts[b - start]
        axes.add_patch(FancyBboxPatch((left, y - 0.45), right - left, 0.9, **box))
    for place, character in enumerate(text[start:end]):
        if character.isprintable() and not character.isspace():
            middle = (lefts[place] + lefts[place + 1]) / 2
            style = {"ha": "center", "va": "center", "fontsize": 11, "color": "black", "family": fonts}
            axes.text(middle, y, character, parse_math=False, **style)
    feet = places({span: (lefts[span[0] - start], lefts[span[1] - start]) for span in marked}, arrows)
    for arrow, level, (begin, end) in zip(arrows, heights, feet, strict=True):
        colour = {"wrong": WRONG, "missed": MISSED}.get(arrow.state, colours[arrow.predicate])
        draw_arrow(axes, begin, end, y + 0.5, y + 1.15 + 0.85 * level, arrow, fonts, colour)


def places(edges: dict[tuple[int, int], tuple[float, float]], arrows: Sequence[Arrow]) -> list[list[float]]:
    """Where each arrow begins and ends: those of one word side by side, in an order in which they do not cross."""
    middles = {span: (left + right) / 2 for span, (left, right) in edges.items()}
    of_span: dict[tuple[int, int], list[tuple[float, int, int]]] = {span: [] for span in edges}
    for number, (_, *spans, _) in enumerate(arrows):
        for end, (own, other) in enumerate((spans, spans[::-1])):
            far = middles[other] - middles[own]
            # From the left: to the left, the nearest first; then to the right, the farthest first.
            of_span[own].append((1 / far if far else 0.0, number, end))
    found = [[0.0, 0.0] for _ in arrows]
    for span, ends in of_span.items():
        left, right = edges[span]
        step = min(0.5, (right - left) / (len(ends) + 1))
        for place, (_, number, end) in enumerate(sorted(ends)):
            found[number][end] = middles[span] + step * (place - (len(ends) - 1) / 2)
    return found


def draw_arrow(axes, begin: float, end: float, foot: float, top: float, arrow: Arrow, fonts, colour: str) -> None:
    """Up from the subject, along, and down to the object."""
    line, mark = STYLES[arrow.state]
    style = {"color": colour, "linestyle": line, "linewidth": 1.3, "zorder": 1}
    axes.plot([begin, begin, end, end], [foot, top, top, foot + 0.2], **style)
    axes.plot([end], [foot + 0.12], marker="v", markersize=5, color=colour, zorder=2)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    style = {"ha": "center", "va": "center", "fontsize": 9, "color": colour, "family": fonts, "parse_math": False}
    axes.text((begin + end) / 2, top, mark + arrow.predicate, bbox=box, zorder=3, **style)
