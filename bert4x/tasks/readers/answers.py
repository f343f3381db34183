"""Texts and what is to be found in them by a schema, in the form of universal extraction's answers."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bert4x.errors import DataError
from bert4x.tasks.readers.annotated import read_annotated
from bert4x.tasks.readers.entities import read_bio
from bert4x.tasks.readers.files import Say, warn
from bert4x.tasks.readers.json_rows import field, is_json, json_objects, text_field
from bert4x.tasks.readers.label_studio import Annotated
from bert4x.tasks.readers.labelled import not_empty
from bert4x.tasks.readers.triples import stated

Answers = dict[str, list[dict[str, Any]]]


def read_answers(
    path: str | os.PathLike,
    names: Mapping[str, str] | None = None,
    *,
    header: bool | None = None,
    say: Say | None = None,
) -> list[dict[str, Any]]:
    """Texts and their answers: `{"text": str, "answers": {name: [{"text", "start", "end", "relations": {...}}]}}`, from

    - JSON lines of this form, which `bert4x predict` writes; of a choice an answer is `{"text": option}`;
    - the JSON of doccano and Label Studio, spans with relations between them, or of CLUENER;
    - SKE's JSON lines, `{"text": ..., "spo_list": [{"subject", "subject_type", "predicate", "object"}]}`, and DuIE's
      (see `read_triples`): a name stands wherever its words do;
    - a token and its tag in each line (`read_bio`).

    Args:
        names: what labels are called instead, {"PER": "人物"}: a model reads the names.
        header, say: as for `read_entities`.
    Raises: DataError, with file and row.
    """
    say = say or warn
    if not is_json(path):
        found = ((str(path), row["text"], of_entities(row)) for row in read_bio(path, header=header, say=say))
    else:
        first = next((row for _, row in json_objects(path)), {})
        forms = {"answers": own, "spo_list": of_triples}
        read = next((form for key, form in forms.items() if key in first), of_annotated)
        found = read(path, say)
    return not_empty([{"text": text, "answers": renamed(answers, names or {})} for _, text, answers in found], path)


def own(path: str | os.PathLike, say: Say) -> Iterator[tuple[str, str, Answers]]:
    """Rows of our own form."""
    for where, row in json_objects(path):
        yield where, text_field(row, "text", where), checked(field(row, "answers", dict, where), row["text"], where)


def checked(answers: Any, text: str, where: str) -> Answers:
    """The answers, without probabilities. Raises: DataError for what is none, or stands elsewhere."""
    found: Answers = {}
    for name, spans in answers.items():
        if not isinstance(spans, list):
            raise DataError(f"{where}: {name!r}: found {spans!r:.40}; expected a list of answers")
        for span in spans:
            kept = {"text": field(span, "text", str, where)}
            if "start" in span or "end" in span:
                kept |= {key: field(span, key, int, where) for key in ("start", "end")}
                if text[max(0, kept["start"]) : max(0, kept["end"])] != kept["text"]:
                    raise DataError(
                        f"{where}: characters {kept['start']} to {kept['end']} are not {kept['text']!r:.40}"
                    )
            if span.get("relations"):
                kept["relations"] = checked(field(span, "relations", dict, where), text, where)
            found.setdefault(name, []).append(kept)
    return found


def of_annotated(path: str | os.PathLike, say: Say) -> Iterator[tuple[str, str, Answers]]:
    """Rows of annotated texts."""
    for where, row in read_annotated(path, say):
        yield where, row.text, of_spans(row, where)


def of_spans(row: Annotated, where: str) -> Answers:
    """Spans by their labels, each with those that relations lead to. Raises: DataError"""
    answers: Answers = {}
    by_id: dict[Any, dict] = {}
    for label, start, end, name in row.spans:
        span = add(answers, label, row.text, start, end)
        if name is not None:
            by_id[name] = span
    for label, source, target in row.relations:
        for one in (source, target):
            if one not in by_id:
                raise DataError(f"{where}: relation {label!r} is of {one!r}, which is no entity of the text")
        to = by_id[target]
        add(by_id[source].setdefault("relations", {}), label, row.text, to["start"], to["end"])
    return answers


def of_entities(row: dict[str, Any]) -> Answers:
    """Entities as answers, by their labels."""
    answers: Answers = {}
    for label, start, end in row["entities"]:
        add(answers, label, row["text"], start, end)
    return answers


def of_triples(path: str | os.PathLike, say: Say) -> Iterator[tuple[str, str, Answers]]:
    """Triples as answers: subjects by their type, with relations to their objects."""
    left: Counter[str] = Counter()
    for where, row in json_objects(path):
        text, answers = text_field(row, "text", where), {}
        for triple in field(row, "spo_list", list, where):
            kind = field(triple, "subject_type", str, f"{where}: spo_list")
            for subject, predicate, object in stated(triple, f"{where}: spo_list"):
                places = [
                    [match.span() for match in re.finditer(re.escape(words), text)] if words else []
                    for words in (subject, object)
                ]
                left["triples whose words are not in the text, left out"] += not all(places)
                for start, end in places[0] if places[1] else ():
                    span = add(answers, kind, text, start, end)
                    for place in places[1]:
                        add(span.setdefault("relations", {}), predicate, text, *place)
        yield where, text, answers
    for reason, count in (+left).items():
        say(f"{path}: {count} {reason}")


def add(answers: Answers, name: str, text: str, start: int, end: int) -> dict[str, Any]:
    """A span among the answers, the one that is there already or a new one."""
    spans = answers.setdefault(name, [])
    for span in spans:
        if (span["start"], span["end"]) == (start, end):
            return span
    spans.append({"text": text[start:end], "start": start, "end": end})
    return spans[-1]


def renamed(answers: Answers, names: Mapping[str, str]) -> Answers:
    """The same under other names, at every depth."""
    found: Answers = {}
    for name, spans in answers.items():
        for span in spans:
            if "relations" in span:
                span = span | {"relations": renamed(span["relations"], names)}
            found.setdefault(names.get(name, name), []).append(span)
    return found
