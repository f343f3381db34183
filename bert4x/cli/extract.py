"""The command extract: triples of texts."""

import dataclasses
import json
import sys
from pathlib import Path

from bert4x.cli.decoding import read_stdin
from bert4x.errors import InputError, nearest


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("extract", run_extract, "find the triples (subject, predicate, object) that texts state")
    sub.add_argument("folder", metavar="RUN_FOLDER", help="what recipes/triple_extraction.py wrote")
    sub.add_argument("texts", nargs="*", metavar="TEXT", help="texts; without any, the lines of standard input")
    sub.add_argument("--file", type=Path, metavar="F", help="a file with a text in each line")
    sub.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts at once (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="one object a text, with the places of characters")
    sub.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the triples of the texts; also pdf, svg ...")


def run_extract(options) -> int:
    """Prints the triples of each text. Raises: InputError"""
    if options.batch_size < 1:
        raise InputError(f"--batch-size is {options.batch_size}; expected at least 1")
    texts = options.texts + (read_texts(options.file) if options.file else [])
    if not options.texts and options.file is None:
        texts = [line for line in read_stdin() if line.strip()]
    if options.plot:
        check_picture(options.plot)
    from bert4x.tasks.pipelines import pipeline

    answers = pipeline("triple-extraction", options.folder)(texts, options.batch_size)
    for text, found in zip(texts, answers, strict=True):
        if options.json:
            print(json.dumps({"text": text, "triples": [dataclasses.asdict(t) for t in found]}, ensure_ascii=False))
        else:
            show(text, found)
    if options.plot:
        from bert4x.plots import triples

        triples(texts, answers, options.plot)
        print(f"drawn: {options.plot}", file=sys.stderr)
    return 0


def show(text: str, found) -> None:
    """Prints a text and a table of its triples."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    print(text)
    if not found:
        print("  nothing found")
        return
    table = Table(box=None, pad_edge=True)
    for name in ("subject", "predicate", "object"):
        table.add_column(name, overflow="fold")
    for name in ("subject at", "object at", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for triple in found:
        places = (f"{start}-{end}" for start, end in (triple.subject_span, triple.object_span))
        words = (triple.subject, triple.predicate, triple.object, *places, f"{triple.score:.2f}")
        table.add_row(*map(Text, words))
    console = Console()
    console.print(table, width=None if console.is_terminal else 200)


def check_picture(path: Path) -> None:
    """Before anything is computed. Raises: MissingMatplotlibError; InputError for a file that cannot be written."""
    from bert4x.plots.figures import matplotlib_figure

    kinds = matplotlib_figure()[0]().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise InputError(f"--plot {path}: no kind of picture that can be written; {nearest(path.suffix[1:], kinds)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--plot {path}: {path.absolute().parent} is no folder; make it first")


def read_texts(path: Path) -> list[str]:
    """The lines of a file that are not empty. Raises: DataError."""
    from bert4x.tasks.readers.files import lines

    return [line for _, line in lines(path) if line.strip()]
