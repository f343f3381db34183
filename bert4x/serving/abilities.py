"""What loaded models can do, each in the same form: texts are read, computed in batches, and answered as JSON."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert4x.errors import nearest
from bert4x.serving.batching import Group
from bert4x.serving.limits import Limits
from bert4x.serving.problems import Problem

# The names of tasks here, and those of `bert4x.pipeline` that they stand for.
TASKS = {
    "entities": ("token-classification",),
    "triples": ("triple-extraction", "gplinker"),
    "reading": ("reading-comprehension",),
    "titles": ("seq2seq",),
    "classes": ("text-classification",),
    "fill-mask": ("fill-mask",),
}
VECTORS, SCORES, WRITING, ATTENTION = "embeddings", "rerank", "generation", "attention"
# The parameters that a task takes -> the type, the least and the largest value.
PARAMETERS = {"fill-mask": {"top_k": (int, 1, 100)}, "titles": {"num_beams": (int, 1, 16)}}


class Ability:
    """A task that gives an answer for each of some inputs: texts, or pairs of them.

    Args:
        name: under which it is served.
        task: to be called on a list of inputs.
        longest: tokens of an input, where longer ones would be cut; None where they are read in parts.
    """

    def __init__(self, name: str, task, longest: int | None = None):
        self.name, self.task, self.longest = name, task, longest
        self.tokenizer = task.tokenizer
        self.parameters = PARAMETERS.get(name, {})

    @property
    def pairs(self) -> tuple[str, str] | None:
        """What the two texts of an input are called; None for single texts."""
        return ("question", "passage") if self.name == "reading" else None

    def read(self, inputs: Sequence, limits: Limits, truncate: bool = False) -> tuple[list, list[int]]:
        """The items to compute and how many tokens each has. Raises: Problem for too many, or too long ones."""
        check_count(inputs, limits)
        lengths = self.lengths(inputs)
        check_lengths(lengths, limits, None if truncate else self.longest)
        return list(inputs), lengths

    def lengths(self, inputs: Sequence) -> list[int]:
        """Tokens of each input, special ones included."""
        single = [text for text in inputs if isinstance(text, str)]
        ids = iter(self.tokenizer.encode_batch(single)[0] if single else [])
        return [len(next(ids) if isinstance(one, str) else self.tokenizer.encode(*one)[0]) for one in inputs]

    def group(self, parameters: dict[str, Any] | None = None) -> Group:
        """What computes them. Raises: Problem for parameters that it has not."""
        given = parameters or {}
        for name, value in given.items():
            if name not in self.parameters:
                known = nearest(name, self.parameters) if self.parameters else "it takes none"
                raise Problem(422, f"{self.name} has no parameter {name!r}; {known}", param=name)
            kind, least, most = self.parameters[name]
            if type(value) is not kind or not least <= value <= most:
                raise Problem(422, f"{name} is {value!r:.40}; expected {least} to {most}", param=name)
        return Group(self.compute, tuple(sorted(given.items())))

    def compute(self, items: Sequence, *options) -> list:
        """The answers, in the model's thread."""
        return self.task(list(items), **dict(options))

    def record(self, given, answer) -> Any:
        """An answer as JSON."""
        return as_json(answer)


class Fillings(Ability):
    """Each [MASK] of a text: where it stands, and what may be there."""

    def record(self, given, answer):
        places = re.finditer(rf"\[MASK\]|{re.escape(self.task.mask)}", given)  # it may have another name
        return [
            {"start": place.start(), "end": place.end(), "fillings": as_json(fillings)}
            for place, fillings in zip(places, answer, strict=True)
        ]


class Embedding(Ability):
    """Vectors of texts."""

    def __init__(self, task):
        super().__init__(VECTORS, task, task.maxlen)

    def read(self, inputs, limits, truncate=False, prompt: str | None = None):
        check_count(inputs, limits)
        before = self.task.prompt(prompt)
        rows = self.task.encoded(inputs, before)
        lengths = [len(row) for row in rows]
        if not truncate and max(lengths) >= self.longest:  # some may have been cut
            check_lengths(self.lengths([before + text for text in inputs]), limits, self.longest)
        check_lengths(lengths, limits, None)
        return rows, lengths

    def skip(self, prompt: str | None) -> int:
        """How many tokens of a prompt are not pooled."""
        before = self.task.prompt(prompt)
        whole = self.task.include_prompt or not before
        return 0 if whole else len(self.task.encoded([before], "")[0]) - self.task.ends

    def group_of(self, prompt: str | None, limits: Limits) -> Group:
        """What computes them, with one of the model's prompts before."""
        return Group(self.compute, (self.skip(prompt), limits.batch_tokens))

    def compute(self, items, skip, batch_tokens):
        return list(self.task.computed(items, batch_tokens, None, skip))

    def finish(self, vectors: Sequence[np.ndarray], dimensions: int | None, normalize: bool = False) -> np.ndarray:
        """Vectors as they are asked for. Shape: -> (N, D)"""
        from bert4x.tasks import vectors as v

        size = self.task.beginning(dimensions)
        if not len(vectors):
            return np.zeros((0, size), "float32")
        found = v.finite(np.stack(vectors), "the vectors that this model gives")[:, :size]
        return v.unit(found) if normalize or (size < self.task.size and self.task.normalizes) else found


class Reranking(Ability):
    """How well texts answer a query; an item is a pair of both."""

    def __init__(self, reranker):
        super().__init__(SCORES, reranker.task, reranker.task.maxlen)
        self.reranker = reranker

    def compute(self, items, raw: bool = False):
        return self.reranker.scores(items, raw_scores=raw).tolist()

    @property
    def raw(self) -> Group:
        """What computes scores as they are before they are brought between 0 and 1."""
        return Group(self.compute, (True,))


def check_count(inputs: Sequence, limits: Limits) -> None:
    """Raises: Problem for no inputs, and for too many."""
    if not inputs:
        raise Problem(422, "there are no inputs; expected at least one text")
    if len(inputs) > limits.texts:
        raise Problem(413, f"{len(inputs)} texts in one request; at most {limits.texts} are taken: send several")


def check_lengths(lengths: Sequence[int], limits: Limits, longest: int | None) -> None:
    """Raises: Problem for more tokens than are taken, and for a text that would be cut."""
    if sum(lengths) > limits.tokens:
        raise Problem(413, f"{sum(lengths):,} tokens in one request; at most {limits.tokens:,} are taken: send several")
    for number, length in enumerate(lengths):
        if longest is not None and length > longest:
            raise Problem(
                413,
                f"text {number} has {length} tokens, at most {longest} are taken; shorten it, or give truncate: true",
            )


def as_json(value) -> Any:
    """Answers as plain values."""
    if dataclasses.is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [as_json(one) for one in value] if isinstance(value, list | tuple) else value
