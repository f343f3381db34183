"""What each task reads of a file, with labels and without, and how an answer is written as JSON."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bert4x.errors import ConfigError
from bert4x.tasks.readers import (
    read_answers,
    read_compared,
    read_entities,
    read_labelled,
    read_pairs,
    read_squad,
    read_triples,
)
from bert4x.tasks.readers.columns import SOURCE, Column
from bert4x.tasks.readers.files import Say, ending
from bert4x.tasks.readers.json_rows import begins_with
from bert4x.tasks.readers.labelled import read_questions, read_texts


@dataclass(frozen=True)
class Columns:
    """Where texts and labels stand; None: as the readers find. `pairs`: there are two texts in a row."""

    header: bool | None = None
    text: Column | None = None
    pair: Column | None = None
    label: Column | None = None
    pairs: bool = False
    several: str | None = None

    @property
    def texts(self) -> int:
        """How many columns of text there are."""
        return 2 if self.pairs or self.pair is not None else 1


@dataclass(frozen=True)
class Form:
    """Of a task: its rows with labels (to score on), its inputs without, and the JSON of an input's answer."""

    rows: Callable[[Any, str | os.PathLike, Columns, Say], list]
    inputs: Callable[[str | os.PathLike, Columns, Say], Iterator]
    record: Callable[[Any, Any], dict[str, Any]]


def form_of(task: str) -> Form:
    """The form of a task by its name; of a user's that of the task it derives from, or its own (`form`).

    Raises: ConfigError for a task without one.
    """
    if task not in FORMS:
        from bert4x.tasks.pipelines import task_class

        cls = task_class(task)
        for known in [getattr(cls, "form", None), *(FORMS.get(vars(parent).get("name")) for parent in cls.__mro__)]:
            if known is not None:
                return known
        raise ConfigError(f"a run for {task!r} takes no file; those for {', '.join(FORMS)} do")
    return FORMS[task]


def labelled_rows(task, path, columns: Columns, say: Say) -> list:
    """Labelled texts; several labels are separated by commas unless told otherwise."""
    if getattr(task, "multi_label", False) and not columns.several:
        columns = dataclasses.replace(columns, several=",")
    labels = None if getattr(task, "problem_type", None) == "regression" else task.labels
    return read_labelled(
        path, texts=columns.texts, separator=columns.several, labels=labels, header=columns.header, say=say,
        text_column=columns.text, pair_column=columns.pair, label_column=columns.label,
    )  # fmt: skip


def texts(path, columns: Columns, say: Say) -> Iterator[str | tuple[str, str]]:
    """Texts, or pairs of them."""
    for found in read_texts(
        path, columns.texts, header=columns.header, text_column=columns.text, pair_column=columns.pair, say=say
    ):
        yield found[0] if len(found) == 1 else found


def sources(path, columns: Columns, say: Say) -> Iterator[str]:
    """Texts to be written about."""
    for (found,) in read_texts(path, header=columns.header, text_column=columns.text, words=SOURCE, say=say):
        yield found


def questions(path, columns: Columns, say: Say) -> Iterator[tuple[str, str]]:
    """Questions with their passages."""
    if ending(path) == ".json" and begins_with(path, "{"):
        for row in read_squad(path):
            yield row["question"], row["passage"]
    else:
        yield from read_questions(path, header=columns.header, say=say)


def label_record(given, answer) -> dict[str, Any]:
    """A text with its label, or several, and their probabilities."""
    said = {"text": given} if isinstance(given, str) else {"text": given[0], "pair": given[1]}
    if isinstance(answer, list):
        return said | {"labels": [{"label": one.label, "probability": one.probability} for one in answer]}
    return said | dataclasses.asdict(answer)


def listed(name: str) -> Callable[[str, list], dict[str, Any]]:
    """A function that gives the record of a text and what was found in it."""
    return lambda text, found: {"text": text, name: [dataclasses.asdict(one) for one in found]}


def answer_record(given, answer) -> dict[str, Any]:
    """A question with its answer."""
    return {"question": given[0], "answer": None if answer is None else dataclasses.asdict(answer)}


def triple_rows(task, path, columns, say):
    """Texts with their triples."""
    return read_triples(path, task.predicates, say=say)


TRIPLES = Form(triple_rows, texts, listed("triples"))
FORMS = {
    "text-classification": Form(labelled_rows, texts, label_record),
    "token-classification": Form(
        lambda task, path, columns, say: read_entities(path, task.labels, header=columns.header, say=say),
        texts,
        listed("entities"),
    ),
    "triple-extraction": TRIPLES,
    "gplinker": TRIPLES,
    "universal-extraction": Form(
        lambda task, path, columns, say: read_answers(path, header=columns.header, say=say),
        texts,
        lambda text, answers: {"text": text, "answers": answers},
    ),
    "reading-comprehension": Form(lambda task, path, columns, say: read_squad(path), questions, answer_record),
    "seq2seq": Form(
        lambda task, path, columns, say: read_pairs(
            path, header=columns.header, source_column=columns.text, target_column=columns.label, say=say
        ),
        sources,
        lambda source, target: {"source": source, "target": target},
    ),
    "sentence-embedding": Form(
        lambda task, path, columns, say: read_compared(
            path,
            kind=None,
            header=columns.header,
            say=say,
            text_column=columns.text,
            pair_column=columns.pair,
            label_column=columns.label,
        ),
        sources,
        lambda text, vector: {"text": text, "vector": [round(float(x), 7) for x in vector]},
    ),
}
