"""A picture of a position of Chinese chess; it needs matplotlib (`pip install matplotlib`)."""

import os

from bert4x.errors import InputError
from bert4x.plots.figures import families, matplotlib_figure, save

RED, BLACK, WOOD, LINES = "#b3261e", "#1b1b1b", "#f3ddb3", "#7a5c30"
NAMES = dict(zip("KABNRCPkabnrcp", "帅仕相马车炮兵将士象马车炮卒", strict=True))
FILES, RANKS = "abcdefghi", 10


def chess_board(fen: str, path: str | os.PathLike | None = None, title: str = "", move: str = ""):
    """The pieces on their points, red below; the last move, such as "h2e2", is an arrow.

    Args:
        fen: the position: ten ranks from black's down, with a slash between, as in `rnbakabnr/9/1c5c1/...`.
        path: a file to write, such as "board.png"; by the ending also pdf, svg ...

    Returns: the matplotlib `Figure`.
    Raises: MissingMatplotlibError without matplotlib; InputError for what is no position.
    """
    pieces = pieces_of(fen)
    figure_class, font = matplotlib_figure("".join(NAMES.values()) + title)
    figure = figure_class(figsize=(4.6, 5.2), layout="constrained", facecolor=WOOD)
    axes = figure.subplots()
    axes.set(xlim=(-0.7, 8.7), ylim=(-0.7, 9.7), aspect="equal", xticks=range(9), yticks=range(RANKS))
    axes.set_xticklabels(FILES)
    axes.tick_params(length=0, colors=LINES)
    axes.spines[:].set_visible(False)
    axes.set_title(title, family=families(font), fontsize=10)
    for rank in range(RANKS):
        axes.plot([0, 8], [rank, rank], color=LINES, linewidth=0.8, zorder=1)
    for file in range(9):  # the river parts the files but the outer ones
        for low, high in [(0, 9)] if file in (0, 8) else [(0, 4), (5, 9)]:
            axes.plot([file, file], [low, high], color=LINES, linewidth=0.8, zorder=1)
    for low in (0, 7):  # the palaces
        axes.plot([3, 5], [low, low + 2], [3, 5], [low + 2, low], color=LINES, linewidth=0.8, zorder=1)
    if move:
        (x, y), (to_x, to_y) = ((FILES.index(move[i]), int(move[i + 1])) for i in (0, 2))
        arrow = {"arrowstyle": "->", "color": "#0072b2", "linewidth": 2}
        axes.annotate("", (to_x, to_y), (x, y), arrowprops=arrow, zorder=4)
    for (x, y), piece in pieces.items():
        colour = RED if piece.isupper() else BLACK
        axes.scatter(x, y, s=340, facecolor="#fff8e8", edgecolor=colour, linewidth=1.4, zorder=2)
        axes.text(x, y, NAMES[piece], ha="center", va="center_baseline", color=colour, family=families(font), zorder=3)
    save(figure, path, dpi=110)
    return figure


def pieces_of(fen: str) -> dict[tuple[int, int], str]:
    """Which piece stands on which (file, rank). Raises: InputError"""
    ranks = fen.split()[0].split("/") if fen.split() else []
    rows = ["".join(" " * int(c) if c.isdigit() else c for c in rank) for rank in ranks]
    wrong = [row for row in rows if len(row) != 9 or set(row) - set(NAMES) - {" "}]
    if len(rows) != RANKS or wrong:
        raise InputError(
            f"{fen!r} is no position of Chinese chess; expected ten ranks of nine, as rnbakabnr/9/1c5c1/..."
        )
    return {(x, RANKS - 1 - i): c for i, row in enumerate(rows) for x, c in enumerate(row) if c != " "}
