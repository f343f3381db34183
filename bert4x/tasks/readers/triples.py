"""Texts and the triples that they state: bert4keras' JSON lines, or the JSON of annotation tools."""

import os
from collections.abc import Collection
from typing import Any

from bert4x.errors import DataError
from bert4x.tasks.readers.annotated import read_annotated
from bert4x.tasks.readers.files import Say, warn
from bert4x.tasks.readers.json_rows import field, json_objects, text_field
from bert4x.tasks.readers.label_studio import Annotated
from bert4x.tasks.readers.labelled import check_labels, not_empty

Triple = tuple[str, str, str]
VALUE = "@value"  # the slot of an object in DuIE 2.0 that is the object itself


def read_triples(
    path: str | os.PathLike, predicates: Collection[str] | None = None, *, say: Say | None = None
) -> list[dict[str, Any]]:
    """Texts and the triples that they state: `{"text": str, "spo_list": [(subject, predicate, object), ...]}`, from
    JSON lines or a JSON array: as bert4keras reads them, `{"text": ..., "spo_list": [{"subject": ..., "predicate": ...,
    "object": ...}]}`, other keys left out; or as exported by doccano and Label Studio, each relation a triple of the
    words that it links. A triple that occurs twice in a text is given once. Of an object with slots, as DuIE 2.0 has
    them, each slot is a triple: `{"@value": ..., "inArea": ...}` of 票房 are 票房 and 票房_inArea.

    With `predicates`, any other is an error. `say` is told what is left out; by default it is a warning.

    Raises: DataError, with file and row.
    """
    path_says = next((row for _, row in json_objects(path)), {})
    read = annotated_triples if is_annotated(path_says) else spo_triples
    rows = []
    for where, text, triples in read(path, say or warn):
        check_labels([predicate for _, predicate, _ in triples], predicates, where, "predicate")
        rows.append({"text": text, "spo_list": list(dict.fromkeys(triples))})
    return not_empty(rows, path)


def is_annotated(row: dict[str, Any]) -> bool:
    """Whether a row has annotations, and no triples."""
    return "spo_list" not in row and any(
        isinstance(row.get(name), list) for name in ("relations", "annotations", "completions")
    )


def spo_triples(path: str | os.PathLike, say: Say):
    """Where each text is, the text, and its triples, from `spo_list`."""
    for where, row in json_objects(path):
        text, triples = text_field(row, "text", where), []
        for item in field(row, "spo_list", list, where):
            triples += stated(item, f"{where}: spo_list")
        yield where, text, triples


def stated(item: dict[str, Any], where: str) -> list[Triple]:
    """The triples of an item of `spo_list`: one, or one of each slot of its object that is not empty.

    Raises: DataError.
    """
    subject, predicate = (text_field(item, key, where) for key in ("subject", "predicate"))
    if not isinstance(item.get("object"), dict):
        return [(subject, predicate, text_field(item, "object", where))]
    slots, where = item["object"], f"{where}: object"
    field(slots, VALUE, str, where)
    found = {slot: field(slots, slot, str, where) for slot in slots}
    return [
        (subject, predicate if slot == VALUE else f"{predicate}_{slot}", words)
        for slot, words in found.items()
        if words or slot == VALUE
    ]


def annotated_triples(path: str | os.PathLike, say: Say):
    """The same, from relations between spans."""
    for where, row in read_annotated(path, say):
        yield where, row.text, [triple_of(row, relation, where) for relation in row.relations]


def triple_of(row: Annotated, relation, where: str) -> Triple:
    """The words that a relation links. Raises: DataError for one between what is not there."""
    words = {span.id: row.text[span.start : span.end] for span in row.spans if span.id is not None}
    for end in (relation.source, relation.target):
        if end not in words:
            raise DataError(f"{where}: relation {relation.label!r} is of {end!r}, which is no entity of the text")
    return words[relation.source], relation.label, words[relation.target]
