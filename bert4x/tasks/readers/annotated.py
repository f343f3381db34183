"""Texts with marked spans and relations, in JSON: doccano's, Label Studio's, CLUENER's, and our own."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bert4x.errors import DataError
from bert4x.tasks.readers import label_studio
from bert4x.tasks.readers.files import Say
from bert4x.tasks.readers.json_rows import json_objects, text_field
from bert4x.tasks.readers.label_studio import Annotated, Relation, Span

SHAPES = (
    'doccano\'s {"text": ..., "label": [[start, end, label], ...]} or {"text": ..., "entities": [...], "relations": '
    '[...]}, Label Studio\'s {"data": ..., "annotations": [...]}, CLUENER\'s {"text": ..., "label": {label: {words: '
    "[[first, last], ...]}}}"
)


def read_annotated(path: str | os.PathLike, say: Say) -> Iterator[tuple[str, Annotated]]:
    """Where each text is, and the text with its spans and relations. What is not annotated is left out, with a message.

    Raises: DataError, with file and row.
    """
    left: Counter[str] = Counter()
    for where, row in json_objects(path):
        if not label_studio.is_label_studio(row):
            yield where, checked(of_doccano(row, where), where)
            continue
        found, others = label_studio.annotated(row, where)
        left["texts without an annotation, left out"] += found is None
        left["texts with several annotations, of which the first is read"] += others > 0
        if found is not None:
            yield where, checked(found, where)
    for reason, count in (+left).items():
        say(f"{path}: {count} {reason}")


def checked(row: Annotated, where: str) -> Annotated:
    """The same. Raises: DataError for a span that is no part of its text."""
    for label, start, end, _ in row.spans:
        if not 0 <= start < end <= len(row.text):
            raise DataError(f"{where}: {label} at {start} to {end} of a text of {len(row.text)} characters")
    return row


def of_doccano(row: dict[str, Any], where: str) -> Annotated:
    """An object of doccano, CLUENER, or ours. Raises: DataError for any other."""
    name = "data" if isinstance(row.get("data"), str) and "text" not in row else "text"
    text = text_field(row, name, where)
    found = next((row[name] for name in ("entities", "label", "labels", "spans") if name in row), None)
    if isinstance(found, dict):
        return Annotated(text, of_cluener(found, text, where), [])
    if not isinstance(found, list):
        raise DataError(f"{where}: found {', '.join(row)}; expected {SHAPES}")
    spans = [of_span(item, where) for item in found]
    relations = [of_relation(item, where) for item in row.get("relations") or []]
    return Annotated(text, spans, relations)


def of_span(item: Any, where: str) -> Span:
    """doccano's list [start, end, label], or its dict; our own [label, start, end]. Raises: DataError"""
    if isinstance(item, list) and len(item) == 3:
        label, start, end = item if isinstance(item[0], str) else [item[2], *item[:2]]
        name = None
    elif isinstance(item, dict):
        start, end = (next((item[k] for k in (f"{w}_offset", w) if k in item), None) for w in ("start", "end"))
        label, name = next((item[k] for k in ("label", "type") if k in item), None), item.get("id")
    else:
        label = start = end = name = None
    if not (isinstance(label, str) and label) or type(start) is not int or type(end) is not int:
        raise DataError(f"{where}: found {item!r:.60}; expected [start, end, label], the end not included")
    return Span(label, start, end, name)


def of_relation(item: Any, where: str) -> Relation:
    """doccano's {"from_id", "to_id", "type"}. Raises: DataError"""
    if not isinstance(item, dict) or not isinstance(item.get("type"), str) or not {"from_id", "to_id"} <= item.keys():
        raise DataError(f'{where}: found {item!r:.60}; expected {{"from_id": ..., "to_id": ..., "type": ...}}')
    return Relation(item["type"], item["from_id"], item["to_id"])


def of_cluener(labels: dict[str, Any], text: str, where: str) -> list[Span]:
    """CLUENER's {label: {words: [[first, last], ...]}}, whose places include the last character. Raises: DataError"""
    spans = []
    for label, found in labels.items():
        if not isinstance(found, dict) or not all(isinstance(places, list) for places in found.values()):
            raise DataError(f"{where}: label {label!r}: {found!r:.40}; expected {{words: [[first, last], ...]}}")
        for words, places in found.items():
            for place in places:
                if not (isinstance(place, list) and len(place) == 2 and all(type(p) is int for p in place)):
                    raise DataError(f"{where}: label {label!r}: {place!r:.40}; expected [first, last]")
                if text[place[0] : place[1] + 1] != words:
                    raise DataError(
                        f"{where}: characters {place[0]} to {place[1]} are {text[place[0] : place[1] + 1]!r:.40}; "
                        f"expected {words!r:.40}"
                    )
                spans.append(Span(label, place[0], place[1] + 1))
    return spans
