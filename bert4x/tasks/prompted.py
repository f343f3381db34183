"""Prompts beside texts as inputs, and the prompts that the answers about a text mean."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bert4x.errors import DataError, InputError, nearest
from bert4x.tasks.schema import HALF_WIDTH, Answers, Prompt, Wanted, prompt
from bert4x.tasks.text import Piece
from bert4x.tasks.windows import specials

OVERLAP = 128  # tokens at most by which the windows of a long text overlap; a quarter of them is left context
Gold = dict[Prompt, list[tuple[int, int]]]  # prompt -> its spans


@dataclass(frozen=True)
class Window:
    """A prompt and a part of a text as an input, [CLS] prompt [SEP] part [SEP].

    The part's tokens begin at `first`; `offsets` are their characters in the text; `options` the first and last token
    of each option of the prompt. A span is read in the window to which its first token belongs: `owned` of the part's.
    `spans` are right ones, as first and last token of the input.
    """

    token_ids: list[int]
    first: int
    offsets: list[tuple[int, int]]
    options: tuple[tuple[int, int], ...]
    owned: tuple[int, int]
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        return len(self.token_ids)


class Encoded(NamedTuple):
    """A text by its tokens, without special ones."""

    text: str
    token_ids: list[int]
    offsets: list[tuple[int, int]]


def prompt_windows(
    tokenizer, maxlen: int, text: Encoded, question: Encoded, asked: Prompt, spans: Sequence[tuple[int, int]] = ()
) -> list[Window]:
    """The inputs of `maxlen` tokens that ask a prompt of a text, which is not empty. Right spans are characters of the
    text, or of the prompt where it is a choice.

    Raises: InputError for options that share a token.
    """
    start, end = specials(tokenizer)
    first, size = len(start) + len(question.token_ids) + len(end), len(text.token_ids)
    options = [
        Piece(0, len(asked.text), question.token_ids, question.offsets).tokens(*place) for place in asked.options
    ]
    if None in options:
        raise InputError(f"{asked.text!r:.80}: a token is not of one option alone; write the options otherwise")
    options = [(len(start) + a, len(start) + b) for a, b in options]
    chosen = [options[asked.options.index(span)] for span in spans if options]
    room = maxlen - first - len(end)
    overlap, found = min(OVERLAP, room // 2), []
    for begin in range(0, max(size - overlap, 1), room - overlap):
        ids, offsets = (values[begin : begin + room] for values in (text.token_ids, text.offsets))
        piece = Piece(offsets[0][0], offsets[-1][1], ids, offsets)
        inside = [] if options else filter(None, (piece.tokens(*span) for span in spans))
        owned = 0 if begin == 0 else overlap // 4, room if begin + room >= size else room - overlap + overlap // 4
        right = *chosen, *((first + a, first + b) for a, b in inside)
        whole = [*start, *question.token_ids, *end, *ids, *end]
        found.append(Window(whole, first, offsets, tuple(options), owned, right))
    return found


def gold_of(row: dict[str, Any], wanted: Sequence[Wanted]) -> Gold:
    """All that is asked of a text by a schema, and the spans that are right: characters of the text, or of the prompt
    where it is a choice. A choice without an answer is not asked: the row does not say which it is.

    Raises: DataError for what the schema does not name, and for spans that are not in the text.
    """
    gold: Gold = {}

    def gather(answers: Answers, wanted: Sequence[Wanted], subject: str | None) -> None:
        names = [one.name for one in wanted]
        for name in answers:
            if name not in names:
                raise DataError(f"{name!r} of {row['text'][:30]!r} is not in the schema; {nearest(name, names)}")
        for one in wanted:
            spans, question = answers.get(one.name, []), prompt(one, subject)
            if not question.options:
                gold.setdefault(question, []).extend(place(row["text"], span) for span in spans)
            elif spans:
                gold.setdefault(question, []).extend(option(question, span) for span in spans)
            for span in spans:
                gather(span.get("relations", {}), one.parts, span["text"])

    gather(row["answers"], wanted, None)
    return {question: list(dict.fromkeys(spans)) for question, spans in gold.items()}


def place(text: str, span: dict[str, Any]) -> tuple[int, int]:
    """Where an answer stands. Raises: DataError where it does not."""
    start, end = span.get("start"), span.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise DataError(f"found {span!r:.80} of {text[:30]!r}; expected its start and end, characters of the text")
    if text[start:end] != span["text"]:
        raise DataError(f"characters {start} to {end} of {text[:30]!r} are {text[start:end]!r}, not {span['text']!r}")
    return start, end


def option(question: Prompt, span: dict[str, Any]) -> tuple[int, int]:
    """Where an answer stands among the options. Raises: DataError where it does not."""
    chosen = span["text"].translate(HALF_WIDTH)
    for start, end in question.options:
        if question.text[start:end] == chosen:
            return start, end
    raise DataError(f"{chosen!r} is none of the options of {question.text!r}")


def with_negatives(
    gold: Gold, ratio: float, generator: np.random.Generator
) -> Iterator[tuple[Prompt, list[tuple[int, int]]]]:
    """The prompts that have answers, and of the others, drawn at random, at most `ratio` for each; of a text without
    any answer as many as for one.
    """
    asked = [question for question, spans in gold.items() if spans]
    others = [question for question, spans in gold.items() if not spans]
    count = min(len(others), round(ratio * max(1, len(asked))))
    drawn = sorted(generator.choice(len(others), count, replace=False).tolist()) if count else []
    yield from ((question, gold[question]) for question in (*asked, *(others[i] for i in drawn)))
