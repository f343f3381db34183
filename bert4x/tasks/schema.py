"""What universal extraction looks for: schemas and answers, as PaddleNLP's Taskflow writes them.

A schema names entities (`"人物"`), relations of what is found (`{"电影": ["导演", "票房"]}`), events by their
trigger (`{"地震触发词": ["震级", "时间"]}`), or a choice (`"情感倾向[正向，负向]"`), and lists of these, to any depth.
An answer maps each name for which something is found to
`[{"text", "start", "end", "probability", "relations": {...}}]`; what a choice chooses has no place.
"""

import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bert4x.errors import DataError

Answers = dict[str, list[dict[str, Any]]]
OF = "的"  # between what was found and what is asked of it
CHOICE = re.compile(r"[\[［](?P<options>[^\[\]［］]*)[\]］]$")
EXPECTED = 'a name, {name: what is asked of it}, or a list of these, such as ["人物", {"电影": ["导演", "票房"]}]'
# Prompts are written in half-width characters, as in the training of the published models.
HALF_WIDTH = {0x3000: 0x20} | {code + 0xFEE0: code for code in range(0x21, 0x7F)}


@dataclass(frozen=True)
class Wanted:
    """A name that is looked for, and what is then asked of all that is found."""

    name: str
    parts: tuple["Wanted", ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What a model is asked with a text; of a choice the characters of the options in the prompt."""

    text: str
    options: tuple[tuple[int, int], ...] = ()


def parse_schema(schema) -> tuple[Wanted, ...]:
    """What a schema looks for. Raises: DataError for what is none, and for a name that is there twice."""
    items = schema if isinstance(schema, list | tuple) else [schema]
    found = []
    for item in items:
        if isinstance(item, str) and item.strip():
            found.append(Wanted(item))
        elif isinstance(item, dict) and item and all(isinstance(name, str) and name.strip() for name in item):
            found += [Wanted(name, parse_schema(parts) if parts else ()) for name, parts in item.items()]
        else:
            raise DataError(f"the schema holds {item!r:.80}; expected {EXPECTED}")
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the schema holds {name!r} {names.count(name)} times; expected each name once")
    return tuple(found)


def spelled(wanted: Iterable[Wanted]) -> list:
    """The schema that `parse_schema` reads so."""
    return [{one.name: spelled(one.parts)} if one.parts else one.name for one in wanted]


def prompt(wanted: Wanted, subject: str | None = None) -> Prompt:
    """What is asked: for a name, or for that of a subject. Raises: DataError for a choice of fewer than two."""
    text = (wanted.name if subject is None else f"{subject}{OF}{wanted.name}").translate(HALF_WIDTH)
    match = CHOICE.search(text)
    if match is None:
        return Prompt(text)
    options = [m.span() for m in re.finditer(r"[^,、;|\s](?:[^,、;|]*[^,、;|\s])?", match["options"])]
    if len(options) < 2:
        raise DataError(f"{wanted.name!r} is no choice; expected options between the brackets, as in 情感[正向，负向]")
    first = match.start("options")
    return Prompt(text, tuple((first + start, first + end) for start, end in options))


def schema_of(rows: Iterable[dict[str, Any]]) -> list:
    """The schema of all that the answers of some rows name, in the order in which it first stands there."""
    names: dict[str, dict] = {}

    def gather(answers: Answers, into: dict[str, dict]) -> None:
        for name, spans in answers.items():
            own = into.setdefault(name, {})
            for span in spans:
                gather(span.get("relations", {}), own)

    def listed(found: dict[str, dict]) -> list:
        return [{name: listed(parts)} if parts else name for name, parts in found.items()]

    for row in rows:
        gather(row["answers"], names)
    return listed(names)


def found_in(answers: Answers) -> set[Hashable]:
    """What a text's answers name of themselves: (name, start, end); of a choice (name, words)."""
    return {
        (name, span["start"], span["end"]) if "start" in span else (name, span["text"].translate(HALF_WIDTH))
        for name, spans in answers.items()
        for span in spans
    }


def related_in(answers: Answers) -> Iterator[tuple[str, str, str]]:
    """What a text's answers say of what is found, (subject, name, words), at every depth."""
    for spans in answers.values():
        for span in spans:
            relations = span.get("relations", {})
            yield from ((span["text"], name, one["text"]) for name, found in relations.items() for one in found)
            yield from related_in(relations)


def lines_of(answers: Answers, before: str = "") -> set[str]:
    """Answers in words, a line each: what a span is, and what is said of it after that."""
    lines = set()
    for name, spans in answers.items():
        for span in spans:
            place = f" ({span['start']}-{span['end']})" if "start" in span and not before else ""
            lines.add(f"{before}{name}: {span['text'].translate(HALF_WIDTH)}{place}")
            lines |= lines_of(span.get("relations", {}), f"{before}{span['text']} | ")
    return lines


def compared(rows: Iterable[dict[str, Any]], answers: Iterable[Answers]) -> Iterator[str]:
    """Lines that say what of each row was found, what is not there, and what was missed."""
    for row, found in zip(rows, answers, strict=True):
        gold, ours = lines_of(row["answers"]), lines_of(found)
        yield row["text"]
        for mark, some in (("right", ours & gold), ("wrong", ours - gold), ("missed", gold - ours)):
            yield from (f"    {mark:>6}: {line}" for line in sorted(some))
