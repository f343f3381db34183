"""Rows for classification and for writing a text from a text: in TSV, CSV, JSON, or a DataFrame of pandas."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from bert4x.errors import DataError, InputError, nearest
from bert4x.tasks.readers.columns import FIRST, LABEL, LAST, PASSAGE, QUESTION, SOURCE, TARGET, TEXT, Column, Wanted
from bert4x.tasks.readers.files import STDIN, Say, ending, lines, warn
from bert4x.tasks.readers.json_rows import is_json
from bert4x.tasks.readers.table import Cell, Source, is_missing, read_columns


def read_labelled(
    source: Source,
    *,
    texts: int = 1,
    label: str | None = None,
    separator: str | None = None,
    labels: Collection[str] | None = None,
    header: bool | None = None,
    text_column: Column | None = None,
    pair_column: Column | None = None,
    label_column: Column | None = None,
    say: Say | None = None,
) -> list[tuple]:
    """Labelled texts: (text, label); of pairs, (text, second text, label).

    They come from a file of TSV, `text <tab> label` in each line; of CSV; of JSON lines or a JSON array, such as
    doccano's; from a DataFrame of pandas, or dicts. Columns are found by what is given here, by their names (text,
    label, 标签 ...), or by their places: the label last, and the texts just before it.

    Args:
        texts: how many columns of text there are, 1 or 2.
        label: the column of the label by its place, "first" or "last", whatever its name.
        separator: what stands between several labels in their column; the label of a row is then a list, maybe empty.
        labels: all there are; any other is an error.
        header: whether the first line names the columns; None: by what stands there.
        text_column, pair_column, label_column: their names, or numbers from 1.
        say: is told what was decided; by default it is a warning.
    Raises: DataError, with file, row and column, for what cannot be read, None and NaN included; InputError for an
    argument that cannot be.
    """
    if label not in ("first", "last", None) or texts not in (1, 2):
        raise InputError(f"label = {label!r}, texts = {texts}; expected 'first' or 'last', or None, and 1 or 2 texts")
    say = say or warn
    given = {"first": FIRST, "last": LAST}.get(label) if label_column is None else label_column
    wanted = [*wanted_texts(texts, text_column, pair_column), Wanted("label", LABEL, given)]
    rows = []
    for *found, last in read_columns(source, wanted, header, say, labels):
        ours = labels_of(last, separator)
        check_labels(ours, labels, last.where, "label")
        rows.append((*(cell.text() for cell in found), ours if separator else ours[0]))
    if header is None and labels is None and not separator:
        doubt_first_label(source, [row[-1] for row in rows], say)
        if label is None and label_column is None:
            doubt_places(source, rows, say)
    return not_empty(rows, source)


def wanted_texts(texts: int, text_column: Column | None, pair_column: Column | None) -> list[Wanted]:
    """The columns of one text, or of a pair."""
    return [Wanted("text", TEXT, text_column), Wanted("pair", TEXT, pair_column)][:texts]


def labels_of(cell: Cell, separator: str | None) -> list[str]:
    """The labels of a cell, each once. Raises: DataError without one, unless there may be none."""
    value = cell.value
    if is_missing(value):
        raise DataError(f"{cell.where}: no label but {value!r}; expected one in every row")
    if isinstance(value, dict):
        raise DataError(f"{cell.where}: found {value!r:.40}; expected a label")
    if isinstance(value, list | tuple):
        found = [str(one) for one in value if not is_missing(one)]
    else:
        found = str(value).split(separator) if separator else [str(value)]
    found = list(dict.fromkeys(one.strip() for one in found if one.strip()))
    if not found and not separator:
        raise DataError(f"{cell.where}: no label; expected one in every row")
    if len(found) > 1 and not separator:
        raise DataError(
            f"{cell.where}: {len(found)} labels, {', '.join(found)}; where a text has several, say --several ,"
        )
    return found


def doubt_first_label(source: Source, labels: Sequence[str], say: Say) -> None:
    """Says where the label of the first line is a class of its own, as that of a header would be."""
    counts = Counter(labels)
    if isinstance(source, str | os.PathLike):
        lone = [label for label, count in counts.items() if count == 1]
        if len(labels) > 2 * len(counts) and lone == labels[:1]:
            say(f"{source}: only the first line has the label {lone[0]!r}; if that line names the columns: --header")


def doubt_places(source: Source, rows: Sequence[tuple], say: Say) -> None:
    """Says where labels differ from row to row, and texts do not: the label may stand first."""
    texts, labels = ({row[place] for row in rows} for place in (0, -1))
    if len(rows) > 2 and len(texts) < len(labels) > len(rows) / 2:
        say(
            f"{source}: {len(labels)} labels in {len(rows)} rows, but {len(texts)} texts ({rows[0][0]!r:.20} ...); if "
            "the label stands first: --label-first"
        )


def read_pairs(
    source: Source,
    *,
    header: bool | None = None,
    source_column: Column | None = None,
    target_column: Column | None = None,
    say: Say | None = None,
) -> list[tuple[str, str]]:
    """Sources and targets: (source, target), from what `read_labelled` reads as well; of more columns without names the
    last two.

    Raises: DataError, with file, row and column.
    """
    wanted = [Wanted("source", SOURCE, source_column), Wanted("target", TARGET, target_column)]
    rows = [(first.text(), second.text()) for first, second in read_columns(source, wanted, header, say or warn)]
    return not_empty(rows, source)


def read_texts(
    source: Source,
    texts: int = 1,
    *,
    header: bool | None = None,
    text_column: Column | None = None,
    pair_column: Column | None = None,
    words: frozenset[str] = TEXT,
    say: Say | None = None,
) -> Iterator[tuple[str, ...]]:
    """Texts without labels, (text,) or (text, second text), one after the other, from what `read_labelled` reads, and
    from a text in each line; empty lines are none. Of columns without names the texts are the first.

    Raises: DataError, with file, row and column.
    """
    if texts == 1 and text_column is None and not header and is_plain(source):
        for _, line in lines(source):
            if line.strip():
                yield (line,)
        return
    wanted = [Wanted("text", words, text_column), Wanted("pair", words, pair_column)][:texts]
    for cells in read_columns(source, wanted, header, say or warn):
        yield tuple(cell.text() for cell in cells)


def is_plain(source: Source) -> bool:
    """Whether each line of a file is a text, by its name, and as the first one has no tabs."""
    if source == STDIN:
        return True
    if not isinstance(source, str | os.PathLike) or ending(source) in (".csv", ".tsv") or is_json(source):
        return False
    return "\t" not in next((line for _, line in lines(source) if line.strip()), "")


def read_questions(source: Source, *, header: bool | None = None, say: Say | None = None) -> Iterator[tuple[str, str]]:
    """Questions on passages, (question, passage), without answers. Raises: DataError, with file, row and column."""
    wanted = [Wanted("question", QUESTION), Wanted("passage", PASSAGE)]  # what stands after them is not read
    for question, passage in read_columns(source, wanted, header, say or warn):
        yield question.text(), passage.text()


def check_labels(found: Sequence[str], labels: Collection[str] | None, where: str, kind: str) -> None:
    """Raises: DataError for a label that is none of the known ones."""
    if labels is not None and (others := [one for one in found if one not in labels]):
        raise DataError(f"{where}: unknown {kind} {others[0]!r}; {nearest(others[0], labels)}")


def not_empty(rows: list, source: Any) -> list:
    """The rows. Raises: DataError where there are none."""
    if not rows:
        name = source if isinstance(source, str | os.PathLike) else f"the {type(source).__name__}"
        raise DataError(f"{name} has no examples; expected at least one")
    return rows
