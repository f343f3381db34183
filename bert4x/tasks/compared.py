"""Rows of texts that are compared with each other: what sentence vectors learn from."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert4x import layers as L
from bert4x.errors import DataError


@dataclass(frozen=True)
class Example:
    """Encoded texts that are compared with each other, and what is known of them: a grade, or a teacher's vector."""

    rows: tuple[tuple[int, ...], ...]
    target: float | np.ndarray | None = None

    @property
    def length(self) -> int:
        return max(map(len, self.rows))


def kind_of(row: tuple, number: int) -> str:
    """What a row to train on is. Raises: DataError for one that is of no kind."""
    texts = [isinstance(value, str) for value in row]
    if len(row) == 1 and all(texts):
        return "single texts"
    if len(row) >= 2 and all(texts):
        return "answers"
    last = row[-1]
    if len(row) == 3 and texts == [True, True, False] and isinstance(last, int | float | np.number) and last == last:
        return "grades"
    if len(row) == 2 and texts[0] and isinstance(last, list | tuple | np.ndarray):
        return "vectors"
    raise DataError(
        f"row {number}: found {row!r:.80}; expected (text, text, grade), (text, answer, wrong answers ...), (text,) or "
        "(text, vector)"
    )


def checked(rows: Sequence) -> list[tuple]:
    """Rows, all of one kind and with as many texts. Raises: DataError"""
    rows = [(row,) if isinstance(row, str) else tuple(row) for row in rows]
    kinds = {kind_of(row, number): number for number, row in enumerate(rows)}
    if len(kinds) > 1:
        found = ", ".join(f"{kind} (row {number})" for kind, number in sorted(kinds.items()))
        raise DataError(f"rows of several kinds: {found}; expected one of them")
    widths = {len(row): number for number, row in enumerate(rows)}
    if len(widths) > 1:
        found = ", ".join(f"{width} (row {number})" for width, number in sorted(widths.items()))
        raise DataError(f"rows of {found} texts; expected as many in all")
    return rows


def texts_of(row: tuple) -> int:
    """How many texts a row has."""
    return sum(isinstance(value, str) for value in row)


def right_answers(rows: Sequence[tuple]) -> dict[str, dict[str, None]]:
    """What each question is answered by, in all rows: (question, answer, ...)."""
    right: dict[str, dict[str, None]] = {}
    for question, answer, *_ in rows:
        right.setdefault(question, {})[answer] = None
    return right


def example(row: tuple, kind: str, rows: Sequence[Sequence[int]]) -> Example:
    """A row whose texts are encoded. A single text is compared with itself, under another dropout."""
    ids = tuple(map(tuple, rows)) * (2 if kind == "single texts" else 1)
    return Example(ids, None if isinstance(row[-1], str) else np.asarray(row[-1], "float32"))


def targets(examples: Sequence[Example], kind: str) -> np.ndarray:
    """What the loss takes, a row an example: grades (B,), vectors (B, D), or a number for each text, (B, C), the same
    for the same text in whatever batch.
    """
    if kind in ("grades", "vectors"):
        return np.stack([example.target for example in examples])
    names = [[zlib.crc32(np.array(ids, "int32")) >> 1 for ids in example.rows] for example in examples]
    return np.array(names, "int32")


def joined(batches: Sequence, columns: int):
    """Arrays whose rows stand column by column, as one: the first columns of all, then the second ones ..."""
    parts = [L.ops.split(batch, columns) for batch in batches]
    return L.ops.concatenate([part[column] for column in range(columns) for part in parts])
