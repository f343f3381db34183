"""Files of examples: text in columns, JSON lines, one character a line, and SQuAD's JSON; plain or .xz, in UTF-8.

A byte order mark and Windows' line ends are no part of the text. Unpaired surrogates, which no model and no file can
hold, become U+FFFD, with a warning that counts them. Every reader raises DataError, naming file and line, for what it
cannot read, and for a file without examples.
"""

import json
import lzma
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from bert4x.errors import DataError, InputError, nearest
from bert4x.metrics.spans import Entity, find_entities

LONGEST_LINE = 1 << 28  # bytes of a line, or of a JSON file, so that a damaged or hostile file does not fill the memory
KINDS = {str: "text", int: "a whole number", list: "a list"}
SURROGATE = re.compile("[\ud800-\udfff]")

Triple = tuple[str, str, str]


def read_triples(path: str | os.PathLike, predicates: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Texts and the triples that they state: `{"text": str, "spo_list": [(subject, predicate, object), ...]}`, from
    lines of JSON as bert4keras reads, `{"text": ..., "spo_list": [{"subject": ..., "predicate": ..., "object": ...}]}`;
    other keys are left out. A triple that occurs twice in a text is given once.

    With `predicates`, any other is an error.
    """
    rows = []
    for where, row in json_lines(path):
        text = field(row, "text", str, where)
        triples: dict[Triple, None] = {}
        for item in field(row, "spo_list", list, where):
            triple = tuple(field(item, key, str, f"{where}: spo_list") for key in ("subject", "predicate", "object"))
            check_labels([triple[1]], predicates, where, "predicate")
            triples[triple] = None
        rows.append({"text": text, "spo_list": list(triples)})
    return not_empty(rows, path)


def read_tsv(
    path: str | os.PathLike,
    *,
    texts: int = 1,
    label: str = "last",
    separator: str | None = None,
    labels: Collection[str] | None = None,
    header: bool = False,
) -> list[tuple]:
    """Labelled texts, `text <tab> label` in each line: (text, label); of pairs, (text, second text, label).

    Args:
        texts: how many columns of text there are.
        label: the column of the label, "first" or "last". Of more columns than are needed, those next to it are read.
        separator: what stands between several labels in their column; the label of a row is then a list, maybe empty.
        labels: all there are; any other is an error.
        header: whether the first line names the columns.
    """
    if label not in ("first", "last") or texts < 1:
        raise InputError(f"label = {label!r}, texts = {texts}; expected 'first' or 'last', and at least 1")
    rows = []
    for where, columns in table(path, texts + 1, label == "last", header):
        found = columns.pop(-1 if label == "last" else 0).strip()
        ours = [one.strip() for one in found.split(separator)] if separator else [found]
        ours = list(dict.fromkeys(one for one in ours if one))
        if not (ours or separator):
            raise DataError(f"{where}: no label; expected one in the {label} column")
        check_labels(ours, labels, where, "label")
        rows.append((*columns, ours if separator else ours[0]))
    return not_empty(rows, path)


def read_pairs(path: str | os.PathLike) -> list[tuple[str, str]]:
    """Sources and targets, `source <tab> target` in each line, of more columns the last two: (source, target)."""
    return not_empty([(source, target) for _, (source, target) in table(path, 2, True, False)], path)


def read_bio(path: str | os.PathLike, labels: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Texts and the characters that are entities: `{"text": str, "entities": [Entity(label, start, end), ...]}`, from
    a character and its tag in each line, with an empty line after each text. Of more columns, the last is the tag. A
    line that has a tag only, after a space, stands for a space.

    The tags are those of `bert4x.metrics.find_entities`: BIO, BIOES and the like. Tokens of several characters are
    joined, with a space between two words of Latin letters or digits. With `labels`, any other is an error.
    """
    rows: list[dict[str, Any]] = []
    tokens: list[str] = []
    tags: list[str] = []
    known: set[str] = set()
    for number, line in lines(path):
        columns = line.split()
        if not columns or columns[0] == "-DOCSTART-":
            rows += sentence(tokens, tags)
            tokens, tags = [], []
            continue
        if len(columns) == 1 and line[0].isspace():
            columns = [" ", *columns]
        where = f"{path}, line {number}"
        if len(columns) == 1:
            raise DataError(f"{where}: found {line[:40]!r}; expected a character, a space or tab, and its tag")
        if columns[-1] not in known:
            known.add(checked_tag(columns[-1], labels, where))
        tokens.append(columns[0])
        tags.append(columns[-1])
    return not_empty(rows + sentence(tokens, tags), path)


def read_squad(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Questions on passages, from JSON as of SQuAD and CMRC 2018: `{"id": str, "question": str, "passage": str,
    "answers": [(text, start), ...]}`.

    `start` is the character of the passage at which the answer begins; where the file is wrong about it, the nearest at
    which the answer stands, or None if it does not stand there at all. Answers that occur twice are given once.
    """
    where, count = str(path), [0]
    data = parse(whole(path), where, count)
    rows = []
    for article in field(data, "data", list, where):
        for paragraph in field(article, "paragraphs", list, f"{where}: data"):
            passage = field(paragraph, "context", str, f"{where}: paragraphs")
            for question in field(paragraph, "qas", list, f"{where}: paragraphs"):
                rows.append(read_question(question, passage, f"{where}: qas"))
    warn_of_surrogates(path, count[0])
    return not_empty(rows, path)


def read_question(question: Any, passage: str, where: str) -> dict[str, Any]:
    asked = field(question, "question", str, where)
    name = str(question.get("id", ""))
    where = f"{where} {name!r}"
    answers: dict[tuple[str, int | None], None] = {}
    for answer in field(question, "answers", list, where) if "answers" in question else []:
        text, start = field(answer, "text", str, where), field(answer, "answer_start", int, where)
        if text.strip():
            answers[text, nearest_place(passage, text, start)] = None
    return {"id": name, "question": asked, "passage": passage, "answers": list(answers)}


def nearest_place(text: str, part: str, place: int) -> int | None:
    """Where a part stands in a text, as near to a place as it does."""
    place = min(max(place, 0), len(text))
    before, after = text.rfind(part, 0, place + len(part)), text.find(part, place)
    found = [at for at in (before, after) if at >= 0]
    return min(found, key=lambda at: abs(at - place), default=None)


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


def checked_tag(tag: str, labels: Collection[str] | None, where: str) -> str:
    try:
        entities = find_entities([tag])
    except InputError as error:
        raise DataError(f"{where}: {error}") from None
    check_labels([entity.label for entity in entities], labels, where, "label")
    return tag


def check_labels(found: Iterable[str], labels: Collection[str] | None, where: str, kind: str) -> None:
    if labels is not None and (others := [one for one in found if one not in labels]):
        raise DataError(f"{where}: unknown {kind} {others[0]!r}; {nearest(others[0], labels)}")


def not_empty(rows: list, path: str | os.PathLike) -> list:
    if not rows:
        raise DataError(f"{path} has no examples; expected at least one")
    return rows


def field(row: Any, name: str, kind: type, where: str) -> Any:
    """A value of a JSON object that is of some type."""
    if not isinstance(row, dict) or not isinstance(row.get(name), kind):
        found = repr(row[name])[:40] if isinstance(row, dict) and name in row else "none"
        raise DataError(f"{where}: found {name!r}: {found}; expected {KINDS[kind]}")
    return row[name]


def table(path: str | os.PathLike, least: int, last: bool, header: bool) -> Iterator[tuple[str, list[str]]]:
    """Where each line is, and its `least` columns, the last or the first ones. All lines have as many columns."""
    size = None
    for number, line in lines(path):
        if not line.strip():
            continue
        columns = line.split("\t")
        size = size or max(len(columns), least)
        if len(columns) != size:
            raise DataError(
                f"{path}, line {number}: {len(columns)} columns in {line[:40]!r}; expected {size}, between tabs"
            )
        if header:
            header = False
            continue
        yield f"{path}, line {number}", columns[-least:] if last else columns[:least]


def json_lines(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each JSON object is, and the object."""
    count = [0]
    for number, line in lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, parse(line, where, count)
    warn_of_surrogates(path, count[0])


def parse(text: str, where: str, count: list[int]) -> dict[str, Any]:
    """A JSON object; `count[0]` goes up by the surrogates that it spells as escapes."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: found JSON of type {type(value).__name__}; expected an object, {{...}}")
    return cleaned(value, count) if "\\u" in text or SURROGATE.search(text) else value


def cleaned(value: Any, count: list[int]) -> Any:
    """The same with U+FFFD for surrogates, which are added to `count[0]`."""
    if isinstance(value, str):
        value, found = SURROGATE.subn("\ufffd", value)
        count[0] += found
    elif isinstance(value, list):
        return [cleaned(item, count) for item in value]
    elif isinstance(value, dict):
        return {cleaned(key, count): cleaned(item, count) for key, item in value.items()}
    return value


def lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """The lines of a file, numbered from 1, without their ends."""
    count = [0]
    with opened(path) as file:
        number = 0
        while line := guarded(file.readline, path, f"line {number + 1}"):
            number += 1
            line = decoded(line, f"{path}, line {number}").removesuffix("\n").removesuffix("\r")
            yield number, cleaned(line.removeprefix("\ufeff") if number == 1 else line, count)
    warn_of_surrogates(path, count[0])


def whole(path: str | os.PathLike) -> str:
    """A file as one text."""
    with opened(path) as file:
        return decoded(guarded(file.read, path, "the file"), str(path)).removeprefix("\ufeff")


def opened(path: str | os.PathLike):
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; expected a file of examples")
    return lzma.open(path) if path.suffix == ".xz" else path.open("rb")


def guarded(read, path: str | os.PathLike, what: str) -> bytes:
    """Bytes read, up to a bound."""
    try:
        data = read(LONGEST_LINE + 1)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: damaged at {what}: {error}") from None
    if len(data) > LONGEST_LINE:
        raise DataError(f"{path}: {what} has more than {LONGEST_LINE:,} bytes; expected shorter ones")
    return data


def decoded(data: bytes, where: str) -> str:
    try:  # some programs write surrogates as if they were characters; what is made of them is the caller's
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: no UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8") from None


def warn_of_surrogates(path: str | os.PathLike, count: int) -> None:
    if count:
        warnings.warn(f"{path} has {count} unpaired surrogates; each is read as U+FFFD", stacklevel=4)
