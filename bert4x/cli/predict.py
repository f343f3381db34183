"""The command predict: the answers of a run to all that is in a file."""

import contextlib
import itertools
import sys
from pathlib import Path

from bert4x.chinese import line
from bert4x.errors import InputError

STREAM = "-"


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("predict", run_predict, "write the answers of a run to all texts of a file, as JSON lines")
    sub.add_argument("run_folder", metavar="RUN", help="what a recipe wrote")
    sub.add_argument("input", metavar="IN", help='txt (a text a line), tsv, csv, jsonl or json; "-" is standard input')
    sub.add_argument("output", metavar="OUT.jsonl", help='is gone on with if it is there; "-" is standard output')
    add_columns(sub)


def add_text_column(sub) -> None:
    """Options that say where single texts stand in a file."""
    header = sub.add_mutually_exclusive_group()
    header.add_argument("--header", action="store_true", default=None, help="the first line names the columns")
    header.add_argument("--no-header", action="store_false", dest="header", help="it does not")
    sub.add_argument("--text-column", metavar="C", help="of the text (or source): its name, or number from 1")


def add_columns(sub) -> None:
    """Options that say where texts stand in a file, and how many are computed at once."""
    add_text_column(sub)
    sub.add_argument("--pair-column", metavar="C", help="of the second text, where a run is of pairs")
    sub.add_argument("--pairs", action="store_true", help="two texts in each row")
    sub.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts at once (default: %(default)s)")


def columns_of(options):
    """Those options, as the readers take them. Raises: InputError for a size that is none."""
    from bert4x.tasks.forms import Columns

    if options.batch_size < 1:
        raise InputError(f"--batch-size is {options.batch_size}; expected at least 1")
    label, several = getattr(options, "label_column", None), getattr(options, "several", None)
    return Columns(options.header, options.text_column, options.pair_column, label, options.pairs, several)


def say(text: str) -> None:
    """Prints what readers decide, aside from the answers."""
    print(text, file=sys.stderr, flush=True)


def run_predict(options) -> int:
    """Writes an answer for each input, in their order. Raises: InputError"""
    columns = columns_of(options)
    from bert4x.tasks.file_answers import PART, Output, alone, answer_file, fingerprint
    from bert4x.tasks.forms import form_of
    from bert4x.tasks.heads import read_task
    from bert4x.tasks.pipelines import pipeline

    name = read_task(options.run_folder)[0]
    form, part = form_of(name), PART * options.batch_size

    def compute(inputs, file, observe=lambda count: None):
        task = pipeline(name, options.run_folder)

        def write(text):
            file.write(text)
            file.flush()

        answer_file(inputs, lambda some: task(some, batch_size=options.batch_size), form.record, write, part, observe)

    if STREAM in (options.input, options.output):
        inputs = form.inputs(options.input, columns, say)
        if options.output == STREAM:
            compute(inputs, sys.stdout)
            return 0
        if Path(options.output).exists():
            raise InputError(f"{options.output} is there already; of standard input nothing can be gone on with")
        with open(options.output, "w", encoding="utf-8") as file:
            compute(inputs, file)
        return 0

    path = Path(options.output)
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path.absolute().parent} is no folder; make it first")
    total = sum(1 for _ in form.inputs(options.input, columns, say))  # first, so that an error in the last line is seen
    made_of = {
        "input": fingerprint(Path(options.input)),
        "model": fingerprint(Path(options.run_folder)),
        "options": {"batch_size": options.batch_size, **vars(columns)},
    }
    with alone(path):
        done = Output(path, made_of, part).resume(total)
        if 0 < done < total:
            say(f"going on with {path} after {done:,} of {total:,} answers")
        if done < total:
            rest = itertools.islice(form.inputs(options.input, columns, lambda text: None), done, None)
            with path.open("a", encoding="utf-8") as file, progress(total, done) as observe:
                compute(rest, file, observe)
    say(line("{total:,} answers in {path}", total=total, path=path))
    return 0


@contextlib.contextmanager
def progress(total: int, done: int = 0):
    """A bar with the time left, in a terminal. Gives a function that is told of how many more are done."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda count: bar.advance(task, count)
