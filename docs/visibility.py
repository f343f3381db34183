"""Draws images/visibility.svg from the rule in bert4x/masks.py: `python docs/visibility.py`."""

from pathlib import Path

import numpy as np
from keras import ops

from bert4x.masks import token_rank, visible

TOKENS = ["[CLS]", "床", "前", "[SEP]", "明", "月", "[SEP]"]
SEGMENTS = [0, 0, 0, 0, 1, 1, 1]
PANELS = {"encoder": "rank = 0", "lm": "rank = position", "unilm": "rank = cumsum(segment_ids)"}
CELL, LEFT, TOP, GAP = 24, 56, 66, 40
TARGET = Path(__file__).parent / "images" / "visibility.svg"


def seen(application: str) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each token, and which keys (columns) each query (row) sees."""
    ids, segments = np.arange(len(TOKENS))[None], np.array([SEGMENTS])
    rank = token_rank(application, ops.convert_to_tensor(ids, "int32"), ops.convert_to_tensor(segments, "int32"))
    return ops.convert_to_numpy(rank)[0], ops.convert_to_numpy(visible(rank, rank))[0, 0]


def text(x: float, y: float, words, anchor: str = "middle", size: int = 11, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">{words}</text>'


def panel(application: str, formula: str, x: float) -> list[str]:
    """One matrix: a filled cell is a key that the query of that row sees."""
    rank, matrix = seen(application)
    side = CELL * len(TOKENS)
    parts = [text(x + side / 2, 18, application, size=14, weight="bold"), text(x + side / 2, 36, formula)]
    for i, token in enumerate(TOKENS):
        parts.append(text(x + (i + 0.5) * CELL, TOP - 8, rank[i]))
        parts.append(text(x - 6, TOP + (i + 0.7) * CELL, token, anchor="end"))
        for j in range(len(TOKENS)):
            fill = ("#26a69a" if SEGMENTS[j] else "#3f51b5") if matrix[i, j] else "none"
            at = f'x="{x + j * CELL}" y="{TOP + i * CELL}"'
            parts.append(f'<rect {at} width="{CELL}" height="{CELL}" fill="{fill}" stroke="#9e9e9e"/>')
    return parts


def draw() -> str:
    """The whole figure as SVG."""
    side = CELL * len(TOKENS)
    width, height = len(PANELS) * (LEFT + side) + (len(PANELS) - 1) * GAP / 2, TOP + side + 12
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" font-family="sans-serif">']
    parts.append(f'<g fill="currentColor"><rect width="{width:g}" height="{height}" fill="#fafafa"/>')
    for number, (application, formula) in enumerate(PANELS.items()):
        parts += panel(application, formula, LEFT + number * (LEFT + side + GAP / 2))
    return "\n".join([*parts, "</g></svg>"]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
