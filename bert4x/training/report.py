"""What people see of a run: how it goes, and the card in its folder."""

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

from bert4x import chinese
from bert4x.version import __version__


class Display:
    """Shows how training goes: a bar with the time left in a terminal, a line for every epoch elsewhere, or JSON.

    `remark`: scores -> a line to say beside them, or None.
    """

    def __init__(self, args, say: Callable[[str], None], remark: Callable[[dict], str | None] | None = None):
        self.args, self.say, self.remark = args, say, remark
        self.bar, self.losses = None, []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar:
            self.bar.stop()

    def start(self, total: int, done: int) -> None:
        """Begins, perhaps somewhere in the middle."""
        if self.args.json or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        self.task = self.bar.add_task("training", total=total, completed=done)

    def show(self, record: dict) -> None:
        """One record of the metrics."""
        if self.args.json:
            print(json.dumps(record, ensure_ascii=False), flush=True)
            return
        if "loss" in record:
            self.losses.append(record["loss"])
            if self.bar:
                recent = self.losses[-20:]
                mean = sum(recent) / len(recent)
                self.bar.update(self.task, completed=record["update"], description=f"loss {mean:.4f}")
            return
        scores = {name: value for name, value in record.items() if name not in ("epoch", "update", "seconds")}
        mean = sum(self.losses) / max(1, len(self.losses))
        self.losses = []
        said = [f"loss {mean:.4f}", *(f"{name} {value:.4g}" for name, value in scores.items())]
        self.say(f"epoch {record['epoch']:g}/{self.args.epochs}: {', '.join(said)}, {record['seconds']:.0f} s")
        if self.remark and scores and (line := self.remark(scores)):
            self.say(f"    {line}")


def is_best(score: float, before: float | None) -> bool:
    """Whether a score is the best so far: of two as good, the later one is, whose weights learned for longer."""
    return before is None or math.isnan(before) or score >= before


def best_of(scores: Sequence[float]) -> int:
    """The place of the best of all scores, by `is_best`."""
    best = 0
    for place, score in enumerate(scores):
        if is_best(score, scores[best]):
            best = place
    return best


def versions() -> dict[str, str]:
    """Of what computes the result, and on what."""
    import keras

    backend = keras.backend.backend()
    found = {"bert4x": __version__} | {name: metadata.version(name) for name in ("keras", backend, "numpy")}
    return found | {"python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}


CARD = """# {task}

```python
import bert4x

task = bert4x.pipeline("{task}", "{folder}")
```

| score | value |
|---|---|
{rows}

On {scored} rows{which}; trained on {trained} examples, {updates} updates, {seconds:.0f} s, from
{start}.

```
{command}
```

{software}
"""


def card(task, report, args, trained: int, scored: int) -> str:
    """The README of a run's folder: use, scores, and the command that made it; Chinese where the locale is."""
    template, which, start = CARD, ", after epoch {} of {}", "the small model inside bert4x"
    if chinese.is_wanted():
        template, which, start = chinese.CARD, "，取第 {} 轮（共 {} 轮）", " bert4x 自带的小模型"
    return template.format(
        task=task.name,
        folder=report.folder,
        rows="\n".join(f"| {name} | {value:.4g} |" for name, value in report.scores.items()),
        scored=scored,
        which="" if report.best_epoch is None else which.format(f"{report.best_epoch:g}", args.epochs),
        trained=trained,
        updates=report.updates,
        seconds=report.seconds,
        start=args.model or start,
        command=shlex.join(["python", *sys.argv]),
        software=", ".join(f"{name} {version}" for name, version in versions().items()),
    )
