"""The JSON that Label Studio exports, in full and as JSON-MIN: spans, relations between them, choices."""

from typing import Any, NamedTuple

from bert4x.errors import DataError
from bert4x.tasks.readers.json_rows import field


class Span(NamedTuple):
    """Characters of a text, `text[start:end]`, with a label; the id is what relations name."""

    label: str
    start: int
    end: int
    id: Any = None


class Relation(NamedTuple):
    """A label between two spans, by their ids."""

    label: str
    source: Any
    target: Any


class Annotated(NamedTuple):
    """A text with what is annotated in it."""

    text: str
    spans: list[Span]
    relations: list[Relation]


def is_label_studio(row: dict[str, Any]) -> bool:
    """Whether an object is a task of Label Studio's JSON, or of its JSON-MIN."""
    if isinstance(row.get("data"), dict):
        return "annotations" in row or "completions" in row or "result" in row
    return any(is_region(item) for value in row.values() if isinstance(value, list) for item in value[:1])


def is_region(item: Any) -> bool:
    """Whether a value is a labelled region of a text."""
    return (
        isinstance(item, dict) and {"start", "end"} <= item.keys() and any(isinstance(v, list) for v in item.values())
    )


def annotated(row: dict[str, Any], where: str) -> tuple[Annotated | None, int]:
    """The text of a task with its first annotation that was not cancelled, or None where there is none; and how many
    others there are. Raises: DataError.
    """
    if not isinstance(row.get("data"), dict):
        return of_minimal(row, where), 0
    text = text_of(row["data"], where)
    all_of = row.get("annotations", row.get("completions", []))
    given = [one for one in all_of if isinstance(one, dict) and not one.get("was_cancelled") and "result" in one]
    if not given:
        return None, 0
    spans, relations = [], []
    for item in field(given[0], "result", list, where):
        if isinstance(item, dict) and item.get("type") == "relation":
            relations += relations_of(item, where)
        elif isinstance(item, dict) and isinstance(item.get("value"), dict) and "start" in item["value"]:
            spans += spans_of(item["value"], item.get("id"), text, where)
    return Annotated(text, spans, relations), len(given) - 1


def with_choices(row: dict[str, Any]) -> dict[str, Any]:
    """A task of the full export as a row of columns: its data, and as "label" the choices of its first annotation that
    was not cancelled. Other objects as they are.
    """
    if not is_label_studio(row) or not isinstance(row.get("data"), dict):
        return row
    all_of = row.get("annotations", row.get("completions", [row]))
    given = [one for one in all_of if isinstance(one, dict) and not one.get("was_cancelled")]
    results = [item for one in given[:1] for item in one.get("result") or () if isinstance(item, dict)]
    values = [item["value"] for item in results if isinstance(item.get("value"), dict)]
    return row["data"] | {"label": next((value["choices"] for value in values if "choices" in value), None)}


def of_minimal(row: dict[str, Any], where: str) -> Annotated:
    """A row of the export that is called JSON-MIN."""
    text = text_of({name: value for name, value in row.items() if name != "annotator"}, where)
    regions = [item for value in row.values() if isinstance(value, list) for item in value if is_region(item)]
    return Annotated(text, [span for item in regions for span in spans_of(item, None, text, where)], [])


def text_of(data: dict[str, Any], where: str) -> str:
    """The text of a task: what is called so, or the only one that is none of an address or a date. Raises: DataError"""
    for name in ("text", "文本", "content", "sentence"):
        if isinstance(data.get(name), str):
            return data[name]
    texts = [value for name, value in data.items() if isinstance(value, str) and not name.endswith(("_at", "id"))]
    if len(texts) != 1:
        raise DataError(f"{where}: {len(texts)} texts in {', '.join(data)}; expected one, or one called 'text'")
    return texts[0]


def spans_of(value: dict[str, Any], name: Any, text: str, where: str) -> list[Span]:
    """The spans of a region, one for each of its labels. Raises: DataError for what is not in the text."""
    start, end = place(value, text, where)
    labels = next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list)), [])
    if not labels:
        raise DataError(f"{where}: text {text[start:end]!r:.40} is marked without a label; expected one")
    return [Span(str(label), start, end, name) for label in labels]


def place(value: dict[str, Any], text: str, where: str) -> tuple[int, int]:
    """The characters of a region. What it says of the words there is compared: Label Studio counts UTF-16 units, of
    which a character beyond U+FFFF has two, while its Python tools count characters.

    Raises: DataError where neither fits.
    """
    start, end = field(value, "start", int, where), field(value, "end", int, where)
    said = value.get("text") if isinstance(value.get("text"), str) else None
    words = None if said is None else said.replace("\\n", "\n").split()
    for a, b in ((start, end), (from_utf16(text, start), from_utf16(text, end))):
        if 0 <= a < b <= len(text) and words in (None, text[a:b].split()):
            return a, b
    found = text[max(start, 0) : max(end, 0)]
    expected = "a part of the text" if said is None else repr(said)[:40]
    raise DataError(f"{where}: characters {start} to {end} are {found!r:.40}; expected {expected}")


def from_utf16(text: str, place: int) -> int:
    """The character at a place that is counted in UTF-16 units; -1 for none."""
    units = 0
    for number, character in enumerate(text):
        if units >= place:
            return number if units == place else -1
        units += 1 + (character > "\uffff")
    return len(text) if units == place else -1


def relations_of(item: dict[str, Any], where: str) -> list[Relation]:
    """The relations of an arrow; one in both directions counts twice. Raises: DataError without a label."""
    labels = item.get("labels")
    if not isinstance(labels, list) or not labels:
        raise DataError(f"{where}: a relation without a label; expected its predicate")
    ends = item.get("from_id"), item.get("to_id")
    ways = {"left": [ends[::-1]], "bi": [ends, ends[::-1]]}.get(item.get("direction"), [ends])
    return [Relation(str(label), *way) for label in labels for way in ways]
