"""Draws images/house.svg, the rooms of the package as the test of imports holds them: `python docs/house.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
TARGET = Path(__file__).parent / "images" / "house.svg"
WIDTH, FLOOR, GAP, LEFT = 960, 54, 8, 16
COLOURS = {False: "#00796b", True: "#3f51b5"}  # whether importing it imports Keras
KEY = {False: "loads no Keras when imported", True: "stands on Keras"}
# What is in each room, in a few words.
WHAT = {
    "errors": "every error",
    "masks": "who sees whom",
    "devices": "what is divided",
    "porting": "scripts as text",
    "metrics": "F1, ROUGE, BLEU",
    "layers": "attention, norms, CRF",
    "optimizers": "extensions, schedules",
    "checkpoints.formats": "containers, lazy tensors",
    "checkpoints.files": "where they lie",
    "config": "sizes, and their spelling",
    "hub": "checkpoints by name",
    "tokenizers": "text to ids and back",
    "checkpoints.spec": "the language of tables",
    "checkpoints": "open, convert, write",
    "models": "layers by name, load",
    "models.cache": "keys and values",
    "families": "the registry",
    "families.": "one file an architecture",
    "generation": "searches, the engine",
    "snippets": "for bert4keras' scripts",
    "runtimes": "exports, without Keras",
    "training": "update, loop, losses",
    "training.lora": "adapters",
    "plots": "pictures",
    "recipe": "what recipes share",
    "tasks": "what one calls on text",
    "exporting": "other runtimes",
    "serving": "models behind HTTP",
    "cli": "the bert4x command",
}


def floors() -> list[dict[str, bool]]:
    """Lowest first: name of each room that has words above -> whether importing it imports Keras."""
    from test_imports import ROOMS, imported, modules, within

    names = [name for floor in ROOMS for name in floor]
    keras = dict.fromkeys(names, False)
    for module, path in modules():
        inner = module.removeprefix("bert4x.")
        held = [n for n in names if within(inner, n) or (n.endswith(".") and inner.startswith(n))]
        if held:
            room = max(held, key=len)
            keras[room] |= any(within(name, "keras") for name, at_import, _ in imported(module, path) if at_import)
    rows = [{name: keras[name] for name in floor if name in WHAT} for floor in ROOMS]
    return [row for row in rows if row]


def text(x: float, y: float, words, size: int = 12, weight: str = "normal", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">{words}</text>'


def draw() -> str:
    """The whole figure as SVG: a floor stands on those below, and imports nothing from above."""
    rows = floors()
    height = len(rows) * (FLOOR + GAP) + 56
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
    parts = [head, f'<rect width="{WIDTH}" height="{height}" fill="#fafafa"/>']
    for number, floor in enumerate(reversed(rows)):
        y, width = 12 + number * (FLOOR + GAP), (WIDTH - 2 * LEFT + GAP) / len(floor)
        for place, (name, keras) in enumerate(floor.items()):
            x, colour = LEFT + place * width, COLOURS[keras]
            box = f'<rect x="{x:g}" y="{y}" width="{width - GAP:g}" height="{FLOOR}" rx="5" fill="{colour}"/>'
            middle = x + (width - GAP) / 2
            words = [
                text(middle, y + 22, name.rstrip("."), 14, "bold"),
                text(middle, y + 41, WHAT[name], 11),
            ]
            parts += [box, '<g fill="#ffffff">', *words, "</g>"]
    for number, (keras, words) in enumerate(KEY.items()):
        x, colour = LEFT + 220 * number, COLOURS[keras]
        parts.append(f'<rect x="{x}" y="{height - 32}" width="14" height="14" rx="3" fill="{colour}"/>')
        parts.append(f'<g fill="#222222">{text(x + 20, height - 20, words, anchor="start")}</g>')
    note = text(WIDTH - LEFT, height - 20, "nothing imports what stands above it", anchor="end")
    return "\n".join([*parts, f'<g fill="#222222">{note}</g>', "</svg>"]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
