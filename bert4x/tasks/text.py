"""Texts longer than a model takes, and where in a text its tokens stand."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from bert4x.errors import DataError, InputError, TokenizerError
from bert4x.training.report import with_bar

CLOSERS = "”’」』】）》〉)\"'"
ENDS = re.compile(rf"(?:[。！？!?；;…\n]|\.(?=\s))[{CLOSERS}。！？!?；;…\n]*")
PAUSES = re.compile(rf"(?:[，、：]|[,:](?!\d))[{CLOSERS}]*|\s")


def split_text(text: str, longest: int) -> list[tuple[int, str]]:
    """A text in pieces of at most `longest` characters, each with where it begins. Together they are the text.

    It is cut after the last sentence end that leaves a piece short enough; where there is none, after a comma or space;
    where there is none either, anywhere.

    Raises: InputError for a `longest` below 1.
    """
    if longest < 1:
        raise InputError(f"pieces of {longest} characters; expected at least 1")
    return [(start, text[start:stop]) for start, stop in cuts(text, lambda start: start + longest)]


def cuts(text: str, reach: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Where the pieces of a text begin and end; `reach` gives for a beginning the farthest end."""
    start = 0
    while start < len(text):
        stop = max(reach(start), start + 1)
        if stop < len(text):
            window = text[start : stop + 1]  # with what follows, to see whether a full stop ends a sentence
            stop = next(filter(None, (last_end(mark, window, stop - start) for mark in (ENDS, PAUSES))), stop - start)
            stop += start
        yield start, min(stop, len(text))
        start = stop


def last_end(pattern: re.Pattern, window: str, limit: int) -> int:
    """The last end of a match up to `limit`, 0 for none; a match that goes on beyond it is cut there."""
    return max((min(match.end(), limit) for match in pattern.finditer(window) if match.start() < limit), default=0)


@dataclass(frozen=True)
class Piece:
    """A stretch of a text as a model's input.

    `token_ids` have the start and end tokens. `offsets` gives for each token the (start, end) of its characters in the
    whole text; the special ones have no characters, (n, n).
    """

    start: int
    end: int
    token_ids: list[int]
    offsets: list[tuple[int, int]]

    @property
    def length(self) -> int:
        """Tokens, special ones included."""
        return len(self.token_ids)

    @property
    def written(self) -> np.ndarray:
        """Which tokens stand in the text.

        Shape: (T,) bool
        """
        return np.array([start < end for start, end in self.offsets], bool)

    def tokens(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and last token of the characters `start` <= i < `end` of the whole text; None unless tokens begin
        and end just there, white space at either end aside, and all of them are in this piece.
        """
        if start < self.start or end > self.end:
            return None
        first = last = None
        for token, (a, b) in enumerate(self.offsets):
            if a < b and a < end and start < b:
                first = token if first is None else first
                last = token
        if first is None or self.offsets[first][0] < start or self.offsets[last][1] > end:
            return None
        return first, last

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Where the tokens from `first` to `last` stand in the whole text: (start, end)."""
        return self.offsets[first][0], self.offsets[last][1]


def encode_with_offsets(tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text without special tokens, and where each stands.

    Raises: TokenizerError for a tokenizer that does not say so.
    """
    if not hasattr(tokenizer, "encode_with_offsets"):
        kind = type(tokenizer).__name__
        raise TokenizerError(f"{kind} does not tell where tokens stand in a text; use a model with a vocab.txt")
    ids, offsets = tokenizer.encode_with_offsets(text)
    start, stop = int(tokenizer.start_id is not None), len(ids) - int(tokenizer.end_id is not None)
    return ids[start:stop], offsets[start:stop]


def encode_pieces(tokenizer, text: str, maxlen: int) -> list[Piece]:
    """A text of any length as inputs of at most `maxlen` tokens each, special ones included, cut as in `split_text`.

    A text without tokens gives none. Raises: TokenizerError as `encode_with_offsets`.
    """
    ids, offsets = encode_with_offsets(tokenizer, text)
    room = maxlen - (tokenizer.start_id is not None) - (tokenizer.end_id is not None)
    begins = np.maximum.accumulate(np.array([start for start, _ in offsets], int))

    def reach(start: int) -> int:
        beyond = int(np.searchsorted(begins, start)) + room
        return int(begins[beyond]) if beyond < len(begins) else len(text)

    pieces = []
    for start, stop in cuts(text, reach):
        first, last = np.searchsorted(begins, [start, stop]).tolist()
        last = min(last, first + room)  # of a single character with more tokens than that, the rest is left out
        if first < last:
            pieces.append(piece(tokenizer, start, stop, ids[first:last], offsets[first:last]))
    return pieces


def piece(tokenizer, start: int, end: int, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Piece:
    """A piece of these tokens between the start and end tokens."""
    head = [] if tokenizer.start_id is None else [tokenizer.start_id]
    tail = [] if tokenizer.end_id is None else [tokenizer.end_id]
    offsets = [(start, start)] * len(head) + list(offsets) + [(end, end)] * len(tail)
    return Piece(start, end, [*head, *ids, *tail], offsets)


def as_texts(texts: str | Iterable[str]) -> tuple[bool, list[str]]:
    """Whether it is a single text, and a list of the texts. Raises: InputError for what is no text."""
    one = isinstance(texts, str)
    if isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable):
        raise InputError(f"found {texts!r:.60}; expected a text, or a list of texts")
    texts = [texts] if one else list(texts)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise InputError(f"found {wrong[0]!r:.60}; expected a text, or a list of texts")
    return one, texts


def check_texts(texts: Sequence, number: int) -> None:
    """Raises: DataError, with the number of the row from 0, where one is no text, such as a missing value."""
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"row {number}: found {text!r:.40} among {texts!r:.80}; expected text, in every row")


def values_of(row: Sequence, count: int) -> tuple[float, ...]:
    """The values at the end of a row of a regression. Raises: DataError for what is not so many finite numbers."""
    try:
        values = np.asarray(row[-1], "float64").reshape(-1)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if len(values) != count or not np.isfinite(values).all():
        raise DataError(f"value {row[-1]!r} of {row[0][:30]!r}; expected {count} finite number(s)")
    return tuple(values.tolist())


def batches_by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Which of some texts to compute together: all of them, `size` at a time, those of similar length.

    Raises: InputError for a size that is none.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"batch_size = {size!r}; expected a whole number, at least 1")
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = (order[start : start + size] for start in range(0, len(order), size))
    yield from with_bar(batches, len(order))
