"""Rows in columns, wherever they come from: TSV, CSV, JSON, or a DataFrame of pandas."""

import csv
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bert4x.errors import DataError, InputError
from bert4x.tasks.readers.columns import Wanted, choose, is_header
from bert4x.tasks.readers.files import LONGEST_LINE, Say, ending, lines, not_blank
from bert4x.tasks.readers.json_rows import is_json, json_objects
from bert4x.tasks.readers.label_studio import with_choices

PEEK = 50  # rows that decide whether the first one is a header
SEPARATOR_LINE = re.compile("sep=[,;\t]")  # the first line of a CSV file that tells Excel what divides columns
NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons"}
Source = str | os.PathLike | Iterable


class Cell(NamedTuple):
    """What stands in a column of a row."""

    value: Any
    row: str
    column: str | int

    @property
    def where(self) -> str:
        """Such as "data.csv, line 3, column 'label'"."""
        return f"{self.row}, column {self.column!r}"

    def text(self) -> str:
        """The value, which is a text that is not empty. Raises: DataError."""
        if not isinstance(self.value, str):
            raise DataError(f"{self.where}: found {self.value!r:.40}; expected text, in every row")
        return not_blank(self.value, self.where)


def read_columns(
    source: Source,
    wanted: Sequence[Wanted],
    header: bool | None = None,
    say: Say | None = None,
    known: Iterable[str] | None = None,
) -> Iterator[list[Cell]]:
    """Of each row the cells of the columns that are wanted.

    Args:
        source: a file of TSV, CSV, JSON lines or a JSON array; a DataFrame of pandas; an iterable of dicts.
        header: whether the first line names the columns; None: decided by what stands there.
        say: is told what was decided, where that could be wrong.
        known: labels that there are: a first line with one of them is no header.
    Raises: DataError, with file, row and column.
    """
    if not isinstance(source, str | os.PathLike):
        rows, name = of_objects(source)
    elif is_json(source):
        rows, name = ((where, with_choices(row)) for where, row in json_objects(source)), str(source)
    else:
        yield from delimited(source, wanted, header, say or (lambda text: None), known)
        return
    names: list[str] = []
    for where, row in rows:
        if not names:
            columns = list(map(str, row))
            places = choose(name, columns, len(columns), wanted, by_place=False)
            names = [columns[place] for place in places]
        for one in names:
            if one not in row:
                raise DataError(f"{where}: no column {one!r}; found {', '.join(map(str, row))}")
        yield [Cell(row[one], where, one) for one in names]


def delimited(path, wanted, header, say, known) -> Iterator[list[Cell]]:
    """`read_columns` of TSV and CSV."""
    is_csv, separator = dialect(path, say)
    rows = csv_rows(path, separator) if is_csv else tsv_rows(path)
    rows = same_size(rows, len(wanted), separator)
    start = list(itertools.islice(rows, PEEK))
    if not start:
        return
    first = [cell.strip().strip("\"'").strip() for cell in start[0][1]]  # some write names, but no text, in quotes
    found = header
    if header is None:
        found = not (set(known or ()) & set(first)) and is_header(first, [row for _, row in start[1:]], wanted)
    names = first if found else None
    places = choose(start[0][0] if names is None else str(path), names, len(first), wanted, by_place=True)
    if found and header is None:
        uses = ", ".join(f"{w.use} = {names[place] or place + 1!r}" for w, place in zip(wanted, places, strict=True))
        say(f"{path}: the first line names the columns ({uses}), it is no example; if it is: --no-header")
    elif names is None and len(first) > len(wanted) and any(one.given is None for one in wanted):
        uses = ", ".join(f"{w.use} = {place + 1}" for w, place in zip(wanted, places, strict=True))
        options = ", ".join(one.option for one in wanted)
        say(f"{path}: of {len(first)} columns only these are read: {uses}; others: {options}")
    titles = [names[place] if names else place + 1 for place in places]
    for where, row in itertools.chain(start[1:] if found else start, rows):
        yield [Cell(row[place], where, title) for place, title in zip(places, titles, strict=True)]


def dialect(path: str | os.PathLike, say: Say = lambda text: None) -> tuple[bool, str]:
    """Whether a file is CSV, with quotes, and what stands between columns: what a line "sep=;" of Excel says, or what
    the first lines have as often, of two a comma, which is said.
    """
    if ending(path) != ".csv":
        return False, "\t"
    some = [line for _, line in itertools.islice(lines(path), PEEK) if line.strip()]
    if some and SEPARATOR_LINE.fullmatch(some[0]):
        return True, some[0][4]
    bare = ["".join(line.split('"')[::2]) for line in some]  # what is quoted separates nothing
    counts = {mark: [line.count(mark) for line in bare] for mark in ",\t;"}
    fits = [mark for mark, found in counts.items() if min(found, default=0) == max(found, default=0) > 0]
    if len(fits) > 1:
        ours, other = (NAMES[mark] for mark in fits[:2])
        say(
            f"{path}: {other} would divide all lines as well as {ours} do; columns are read between {ours}. If that is "
            f"wrong, write sep={fits[1]} above the first line"
        )
    if fits:
        return True, fits[0]
    first = {mark: sum(found[:1]) for mark, found in counts.items()}  # a cell may have several lines
    return True, max(first, key=lambda mark: (first[mark] > 0, mark == ",", first[mark]))


def tsv_rows(path: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
    """Lines at their tabs: quotes are text."""
    for number, line in lines(path):
        if line.strip():
            yield f"{path}, line {number}", line.split("\t")


def csv_rows(path: str | os.PathLike, separator: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of CSV (RFC 4180): quoted cells may hold separators, line ends and doubled quotes. Raises: DataError"""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    reader = csv.reader((f"{line}\n" for _, line in lines(path)), delimiter=separator, strict=True)
    number = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            hint = 'a cell that begins with a quote ends with one, and quotes inside are doubled: "他说""好"""'
            raise DataError(f"{path}, line {number}: no CSV: {error}; {hint}") from None
        if row is None:
            return
        is_separator = number == 1 and SEPARATOR_LINE.fullmatch(separator.join(row))
        if any(cell.strip() for cell in row) and not is_separator:
            yield f"{path}, line {number}", row
        number = reader.line_num + 1


def same_size(rows: Iterable[tuple[str, list[str]]], least: int, separator: str) -> Iterator[tuple[str, list[str]]]:
    """The same rows. Raises: DataError for one of another number of columns than the first."""
    size = 0
    for where, row in rows:
        size = size or max(len(row), least)
        if len(row) != size:
            hint = "; columns between commas are those of a file named .csv" if len(row) == 1 and "," in row[0] else ""
            cells, expected = separator.join(row)[:40], f"{size}, between {NAMES[separator]}"
            raise DataError(f"{where}: {len(row)} columns in {cells!r}; expected {expected}{hint}")
        yield where, row


def of_objects(source: Any) -> tuple[Iterator[tuple[str, Mapping[str, Any]]], str]:
    """The rows of a DataFrame, or of an iterable of dicts, and how to call the whole. Raises: InputError, DataError"""
    if hasattr(source, "itertuples") and hasattr(source, "columns"):
        names = list(map(str, source.columns))
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"the DataFrame has two columns {twice[0]!r}; expected each once")
        rows = (
            (f"the DataFrame, row {row[0]!r}", dict(zip(names, row[1:], strict=True)))
            for row in source.itertuples(name=None)
        )
        return rows, "the DataFrame"
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise InputError(f"found {type(source).__name__}; expected a file, a DataFrame, or a list of dicts")
    return ((f"row {number}", checked(row, number)) for number, row in enumerate(source)), "the rows"


def checked(row: Any, number: int) -> Mapping[str, Any]:
    """A row that is a dict. Raises: InputError"""
    if not isinstance(row, Mapping):
        raise InputError(f"row {number} is {row!r:.60}; expected a dict with a value for each column")
    return row


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
