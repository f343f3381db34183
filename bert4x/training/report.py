"""What people see of a run: how it goes, and the card in its folder."""

import contextvars
import functools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from typing import ClassVar

from bert4x import chinese
from bert4x.training.batches import as_rows
from bert4x.version import __version__

_showing: contextvars.ContextVar[bool] = contextvars.ContextVar("showing", default=False)


def watched(evaluate: Callable) -> Callable:
    """For a task's `evaluate`, which then has a list of rows: shows a bar while it computes, unless training does so
    already.
    """

    @functools.wraps(evaluate)
    def shown(task, rows, *args, **kwargs):
        token = _showing.set(not Display.active)
        try:
            return evaluate(task, as_rows(rows), *args, **kwargs)
        finally:
            _showing.reset(token)

    return shown


def with_bar(batches: Iterable[Sequence], total: int, what: str = "scoring") -> Iterator[Sequence]:
    """The batches, and within `watched` a bar of how many of `total` rows they have had."""
    bar, done = progress_bar(total, what=what) if _showing.get() else None, 0
    try:
        for batch in batches:
            yield batch
            done += len(batch)
            if bar:
                bar.show(done, what)
    finally:
        if bar:
            bar.stop()


class Display:
    """Shows how training goes: a bar with the time left in a terminal, a line for every epoch elsewhere, or JSON.

    `remark`: scores -> a line to say beside them, or None.
    """

    active: ClassVar[int] = 0  # of them at work

    def __init__(self, args, say: Callable[[str], None], remark: Callable[[dict], str | None] | None = None):
        self.args, self.say, self.remark = args, say, remark
        self.bar, self.losses = None, []

    def __enter__(self):
        Display.active += 1
        return self

    def __exit__(self, *exception):
        Display.active -= 1
        if self.bar:
            self.bar.stop()

    def start(self, total: int, done: int) -> None:
        """Begins, perhaps somewhere in the middle."""
        self.bar = progress_bar(total, done) if not self.args.json and getattr(self.args, "verbose", True) else None

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
                self.bar.show(record["update"], f"loss {mean:.4f}")
            return
        scores = {name: value for name, value in record.items() if name not in ("epoch", "update", "seconds")}
        mean = sum(self.losses) / max(1, len(self.losses))
        self.losses = []
        said = [f"loss {mean:.4f}", *(f"{name} {value:.4g}" for name, value in scores.items())]
        if self.bar:
            self.bar.clear()
        values = {"epoch": record["epoch"], "epochs": self.args.epochs, "seconds": record["seconds"]}
        self.say(chinese.line("epoch {epoch:g}/{epochs}: {scores}, {seconds:.0f} s", scores=", ".join(said), **values))
        if self.remark and scores and (line := self.remark(scores)):
            self.say(f"    {line}")


def progress_bar(total: int, done: int = 0, what: str = "training"):
    """A bar with the time left, where somebody watches: in a terminal and in a notebook; None elsewhere."""
    if "ipykernel" in sys.modules:
        return NotebookBar(total, done, what)
    return TerminalBar(total, done, what) if sys.stderr.isatty() else None


class TerminalBar:
    """A bar on the last line of a terminal; lines that are printed go above it."""

    def __init__(self, total: int, done: int, what: str):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        self.task = self.bar.add_task(what, total=total, completed=done)

    def show(self, done: int, what: str) -> None:
        """How far it has come, and what is said of it."""
        self.bar.update(self.task, completed=done, description=what)

    def clear(self) -> None:
        """Makes room for a line: nothing to do."""

    def stop(self) -> None:
        """Takes it away."""
        self.bar.stop()


class NotebookBar:
    """A bar in the output of a notebook's cell, which knows no more of a terminal than to begin a line anew."""

    WIDTH = 30

    def __init__(self, total: int, done: int, what: str):
        self.total, self.first, self.began, self.shown = total, done, time.monotonic(), 0.0
        self.longest = 0
        self.show(done, what)

    def show(self, done: int, what: str) -> None:
        """How far it has come, and what is said of it; at most five times in a second."""
        now = time.monotonic()
        if now - self.shown < 0.2 and done < self.total:
            return
        self.shown = now
        full = self.WIDTH * done // max(self.total, 1)
        left = (now - self.began) / max(done - self.first, 1) * (self.total - done)
        rest = f"{int(left) // 60}:{int(left) % 60:02d}" if done > self.first else "-:--"
        self.write(f"{what} {'█' * full}{'░' * (self.WIDTH - full)} {done}/{self.total} {rest}")

    def write(self, text: str) -> None:
        self.longest = max(self.longest, len(text))
        print(f"\r{text:<{self.longest}}", end="", flush=True)

    def clear(self) -> None:
        """Makes room for a line, which would begin behind the bar; it comes again below."""
        print("\r" + " " * self.longest, end="\r", flush=True)

    def stop(self) -> None:
        """Takes it away."""
        self.clear()


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
{start}.{trial}

```
{command}
```

{software}
"""
TRIAL = " A small trial (`--smoke`), to show that it runs: the scores say nothing about quality."


def card(task, report, args, trained: int, scored: int) -> str:
    """The README of a run's folder: use, scores, and the command that made it; Chinese where the locale is."""
    template, which, start, trial = CARD, ", after epoch {} of {}", "the small model inside bert4x", TRIAL
    if chinese.is_wanted():
        which, start = "，取第 {} 轮（共 {} 轮）", " bert4x 自带的小模型"
        template, trial = chinese.CARD, chinese.TRIAL
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
        trial=trial if getattr(args, "smoke", False) else "",
        command=args.command,
        software=", ".join(f"{name} {version}" for name, version in versions().items()),
    )
