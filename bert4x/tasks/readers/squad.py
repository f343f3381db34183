"""Questions on passages, from JSON as of SQuAD and CMRC 2018."""

import os
from typing import Any

from bert4x.tasks.readers.files import warn_of_surrogates, whole
from bert4x.tasks.readers.json_rows import field, parse, text_field
from bert4x.tasks.readers.labelled import not_empty


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
            passage = text_field(paragraph, "context", f"{where}: paragraphs")
            for question in field(paragraph, "qas", list, f"{where}: paragraphs"):
                rows.append(read_question(question, passage, f"{where}: qas"))
    warn_of_surrogates(path, count[0])
    return not_empty(rows, path)


def read_question(question: Any, passage: str, where: str) -> dict[str, Any]:
    """A question with its answers, whose places may be off by a little."""
    name = str(question.get("id", "")) if isinstance(question, dict) else ""
    where = f"{where} {name!r}"
    asked = text_field(question, "question", where)
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
