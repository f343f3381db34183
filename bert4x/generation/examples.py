"""Files of solved cases, such as `FewShot` is given."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

from bert4x.errors import GenerationError

MAX_BYTES = 100_000_000


def read_examples(path: str | os.PathLike, fields: Sequence[str] | None = None) -> list[dict]:
    """The cases of a file: a JSON list of objects; JSON lines, an object each; or else tab-separated values whose first
    line names the fields. With `fields`, other fields are left out.

    Raises: GenerationError for a file that is none of these, or is not there.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise GenerationError(f"{path} has more than {MAX_BYTES:,} bytes; examples are a few cases")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise GenerationError(f"{path} cannot be read: {error}") from error
    rows = read_json_rows(text, path) if text.lstrip()[:1] in ("[", "{") else read_tsv_rows(text, path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise GenerationError(f"{path}: case {number} is a {type(row).__name__}; expected an object with fields")
    return [{name: row[name] for name in row if fields is None or name in fields} for row in rows]


def read_json_rows(text: str, path: Path) -> list:
    """The values of a JSON list or of JSON lines. Raises: GenerationError."""
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.split("\n") if line.strip()]  # U+2028 ends no line
    except (ValueError, RecursionError) as error:
        raise GenerationError(f"{path} is not readable JSON: {error}") from error


def read_tsv_rows(text: str, path: Path) -> list[dict]:
    """The rows after the first line. Raises: GenerationError for a row of another length than the first."""
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    names, *rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if lines else [[]]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise GenerationError(
                f"{path}: case {number} has {len(row)} values, the first line names {len(names)} fields: {names}"
            )
    return [dict(zip(names, row, strict=True)) for row in rows]
