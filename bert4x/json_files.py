"""Reading JSON that may be damaged or hostile."""

import codecs
import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert4x.checkpoints.formats.foreign import HEAD, text_of
from bert4x.errors import CheckpointNotFoundError, CorruptFileError

MAX_JSON_BYTES = 100_000_000  # the bound of the safetensors reference on its header


def parse_json(data: bytes, where: str, *, unique_keys: bool = False, kind: type = dict) -> Any:
    """The JSON object in `data`, or, of `kind` list, the list. It must be UTF-8; a byte order mark, which Windows'
    editors write, is passed over.

    Raises: CorruptFileError for anything else, hostile nesting, and with `unique_keys` a key that occurs twice.
    """

    def unique(pairs):
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CorruptFileError(f"{where} is in UTF-16; save it as UTF-8")
    if what := text_of(data[:HEAD]):
        raise CorruptFileError(f"{where}: this is {what}")
    try:  # decoded here: json would also guess UTF-16 and UTF-32
        text = data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=unique if unique_keys else None)
        if "\\ud" in text or "\\uD" in text:  # half of a pair can be escaped in JSON, and be written in no other file
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{where} is not readable JSON: {error}") from None
    if not isinstance(value, kind):
        raise CorruptFileError(f"{where} holds a JSON {type(value).__name__}; expected {KINDS[kind]}")
    return value


def read_json(
    path: str | os.PathLike, *, limit: int = MAX_JSON_BYTES, unique_keys: bool = False, kind: type = dict
) -> Any:
    """The JSON object in a file, or, of `kind` list, the list.

    Raises: CheckpointNotFoundError when there is no such file, CorruptFileError when it is not one or beyond `limit`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    with path.open("rb") as file:
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)  # all of it is allocated at once
    if len(data) > limit:
        raise CorruptFileError(f"{path} has more than {limit:,} bytes; that is too much for a JSON file of its kind")
    return parse_json(data, str(path), unique_keys=unique_keys, kind=kind)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def check_kinds(data: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], where: str) -> None:
    """Checks that the values of some keys are of the kinds that are expected there; null and no such key are fine.

    Raises: CorruptFileError that names the file `where`, the key, what it says and what was expected.
    """
    for key, expected in kinds.items():
        value = data.get(key)
        if value is not None and type(value) not in expected:  # exactly: true is no integer
            words = " or ".join(KINDS[kind] for kind in expected)
            raise CorruptFileError(f"{where}: {key!r} is {shown(value)}; expected {words}")


def shown(value) -> str:
    """A value of a file for a message about it: as Python writes it, but never long, however large the value is."""
    return _SHORT.repr(value)


ABSENT = object()  # what `looked_up` gives where there is nothing: null is a value


def looked_up(data: dict[str, Any], key: str) -> Any:
    """The value of a key, whose dots lead into objects; ABSENT where there is none."""
    first, _, rest = key.partition(".")
    if not isinstance(data, dict) or first not in data:
        return ABSENT
    return looked_up(data[first], rest) if rest else data[first]


def without(data: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """An object without these keys, and without objects that would be empty."""
    rest = {key: value for key, value in data.items() if key not in keys}
    for first in {key.partition(".")[0] for key in keys if "." in key} & rest.keys():
        if isinstance(rest[first], dict):
            rest[first] = without(rest[first], {key.partition(".")[2] for key in keys if key.startswith(f"{first}.")})
    return {key: value for key, value in rest.items() if value != {} or data[key] == {}}


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Gives a key, whose dots lead into objects, a value."""
    first, _, rest = key.partition(".")
    if rest:
        data[first] = dict(data.get(first) or {})  # not that of the config
        put(data[first], rest, value)
    else:
        data[first] = value
