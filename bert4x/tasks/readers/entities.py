"""Texts and their entities: a token and its tag in each line (BIO, CoNLL), or the JSON of annotation tools."""

import os
from collections.abc import Collection, Iterator
from typing import Any

from bert4x.errors import DataError, InputError
from bert4x.metrics.spans import Entity, find_entities
from bert4x.tasks.readers.annotated import read_annotated
from bert4x.tasks.readers.columns import OTHER, TEXT, is_name, vocabulary
from bert4x.tasks.readers.files import Say, ending, lines, warn
from bert4x.tasks.readers.json_rows import is_json
from bert4x.tasks.readers.labelled import check_labels, not_empty
from bert4x.tasks.readers.table import csv_rows, dialect

WORD = vocabulary("token word char character 字 词 字符")
TOKEN = TEXT | OTHER | WORD
FORM = "expected a token there, its tag in the last column, and an empty line after each text"
TAG = OTHER | vocabulary("tag label ner bio pos chunk 标签 标注 实体")


def read_entities(
    path: str | os.PathLike,
    labels: Collection[str] | None = None,
    *,
    header: bool | None = None,
    say: Say | None = None,
) -> list[dict[str, Any]]:
    """Texts and the characters that are entities: `{"text": str, "entities": [Entity(label, start, end), ...]}`.

    They come from a token and its tag in each line (`read_bio`), or from JSON lines or a JSON array, as exported by
    doccano and Label Studio, or as of CLUENER. An entity that is there twice is given once.

    Args:
        labels: all there are; any other is an error.
        header: of lines of tokens, whether the first line names the columns; None: where its tag is none.
        say: is told what was decided, and left out; by default it is a warning.
    Raises: DataError, with file and row.
    """
    say = say or warn
    if not is_json(path):
        return read_bio(path, labels, header=header, say=say)
    rows = []
    for where, row in read_annotated(path, say):
        entities = dict.fromkeys(Entity(span.label, span.start, span.end) for span in row.spans)
        check_labels([entity.label for entity in entities], labels, where, "label")
        rows.append({"text": row.text, "entities": list(entities)})
    return not_empty(rows, path)


def read_bio(
    path: str | os.PathLike,
    labels: Collection[str] | None = None,
    *,
    header: bool | None = None,
    say: Say | None = None,
) -> list[dict[str, Any]]:
    """`read_entities` from a token and its tag in each line, with an empty line after each text. Of more columns, the
    last is the tag, as in CoNLL. A line that has a tag only, after a space, stands for a space. `-DOCSTART-` lines, and
    comments (`# ...`) before a text, are no tokens.

    The tags are those of `bert4x.metrics.find_entities`: BIO, BIOES and the like. Tokens of several characters are
    joined, with a space between two words of Latin letters or digits.

    Raises: DataError, with file and line.
    """
    rows: list[dict[str, Any]] = []
    tokens: list[str] = []
    tags: list[str] = []
    known: set[str] = set()
    first, uncounted = True, 0
    for where, columns in token_lines(path):
        if not columns or columns[0] == "-DOCSTART-":
            rows += sentence(tokens, tags)
            tokens, tags = [], []
            continue
        if first:
            first = False
            if header or (header is None and names_columns(columns)):
                if not is_name(columns[0], WORD) and any(is_name(name, WORD) for name in columns[1:-1]):
                    raise DataError(f"{where}: the first column is {columns[0]!r}; {FORM}")
                if header is None:
                    names = ", ".join(columns)
                    (say or warn)(
                        f"{path}: the first line names the columns ({names}), it is no token; if it is: --no-header"
                    )
                continue
        if columns[0] == "#" and not tokens and not is_tag(columns[-1]):
            continue
        if len(columns) == 1:
            raise DataError(f"{where}: found {columns[0][:40]!r}; expected a character, a space or tab, and its tag")
        if columns[-1] not in known:
            known.add(checked_tag(columns[-1], labels, where))
        uncounted += len(columns) < 3 or columns[0] != str(len(tokens) + 1)
        tokens.append(columns[0])
        tags.append(columns[-1])
    rows += sentence(tokens, tags)
    if len(rows) > 1 and not uncounted:
        raise DataError(f"{path}: the first column counts 1, 2, 3 ...; {FORM}")
    return not_empty(rows, path)


def token_lines(path: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
    """Where each line is, and its columns; none of an empty one."""
    if ending(path) == ".csv":
        last = 0
        for where, row in csv_rows(path, dialect(path)[1]):
            number = int(where.rpartition(" ")[2])
            if number > last + 1:
                yield where, []
            last = number
            yield where, [row[0] or " ", *row[1:]]
        return
    for number, line in lines(path):
        columns = line.split()
        yield f"{path}, line {number}", [" ", *columns] if len(columns) == 1 and line[0].isspace() else columns


def names_columns(columns: list[str]) -> bool:
    """Whether the first line of a file names its columns."""
    return len(columns) > 1 and is_name(columns[0], TOKEN) and is_name(columns[-1], TAG) and not is_tag(columns[-1])


def sentence(tokens: list[str], tags: list[str]) -> list[dict[str, Any]]:
    """The row of a tagged text; none of an empty one."""
    if not tokens:
        return []
    text, starts = "", []
    for token in tokens:
        both = text[-1:] + token[:1]
        if len(both) == 2 and both.isascii() and both.isalnum() and max(len(token), len(tokens[len(starts) - 1])) > 1:
            text += " "
        starts.append(len(text))
        text += token
    entities = [
        Entity(label, starts[start], starts[end - 1] + len(tokens[end - 1]))
        for label, start, end in find_entities(tags)
    ]
    return [{"text": text, "entities": entities}]


def is_tag(tag: str) -> bool:
    """Whether it is one of BIO, BIOES and the like."""
    try:
        find_entities([tag])
    except InputError:
        return False
    return True


def checked_tag(tag: str, labels: Collection[str] | None, where: str) -> str:
    """A tag whose label is known. Raises: DataError"""
    try:
        entities = find_entities([tag])
    except InputError as error:
        raise DataError(f"{where}: {error}") from None
    check_labels([entity.label for entity in entities], labels, where, "label")
    return tag
