"""Precision, recall and F1 of what is found in texts: entities, spans, triples.

All of them compare two sets per text and add up over the corpus (micro averages). `count` does it for any sets;
`count_entities` and `count_triples` say what the sets are.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from bert4x.errors import InputError, nearest

TagSequences = Sequence[Sequence[str]]
Triples = Sequence[Iterable[Sequence[str]]]
SCHEMES = ("BIO", "BIOES")
SYNONYMS = {"M": "I", "L": "E", "U": "S", "W": "S"}  # BMES, BILOU and BMEWO name the same places by other letters


@dataclass(frozen=True)
class Counts:
    """How many were found rightly, how many were found, how many there are. Add Counts to join corpora.

    A ratio without a denominator is 0, as in seqeval and scikit-learn: nothing found has precision 0, not the 1 that
    bert4keras reports as P=1, R=0, F1=0, and so has a corpus in which there is nothing to find.
    """

    correct: int = 0
    predicted: int = 0
    gold: int = 0

    @property
    def precision(self) -> float:
        """Correct ones of those predicted; 0 where there are none."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Correct ones of those in the references; 0 where there are none."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 0 where there are none."""
        both = self.predicted + self.gold
        return 2 * self.correct / both if both else 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.correct + other.correct, self.predicted + other.predicted, self.gold + other.gold)


class Entity(NamedTuple):
    """A labelled stretch of tokens, `start` <= index < `end`."""

    label: str
    start: int
    end: int


def count(predicted: Sequence[Iterable[Hashable]], gold: Sequence[Iterable[Hashable]]) -> Counts:
    """Compares one set of what was found with one of what is there, per text. What occurs twice in a text counts once.

    Raises: InputError when there is not one set of predictions for each text.
    """
    total = Counts()
    for found, true in _pairs(predicted, gold):
        found, true = set(found), set(true)
        total += Counts(len(found & true), len(found), len(true))
    return total


def count_by_label(
    predicted: Sequence[Iterable[tuple]], gold: Sequence[Iterable[tuple]], label: Callable = itemgetter(0)
) -> dict[Any, Counts]:
    """`count` for each label on its own. `label` gives the label of a member: the first of a tuple, unless told.

    Raises: InputError when there is not one set of predictions for each text.
    """
    totals: dict[Any, Counts] = {}
    for found, true in _pairs(predicted, gold):
        found, true = set(found), set(true)
        for members, one in ((found & true, Counts(correct=1)), (found, Counts(predicted=1)), (true, Counts(gold=1))):
            for member in members:
                totals[label(member)] = totals.get(label(member), Counts()) + one
    return dict(sorted(totals.items(), key=lambda item: str(item[0])))


def count_triples(predicted: Triples, gold: Triples, tokenize: Callable[[str], Iterable[str]] | None = None) -> Counts:
    """Compares (subject, predicate, object) triples, one collection per text.

    With `tokenize` (a tokenizer's), subjects and objects are equal when their tokens are: in lower case, and without
    the spaces that a text and its annotation may differ in. So does bert4keras' task_relation_extraction. Without it
    they are compared as they are written.

    Raises: InputError for what is not a triple of strings, and when there is not one collection for each text.
    """

    @functools.cache
    def key(text: str) -> Hashable:
        return tuple(tokenize(text)) if tokenize else text

    def sets(collections, which):
        for index, triples in enumerate(collections):
            yield {(key(s), p, key(o)) for s, p, o in (_triple(triple, f"{which}[{index}]") for triple in triples)}

    return count(list(sets(predicted, "predicted")), list(sets(gold, "gold")))


def count_entities(predicted: TagSequences, gold: TagSequences, scheme: str | None = None) -> Counts:
    """Compares the entities of two taggings of the same texts, as seqeval does; `scheme` as for `find_entities`.

    Raises: InputError for texts of which one tagging is longer, and for what is no tag.
    """
    sets: list[tuple[set, set]] = []
    for index, (found, true) in enumerate(_pairs(predicted, gold)):
        if len(found) != len(true):
            raise InputError(f"text {index} has {len(found)} predicted and {len(true)} gold tags; expected as many")
        sets.append((set(find_entities(found, scheme)), set(find_entities(true, scheme))))
    return count([found for found, _ in sets], [true for _, true in sets])


def find_entities(tags: Sequence[str], scheme: str | None = None) -> list[Entity]:
    """The entities of one tagged text, in order.

    Tags are "O", or a place, "-" and a label; the places are B and I, in BIOES also E and S. M is read as I (BMES), L
    as E and U as S (BILOU). A tag goes on with the entity before it if it is I or E, that one was B or I, and both
    have the same label; any other begins one.

    Args:
        scheme: None takes every such run for an entity, as conlleval and seqeval do by default: a tagger that forgets
            B is forgiven. "BIO" takes those that begin with B; "BIOES" those from B to E, and S alone. These are
            seqeval's strict mode with IOB2 and IOBES.

    Raises: InputError for what is no tag, or none of the scheme.
    """
    if scheme is not None and scheme not in SCHEMES:
        raise InputError(f"no scheme {scheme!r}; {nearest(str(scheme), SCHEMES)}, or None")
    parsed = [_place_and_label(tag, index, scheme) for index, tag in enumerate(tags)]
    starts = [
        index
        for index, (before, here) in enumerate(pairwise([("O", ""), *parsed]))
        if not (before[0] in "BI" and here[0] in "IE" and before[1] == here[1])
    ]
    entities = []
    for start, end in pairwise([*starts, len(parsed)]):
        places = "".join(place for place, _ in parsed[start:end])
        strict = {"BIO": places[0] == "B", "BIOES": places == "S" or (places[0] == "B" and places[-1] == "E")}
        if places != "O" and strict.get(scheme, True):
            entities.append(Entity(parsed[start][1], start, end))
    return entities


def _place_and_label(tag: str, index: int, scheme: str | None) -> tuple[str, str]:
    if isinstance(tag, str) and tag:
        place, dash, label = SYNONYMS.get(tag[0], tag[0]), tag[1:2], tag[2:]
        if place in (scheme or "BIOES") and dash in ("", "-") and not (place == "O" and dash):
            return place, label or "_"
    expected = " or ".join(f"{place}-LABEL" for place in (scheme or "BIOES").replace("O", ""))
    raise InputError(f"tag {index} is {tag!r}; expected O or {expected}")


def _triple(triple: Sequence[str], where: str) -> tuple[str, str, str]:
    if isinstance(triple, str) or len(triple) != 3 or not all(isinstance(part, str) for part in triple):
        raise InputError(f"{where} holds {triple!r}; expected (subject, predicate, object), three strings")
    return tuple(triple)


def _pairs(predicted: Sequence, gold: Sequence) -> Iterable[tuple]:
    if len(predicted) != len(gold):
        raise InputError(f"predictions for {len(predicted)} texts, of which there are {len(gold)}")
    return zip(predicted, gold, strict=True)
