"""JSON lines and JSON arrays: an object for each example, with where it stands."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from bert4x.errors import DataError
from bert4x.tasks.readers.files import STDIN, SURROGATE, cleaned, ending, lines, not_blank, warn_of_surrogates, whole

KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


def json_objects(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each JSON object of a file is, and the object: JSON lines, or an array of objects, as the file begins.

    Lines are read one by one, an array as a whole. Raises: DataError.
    """
    if begins_with(path, r"\["):
        yield from json_array(path)
    else:
        yield from json_lines(path)


def begins_with(path: str | os.PathLike, pattern: str) -> bool:
    """Whether the first line of a file that is not empty begins so; that of standard input is not looked at."""
    if path == STDIN:
        return False
    first = next((line.strip() for _, line in lines(path) if line.strip()), "")
    return re.match(pattern, first) is not None


def is_json(path: str | os.PathLike) -> bool:
    """Whether a file holds JSON objects, by its name, or where that says nothing by how it begins."""
    if ending(path) in (".json", ".jsonl", ".ndjson"):
        return True
    return ending(path) not in (".csv", ".tsv") and begins_with(path, r'\{\s*"|\[\s*(\{|$)')


def json_array(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each object of a JSON array is, "file.json, item 1", and the object. Raises: DataError"""
    count = [0]
    values = loaded(whole(path), str(path), count)
    if not isinstance(values, list):
        raise DataError(f"{path}: found JSON of type {type(values).__name__}; expected an array, [{{...}}, ...]")
    for number, value in enumerate(values, start=1):
        yield f"{path}, item {number}", checked_object(value, f"{path}, item {number}")
    warn_of_surrogates(path, count[0])


def json_lines(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each JSON object is, "file.jsonl, line 1", and the object."""
    count = [0]
    for number, line in lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, parse(line, where, count)
    warn_of_surrogates(path, count[0])


def parse(text: str, where: str, count: list[int]) -> dict[str, Any]:
    """A JSON object; `count[0]` goes up by the surrogates that it spells as escapes."""
    return checked_object(loaded(text, where, count), where)


def loaded(text: str, where: str, count: list[int]) -> Any:
    """The value of a JSON text. Raises: DataError"""
    try:
        value = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON: {error}") from None
    return cleaned(value, count) if "\\u" in text or SURROGATE.search(text) else value


def checked_object(value: Any, where: str) -> dict[str, Any]:
    """An object. Raises: DataError for another value."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: found JSON of type {type(value).__name__}; expected an object, {{...}}")
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its keys and values. Raises: ValueError for a key that stands there twice"""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def text_field(row: Any, name: str, where: str) -> str:
    """A text of a JSON object. Raises: DataError for none, and for an empty one."""
    return not_blank(field(row, name, str, where), f"{where}: {name!r}")


def field(row: Any, name: str, kind: type, where: str) -> Any:
    """A value of a JSON object that is of some type. Raises: DataError."""
    if not isinstance(row, dict) or not isinstance(row.get(name), kind) or isinstance(row.get(name), bool):
        found = repr(row[name])[:40] if isinstance(row, dict) and name in row else "none"
        raise DataError(f"{where}: found {name!r}: {found}; expected {KINDS[kind]}")
    return row[name]
