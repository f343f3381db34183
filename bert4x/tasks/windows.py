"""Texts, and pairs of them, of any length as inputs of a model: windows that cover all of a text, or its beginning."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from bert4x.tasks.text import encode_pieces


class Window(NamedTuple):
    """An input, and the number of the text that it is a part of."""

    text: int
    token_ids: list[int]
    segment_ids: list[int]


def encode_windows(
    tokenizer, texts: Sequence[Sequence[str]], maxlen: int, split: bool = True
) -> tuple[list[Window], int]:
    """The windows of texts, (text,) or (text, second text) each, in order; and how many texts have more than `maxlen`
    tokens, special ones included.

    Without `split` a longer one is cut, and has one window. With it, a text is divided at the ends of sentences where
    that is possible. Of a pair, each window of one text comes beside each of the other; the shorter one stays whole if
    it fills at most half of an input.
    """
    windows, long = [], 0
    for number, (ids, segments) in enumerate(encoded(tokenizer, texts)):
        if len(ids) <= maxlen:
            windows.append(Window(number, ids, segments))
            continue
        long += 1
        if not split:
            windows.append(Window(number, *tokenizer.encode(*texts[number], maxlen=maxlen)))
        elif len(texts[number]) == 1:
            windows += [Window(number, part, [0] * len(part)) for part in parts(tokenizer, texts[number][0], maxlen)]
        else:
            windows += [Window(number, *pair) for pair in pairs(tokenizer, *texts[number], maxlen)]
    return windows, long


def encoded(tokenizer, texts: Sequence[Sequence[str]]) -> list[tuple[list[int], list[int]]]:
    """Token and segment ids, whole."""
    if len({len(text) for text in texts}) != 1:
        return [tokenizer.encode(*text) for text in texts]
    return list(zip(*tokenizer.encode_batch(*(list(column) for column in zip(*texts, strict=True))), strict=True))


def parts(tokenizer, text: str, maxlen: int) -> list[list[int]]:
    """The ids of parts of a text, each with its special tokens. A tokenizer that does not tell where tokens stand
    divides a text anywhere.
    """
    if hasattr(tokenizer, "encode_with_offsets"):
        return [piece.token_ids for piece in encode_pieces(tokenizer, text, maxlen)]
    start, end = specials(tokenizer)
    ids = tokenizer.encode(text)[0]
    ids, room = ids[len(start) : len(ids) - len(end)], maxlen - len(start) - len(end)
    return [[*start, *ids[i : i + room], *end] for i in range(0, len(ids), room)]


def pairs(tokenizer, first: str, second: str, maxlen: int) -> list[tuple[list[int], list[int]]]:
    """The ids and segments of a pair's windows."""
    start, end = specials(tokenizer)
    added = len(start) + len(end)
    room = maxlen - len(tokenizer.joined([], [])[0])
    lengths = [len(tokenizer.encode(text)[0]) - added for text in (first, second)]
    shorter = min(*lengths, room // 2)
    rooms = [room - shorter, shorter] if lengths[0] >= lengths[1] else [shorter, room - shorter]
    divided = []
    for text, length, own in zip((first, second), lengths, rooms, strict=True):
        wholes = parts(tokenizer, text, own + added) if length > own else [tokenizer.encode(text)[0]]
        divided.append([ids[len(start) : len(ids) - len(end)] for ids in wholes])
    return [tokenizer.joined(a, b) for a, b in itertools.product(*divided)]


def specials(tokenizer) -> tuple[list[int], list[int]]:
    """The start and the end token, where there are some."""
    return tuple([] if i is None else [i] for i in (tokenizer.start_id, tokenizer.end_id))
