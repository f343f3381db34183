"""Texts that are compared with each other, for sentence vectors: with a grade, with an answer, or alone."""

import itertools
import math
import os
from collections.abc import Iterator

from bert4x.errors import DataError, InputError, nearest
from bert4x.tasks.readers.columns import TARGET, TEXT, Column
from bert4x.tasks.readers.files import Say, not_blank
from bert4x.tasks.readers.json_rows import is_json, json_objects
from bert4x.tasks.readers.labelled import not_empty, read_labelled, read_texts
from bert4x.tasks.readers.table import PEEK, Source, csv_rows, dialect, tsv_rows

ENTAILED, CONTRADICTED = "entailment", "contradiction"
INFERENCE = {ENTAILED, CONTRADICTED, "neutral"}


def read_compared(
    source: Source,
    kind: str | None = "grades",
    *,
    wrong: int = 0,
    header: bool | None = None,
    say: Say | None = None,
    text_column: Column | None = None,
    pair_column: Column | None = None,
    label_column: Column | None = None,
) -> list[tuple]:
    """Rows for `bert4x.tasks.sentence_embedding.SentenceEmbedding`.

    Args:
        kind: "grades": (text, text, number), from columns; higher is nearer. "answers": (text, text that answers it,
            wrong answers ...), from JSON lines {"query": text, "pos": [texts], "neg": [texts]}, from two columns of
            text, or from pairs labelled entailment, neutral and contradiction. "texts": (text,), a text in each line.
            None: grades, or answers where no column has a grade.
        wrong: of "answers", how many wrong ones each row has; rows with less are left out, with a warning.
        text_column, pair_column, label_column: the names of columns, or their numbers from 1, where they are not found:
            see `read_labelled`.
    Raises: DataError, with file and row; InputError for another kind.
    """
    readers = {"grades": grades, "answers": answers, "texts": texts}
    if kind is None:
        kind = "grades" if label_column is not None or has_grades(source) else "answers"
    if kind not in readers:
        raise InputError(f"no kind of rows {kind!r}; {nearest(str(kind), readers)}")
    options = {"header": header, "say": say, "text_column": text_column, "pair_column": pair_column}
    return not_empty(readers[kind](source, wrong, options, label_column), source)


def has_grades(source) -> bool:
    """Whether a file has a third column, beside two texts, which says no entailment."""
    if is_json(source):
        row = next(json_objects(source), ("", {}))[1]
        return "pos" not in row and len(row) > 2 and not INFERENCE & {*map(str, row.values())}
    is_csv, separator = dialect(source)
    rows = csv_rows(source, separator) if is_csv else tsv_rows(source)
    some = [cells for _, cells in itertools.islice(rows, PEEK)]
    return any(len(cells) > 2 for cells in some) and not any(INFERENCE & {*cells} for cells in some)


def grades(source, wrong, options, label_column) -> list[tuple]:
    """Pairs of texts with a grade."""
    rows = read_labelled(source, texts=2, label_column=label_column, **options)
    return [(first, second, grade(value, f"{source}, row {i}")) for i, (first, second, value) in enumerate(rows, 1)]


def grade(value: str, where: str) -> float:
    """A grade as a number. Raises: DataError"""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not math.isfinite(number):
        raise DataError(f"{where}: found the grade {value!r:.40}; expected a number: higher is nearer")
    return number


def texts(source, wrong, options, label_column) -> list[tuple]:
    """Single texts."""
    return list(read_texts(source, **options))


def answers(source, wrong, options, label_column) -> list[tuple]:
    """Texts with an answer and wrong ones."""
    say = options["say"]
    if isinstance(source, str | os.PathLike) and is_json(source) and options["text_column"] is None:
        return enough(json_answers(source, wrong), wrong, source, say)
    pairs = list(read_texts(source, 2, words=TEXT | TARGET, **options))
    try:
        options = options | {"say": lambda text: None, "label_column": label_column}
        labelled = read_labelled(source, texts=2, **options)
    except DataError:
        labelled = []
    if labelled and {row[2] for row in labelled} >= {ENTAILED, CONTRADICTED}:
        return enough(of_inference(labelled, wrong), wrong, source, say)
    return enough(iter(pairs), wrong, source, say)


def json_answers(source, wrong: int) -> Iterator[tuple]:
    """A row for each right answer: (query, answer, wrong ones ...). Raises: DataError"""
    for where, row in json_objects(source):
        query, right, others = row.get("query"), row.get("pos"), row.get("neg") or []
        right, others = ([one] if isinstance(one, str) else one for one in (right, others))
        said = [
            query,
            *(right if isinstance(right, list) else [None]),
            *(others if isinstance(others, list) else [None]),
        ]
        if not all(isinstance(text, str) for text in said) or len(said) < 2:
            raise DataError(
                f'{where}: expected {{"query": text, "pos": [texts], "neg": [texts]}}; names of other '
                "columns, of a question and its answer: --text-column, --pair-column"
            )
        for text in said:
            not_blank(text, where)
        for answer in right:
            yield (query, answer, *others[:wrong])


def of_inference(rows: list[tuple], wrong: int) -> Iterator[tuple]:
    """Of pairs of a premise and a hypothesis: what is entailed answers it, what contradicts it is wrong."""
    for premise, some in itertools.groupby(rows, lambda row: row[0]):  # they stand together in the file
        some = list(some)
        right = [row[1] for row in some if row[2] == ENTAILED]
        others = [row[1] for row in some if row[2] == CONTRADICTED]
        for answer in right:
            yield (premise, answer, *others[:wrong])


def enough(rows: Iterator[tuple], wrong: int, source, say: Say | None) -> list[tuple]:
    """The rows that have as many wrong answers as are wanted; how many have not, is reported."""
    rows = list(rows)
    kept = [row for row in rows if len(row) == 2 + wrong]
    if len(kept) < len(rows) and say:
        say(f"{source}: {len(rows) - len(kept):,} of {len(rows):,} rows have less than {wrong} wrong answers; left out")
    return kept
