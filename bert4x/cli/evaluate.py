"""The command evaluate: the scores of a run on a file."""

import json
import sys
from pathlib import Path

from bert4x.cli.predict import add_columns, columns_of, progress, say
from bert4x.errors import InputError

MOST_COLUMNS = 12  # labels up to which the confusion matrix is printed


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("evaluate", run_evaluate, "score a run on a file of examples")
    sub.add_argument("run_folder", metavar="RUN", help="what a recipe wrote")
    sub.add_argument("file", metavar="FILE", help="what the recipe trains on: tsv, csv, jsonl, json, bio ...")
    add_columns(sub)
    sub.add_argument("--label-column", metavar="C", help="of the label (or target): its name, or number from 1")
    sub.add_argument("--several", metavar="MARK", help="what stands between several labels (default: a comma)")
    sub.add_argument("--json", action="store_true", help="for machines")
    sub.add_argument("--plot", type=Path, metavar="OUT.png", help="of a classifier, draw the confusion matrix")


def run_evaluate(options) -> int:
    """Prints the scores; of a classifier those of every class, too. Raises: InputError"""
    columns = columns_of(options)
    if options.plot:
        from bert4x.cli.extract import check_picture

        check_picture(options.plot)
    from bert4x.tasks.forms import form_of
    from bert4x.tasks.heads import read_task
    from bert4x.tasks.pipelines import pipeline

    name = read_task(options.run_folder)[0]
    form = form_of(name)
    if options.plot and name != "text-classification":
        raise InputError(f"--plot draws the classes of a classifier; {options.run_folder} is a run for {name!r}")
    task = pipeline(name, options.run_folder)
    rows = form.rows(task, options.file, columns, say)
    if name == "text-classification" and getattr(task, "problem_type", None) != "regression":
        from bert4x.tasks.classes import class_scores

        with progress(len(rows)) as observe:
            classes = class_scores(task, rows, options.batch_size, observe)
        scores, found = classes.scores, classes.to_dict()
    else:
        classes, scores = None, task.evaluate(rows, batch_size=options.batch_size)  # which shows a bar of its own
        found = {"scores": scores}
    if options.json:
        print(json.dumps({"rows": len(rows)} | found, ensure_ascii=False))
    else:
        print(f"{', '.join(f'{score} {value:.4g}' for score, value in scores.items())}, on {len(rows):,} rows")
        if classes:
            show(classes)
    if options.plot and classes:
        from bert4x.plots import confusion

        confusion(classes, options.plot)
        print(f"drawn: {options.plot}", file=sys.stderr)
    return 0


def show(classes) -> None:
    """Prints a table of the labels, and which was taken for which."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    width = None if console.is_terminal else 200
    table = Table(box=None, pad_edge=True)
    table.add_column("label", overflow="fold")
    for name in ("precision", "recall", "F1", "rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, counts in classes.by_label.items():
        numbers = (f"{counts.precision:.4f}", f"{counts.recall:.4f}", f"{counts.f1:.4f}", f"{counts.gold:,}")
        table.add_row(Text(label), *numbers)
    console.print(table, width=width)
    if not classes.confusion or len(classes.labels) > MOST_COLUMNS:
        return
    table = Table(box=None, pad_edge=True)
    table.add_column("true, and as what it was taken")
    for label in classes.labels:
        table.add_column(Text(label), justify="right")
    for label, row in zip(classes.labels, classes.confusion, strict=True):
        table.add_row(Text(label), *(f"{count:,}" for count in row))
    console.print()
    console.print(table, width=width)
