"""What both ways of extracting triples share: the schema, examples, scores, and answers on raw text."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bert4x.errors import DataError, nearest
from bert4x.metrics.spans import count_triples
from bert4x.tasks.given import check_items, check_keys, check_sees_all
from bert4x.tasks.readers.json_rows import field, json_lines
from bert4x.tasks.readers.labelled import not_empty
from bert4x.tasks.task import Task
from bert4x.tasks.text import Piece, as_texts, batches_by_length, check_texts, encode_pieces
from bert4x.training.report import watched

TYPES = ("subject_type", "object_type")


@dataclass(frozen=True)
class Triple:
    """What a text states: subject, predicate and object.

    `subject_span` and `object_span` are the characters (start, end) of the original text: `text[start:end]` is what
    `subject` or `object` says. `score` is between 0 and 1, the lowest of the probabilities that the triple rests on.
    """

    subject: str
    predicate: str
    object: str
    subject_span: tuple[int, int]
    object_span: tuple[int, int]
    score: float


class Labelled(NamedTuple):
    """A triple of an example: the first and last token of its subject, its predicate's number, and of its object."""

    subject: tuple[int, int]
    predicate: int
    object: tuple[int, int]


class Found(NamedTuple):
    """A triple that a model finds, by tokens, with its score."""

    subject: tuple[int, int]
    predicate: int
    object: tuple[int, int]
    score: float


@dataclass(frozen=True)
class Example:
    """An encoded text with its triples."""

    token_ids: list[int]
    triples: tuple[Labelled, ...]

    @property
    def length(self) -> int:
        return len(self.token_ids)


def read_schema(path: str | os.PathLike) -> list[dict[str, str]]:
    """The predicates of a file, `{"predicate": ..., "subject_type": ..., "object_type": ...}` in each line (the types
    may be missing), as of SKE's all_50_schemas.

    A predicate may come with several pairs of types, but with each of them once. Raises: DataError.
    """
    lines: dict[tuple, str] = {}
    for where, row in json_lines(path):
        entry = {"predicate": field(row, "predicate", str, where)}
        entry |= {kind: field(row, kind, str, where) for kind in TYPES if kind in row}
        key = tuple(entry.items())
        if key in lines:
            raise DataError(f"{where}: {entry} is there twice, first in {lines[key]}; expected each once")
        lines[key] = where
    return [dict(key) for key in not_empty(list(lines), path)]


def check_schema(schema: Sequence[str | dict[str, str]]) -> list[dict[str, str]]:
    """A schema as a list of dicts. Raises: DataError for what is none, and for what is there twice."""
    if isinstance(schema, str | bytes | dict) or not isinstance(schema, Iterable):
        raise DataError(f"schema = {schema!r:.60}; expected a list of predicates, such as read_schema gives")
    entries = [{"predicate": entry} if isinstance(entry, str) else entry for entry in schema]
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("predicate"), str) or not entry["predicate"]:
            raise DataError(f"the schema holds {entry!r}; expected a predicate, or a dict with one")
    for entry, count in Counter(tuple(sorted(entry.items())) for entry in entries).items():
        if count > 1:
            raise DataError(f"the schema holds {dict(entry)} {count} times; expected each once")
    if not entries:
        raise DataError("the schema is empty; expected at least one predicate")
    return entries


class TripleTask(Task):
    """Base of the tasks that find (subject, predicate, object) triples.

    Rows are those of `read_triples`: `{"text": str, "spo_list": [(subject, predicate, object), ...]}`.

    Args:
        schema: predicates, or dicts of a `predicate` and maybe a `subject_type` and an `object_type`.
    Raises: DataError for a predicate that is there twice, ConfigError for a model that reads in one direction.
    """

    best = "f1"
    settings = ("schema",)

    def __init__(self, backbone, schema: Sequence[str | dict[str, str]], maxlen: int = 128, **settings):
        check_sees_all(backbone.config)
        schema = check_schema(schema)
        self.predicates = list(dict.fromkeys(entry["predicate"] for entry in schema))
        self.highest: dict[str, np.ndarray] = {}
        super().__init__(backbone, maxlen, schema=schema, **settings)

    def find(self, pieces: Sequence[Piece]) -> list[list[Found]]:
        """The triples of some encoded texts. Keeps in `highest` what came nearest to being found."""
        raise NotImplementedError

    def note(self, what: str, values: np.ndarray) -> None:
        """Remembers the highest of some probabilities or scores since `evaluate` began.

        Shape: (N, K) -> K numbers
        """
        self.highest[what] = np.maximum(self.highest.get(what, -np.inf), values.max(axis=0, initial=-np.inf))

    def remark(self, scores):
        if scores.get("predicted", 1):
            return None
        return (
            f"nothing is found yet: {self.lacking()}. Where that does not rise from epoch to epoch, train longer "
            "(--epochs), or faster (--learning-rate, --head-learning-rate)"
        )

    def lacking(self) -> str:
        """What the nearest candidate lacks, from `highest`."""
        raise NotImplementedError

    def check(self, rows):
        check_keys(rows, "text", "spo_list")
        check_items(rows, "spo_list", "(subject, predicate, object)", str, str, str)
        for number, row in enumerate(rows):
            check_texts([row["text"]], number)

    def prepare(self, rows):
        """Subjects and objects are located where their tokens first stand among the text's, as in bert4keras.

        `skipped` counts the triples left out: "subject not in the text", "object not in the text", "beyond maxlen"; and
        the texts left out, "no triple left", whose triples all are, and "no text". A text that states nothing is kept:
        it teaches to find nothing in it. (bert4keras leaves it out.)

        Raises: DataError for a predicate outside the schema.
        """
        numbers = {predicate: i for i, predicate in enumerate(self.predicates)}
        self.check(rows)
        rows = [(row["text"], list(dict.fromkeys(map(tuple, row["spo_list"])))) for row in rows]
        for text, triples in rows:
            for _, predicate, _ in triples:
                if predicate not in numbers:
                    raise DataError(f"predicate {predicate!r} of {text[:30]!r}; {nearest(predicate, numbers)}")
        names = list(dict.fromkeys(name for _, triples in rows for s, _, o in triples for name in (s, o)))
        places, examples = Places(self, names), []
        encoded = self.tokenizer.encode_batch([text for text, _ in rows])[0]
        for (text, triples), token_ids in zip(rows, encoded, strict=True):
            tokens, labelled = places.of(text, token_ids), {}
            ids = self.shortened(token_ids)
            last = self.inner(range(len(ids))).stop
            for subject, predicate, object in triples:
                spans = tokens(subject), tokens(object)
                if None in spans:
                    self.skipped[f"{'subject' if spans[0] is None else 'object'} not in the text"] += 1
                elif max(end for _, end in spans) >= last:
                    self.skipped["beyond maxlen"] += 1
                else:
                    labelled[Labelled(spans[0], numbers[predicate], spans[1])] = None
            if self.inner(ids) and (labelled or not triples):
                examples.append(Example(ids, tuple(labelled)))
            else:
                self.skipped["no triple left" if triples else "no text"] += 1
        return examples

    def inner(self, tokens: Sequence) -> Sequence:
        """Tokens without the start and end tokens."""
        return tokens[self.tokenizer.start_id is not None : len(tokens) - (self.tokenizer.end_id is not None)]

    def shortened(self, token_ids: list[int]) -> list[int]:
        """At most `maxlen` ids, cut before the end token."""
        if len(token_ids) <= self.maxlen:
            return token_ids
        tail = [] if self.tokenizer.end_id is None else [self.tokenizer.end_id]
        return token_ids[: self.maxlen - len(tail)] + tail

    def inputs(self, token_ids: Sequence[Sequence[int]], length: int | None = None) -> list[np.ndarray]:
        """Token and segment ids. Shape: -> 2 x (B, T)"""
        tokens = self.padded(token_ids, length, self.pad_id)
        return self.model_inputs(tokens, np.zeros_like(tokens))

    @watched
    def evaluate(self, rows, batch_size=32):
        """Micro precision, recall and F1 of triples, whose subjects and objects are compared by their tokens
        (`count_triples`), and how many there are.

        Where nothing is found, the precision is 0, and `predicted` says why. bert4keras adds 1e-10 to every count and
        reports precision 1, recall 0, F1 0.
        """
        self.check(rows)
        self.highest.clear()
        answers = self([row["text"] for row in rows], batch_size)
        found = [[(t.subject, t.predicate, t.object) for t in triples] for triples in answers]
        counts = count_triples(found, [list(map(tuple, row["spo_list"])) for row in rows], self.tokenizer.tokenize)
        scores = {name: getattr(counts, name) for name in ("f1", "precision", "recall", "correct", "predicted", "gold")}
        return {name: float(value) for name, value in scores.items()}

    def __call__(self, texts: str | Sequence[str], batch_size: int = 32):
        """The triples of a text, in its order; of a list, a list for each.

        A text that is too long is split at sentence ends. A triple that is found twice is given once, with the higher
        score. Raises: InputError for what is no text.
        """
        one, several = as_texts(texts)
        pieces = [(i, p) for i, text in enumerate(several) for p in encode_pieces(self.tokenizer, text, self.maxlen)]
        best: list[dict[tuple, Triple]] = [{} for _ in several]
        for chosen in batches_by_length([piece.length for _, piece in pieces], batch_size):
            some = [pieces[n] for n in chosen]
            for (i, piece), found in zip(some, self.find([piece for _, piece in some]), strict=True):
                for triple in (self.triple(several[i], piece, each) for each in found):
                    key = triple.subject, triple.predicate, triple.object
                    if key not in best[i] or triple.score > best[i][key].score:
                        best[i][key] = triple
        answers = [sorted(found.values(), key=in_order) for found in best]
        return answers[0] if one else answers

    def triple(self, text: str, piece: Piece, found: Found) -> Triple:
        subject, object = piece.characters(*found.subject), piece.characters(*found.object)
        predicate = self.predicates[found.predicate]
        return Triple(text[slice(*subject)], predicate, text[slice(*object)], subject, object, found.score)


def in_order(triple: Triple) -> tuple:
    """Sorts triples by where they stand."""
    return triple.subject_span, triple.object_span, triple.predicate


class Places:
    """Where names stand among the tokens of texts.

    Names are looked up by their ids. Those with unknown tokens, of which all have one id, by the tokens themselves.
    """

    def __init__(self, task: TripleTask, names: Sequence[str]):
        self.task, self.tokenizer = task, task.tokenizer
        encoded = self.tokenizer.encode_batch(names)[0]
        self.ids = {name: task.inner(ids) for name, ids in zip(names, encoded, strict=True)}

    def of(self, text: str, token_ids: Sequence[int]):
        """A function from a name to its first and last token in a text, the first where there are several, or None."""
        characters, own = "".join(map(chr, token_ids)), []

        def place(name: str) -> tuple[int, int] | None:
            ids = self.ids[name]
            if self.tokenizer.unk_id in ids:
                if not own:
                    own.extend(self.tokenizer.tokenize(text))
                start = find_tokens(own, self.task.inner(self.tokenizer.tokenize(name)))
            else:
                start = characters.find("".join(map(chr, ids))) if ids else -1
            return None if start < 0 else (start, start + len(ids) - 1)

        return place


def find_tokens(tokens: Sequence[Any], part: Sequence[Any]) -> int:
    """Where a part begins among tokens; -1 for nowhere."""
    size = len(part)
    return next((i for i in range(len(tokens) - size + 1) if tokens[i : i + size] == part), -1)


def compared(rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[Triple]]) -> list[str]:
    """Lines that say which triples of each row were found, which that are not there, and which were missed."""
    lines = []
    for row, found in zip(rows, answers, strict=False):
        gold, ours = set(row["spo_list"]), {(one.subject, one.predicate, one.object) for one in found}
        lines.append(row["text"])
        for mark, some in (("right", ours & gold), ("wrong", ours - gold), ("missed", gold - ours)):
            lines += [f"    {mark:>6}: {' | '.join(triple)}" for triple in sorted(some)]
    return lines
