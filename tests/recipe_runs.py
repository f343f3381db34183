"""Smoke runs of the recipes in this process, and what was recorded of them.

    python tests/recipe_runs.py text_classification ...

records the first losses of `--smoke` in golden/recipes/, by TensorFlow on a CPU. What is written there by hand stays:
"least", scores that the run must reach; "files", patterns of what it must leave; "compared", how many losses count of a
part that learns from texts which another part wrote: one token that rounding changes is in all but the first.
"""

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden/recipes"
FIRST = 10  # losses that are compared: later ones drift apart from machine to machine


def load_recipe(name: str):
    """The module of a recipe."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / "recipes" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smoke(name: str, folder: Path):
    """What `main` of a recipe returns, run with `--smoke`."""
    from bert4x.recipe import parse

    module = load_recipe(name)
    return module.main(parse(module.Arguments, module.__doc__, ["--smoke", "--output", str(folder)]))


def first_losses(folder: Path) -> dict[str, list[float]]:
    """Of every metrics.jsonl in a folder, by where it is."""
    from bert4x.training.loop import read_metrics

    found = {}
    for path in sorted(folder.rglob("metrics.jsonl")):
        losses = [record["loss"] for record in read_metrics(path) if "loss" in record]
        found[path.parent.relative_to(folder).as_posix()] = losses[:FIRST]
    return found


def record(name: str) -> None:
    """Runs a recipe, and writes its losses beside what was written by hand."""
    import tempfile

    path = GOLDEN / f"{name}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {"files": [], "least": {}}
    with tempfile.TemporaryDirectory() as folder:
        result = smoke(name, Path(folder))
        losses = {run: [float(f"{x:.6g}") for x in values] for run, values in first_losses(Path(folder)).items()}
        files = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())
    print(f"{name}: {getattr(result, 'scores', result)}; files: {', '.join(files)}")
    path.write_text(json.dumps(kept | {"losses": losses}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name in sys.argv[1:]:
        record(name)
