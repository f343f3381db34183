"""Half pointers as arrays: first the subjects of a text, then the objects of one of them by predicate (Su,
kexue.fm/archives/6671), for models that read characters.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Span = tuple[int, int]  # the first and the last character


def spans_of(row: Mapping, predicates: Mapping[str, int], length: int) -> dict[Span, list[tuple[int, Span]]]:
    """For each subject of a text its objects, each with the number of its predicate. What is not in the first `length`
    characters is left out; of what is there several times, the first place counts.

    Args:
        row: as of `read_triples`.
    """
    found: dict[Span, list[tuple[int, Span]]] = {}
    for subject, predicate, thing in row["spo_list"]:
        s, o = row["text"].find(subject), row["text"].find(thing)
        s_end, o_end = s + len(subject) - 1, o + len(thing) - 1
        if min(s, o) >= 0 and max(s_end, o_end) < length:
            found.setdefault((s, s_end), []).append((predicates[predicate], (o, o_end)))
    return found


def labels_of(spans: Sequence[Mapping[Span, list]], predicates: int, length: int, rng: np.random.Generator):
    """A subject of each text, drawn, and what is to be found: 1 at the first and the last characters.

    Shape: N texts -> subjects drawn (N, 2), all subjects (N, T, 2), objects of those drawn (N, T, P, 2)
    """
    chosen, subjects = np.zeros((len(spans), 2), "int32"), np.zeros((len(spans), length, 2), "int8")
    objects = np.zeros((len(spans), length, predicates, 2), "int8")
    for i, found in enumerate(spans):
        for first, last in found:
            subjects[i, first, 0] = subjects[i, last, 1] = 1
        chosen[i] = list(found)[rng.integers(len(found))]
        for predicate, (first, last) in found[tuple(chosen[i].tolist())]:
            objects[i, first, predicate, 0] = objects[i, last, predicate, 1] = 1
    return chosen, subjects, objects


def pointed(probabilities: np.ndarray, start: float = 0.5, end: float = 0.5) -> list[Span]:
    """Each first character, of a probability above `start`, with the nearest last one, above `end`. Shape: (T, 2)"""
    ends = np.flatnonzero(probabilities[:, 1] > end)
    starts = np.flatnonzero(probabilities[:, 0] > start)
    return [(int(s), int(ends[ends >= s][0])) for s in starts if (ends >= s).any()]
