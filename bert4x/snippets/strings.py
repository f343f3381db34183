"""Strings: normalization, cutting, what two have in common."""

import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from bert4x.errors import InputError

HALF_WIDTH = {0x3000: " "} | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}


def is_string(s: Any) -> bool:
    """Whether this is a str."""
    return isinstance(s, str)


def strQ2B(ustring: str) -> str:
    """Full-width letters, digits, punctuation and space as those of ASCII. One character for each."""
    return ustring.translate(HALF_WIDTH)


def string_matching(s: str, keywords: Iterable[str | re.Pattern]) -> bool:
    """Whether any of some regular expressions occurs in a string.

    Raises: InputError for what is no regular expression.
    """
    for keyword in keywords:
        try:
            if re.search(keyword, s):
                return True
        except re.error as error:
            raise InputError(
                f"{keyword!r} is no regular expression ({error}); re.escape() makes one of a text"
            ) from None
    return False


def lowercase_and_normalize(text: str) -> str:
    """Lower case, decomposed (NFD), without accents."""
    text = unicodedata.normalize("NFD", text.lower())
    return "".join(character for character in text if unicodedata.category(character) != "Mn")


def text_segmentate(text: str, maxlen: int, seps: Sequence[str] = "\n", strips: str | None = None) -> list[str]:
    """Cuts a text at separators into pieces of at most `maxlen` characters, and few of them.

    It is cut at the first of `seps`; what is still too long at the second, and so on. A piece keeps the separator at
    its end. What holds none of them stays longer than `maxlen`, and so may a run of several separators.

    Args:
        strips: characters to remove from both ends of a piece, besides white space. A piece of nothing else is left
            out; of such a text there is one piece, "".

    Raises: InputError for a `maxlen` below 1.
    """
    if maxlen < 1:
        raise InputError(f"maxlen is {maxlen}; expected 1 or more")
    return _segments(text, maxlen, seps, strips) or [""]


def _segments(text: str, maxlen: int, seps: Sequence[str], strips: str | None) -> list[str]:
    text = text.strip().strip(strips)
    if not seps or len(text) <= maxlen:
        return [text] if text else []
    *pieces, last = text.split(seps[0])
    segments, current = [], ""
    for piece, end in [*((piece, seps[0]) for piece in pieces), (last, "")]:
        if current and piece and len(current) + len(piece) + len(seps[0]) > maxlen:
            segments += _segments(current, maxlen, seps[1:], strips)
            current = ""
        current += piece + end
    return segments + _segments(current, maxlen, seps[1:], strips)


def longest_common_substring(
    source: Sequence[Hashable], target: Sequence[Hashable]
) -> tuple[int, tuple[int, int, int, int]]:
    """The longest run of items in both: its length, and (begin, end, begin, end) in source and target.

    Of several as long, the one that ends first in the source, then in the target. (0, (0, 0, 0, 0)) if there is none.
    """
    places: dict[Hashable, list[int]] = {}
    for j, item in enumerate(target):
        places.setdefault(item, []).append(j)
    longest, span, previous = 0, (0, 0, 0, 0), {}
    for i, item in enumerate(source):
        runs = {}  # of the run that ends at source[i] and target[j], the length
        for j in places.get(item, ()):
            runs[j] = previous.get(j - 1, 0) + 1
            if runs[j] > longest:
                longest = runs[j]
                span = (i + 1 - longest, i + 1, j + 1 - longest, j + 1)
        previous = runs
    return longest, span


def longest_common_subsequence(
    source: Sequence[Hashable], target: Sequence[Hashable]
) -> tuple[int, list[tuple[int, int]]]:
    """The longest sequence of items that are in both in this order, gaps allowed: its length, and pairs of indices.

    Of several as long, the one that bert4keras finds. Takes 4 bytes for each pair of items.
    """
    codes: dict[Hashable, int] = {}
    first, second = (np.array([codes.setdefault(item, len(codes)) for item in items]) for items in (source, target))
    table = np.zeros((len(first) + 1, len(second) + 1), "int32")  # [i, j]: the length for source[:i] and target[:j]
    for i, code in enumerate(first):
        np.maximum.accumulate(np.maximum(table[i, 1:], table[i, :-1] + (second == code)), out=table[i + 1, 1:])
    pairs = []
    i, j = len(first), len(second)
    while table[i, j]:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif table[i, j - 1] > table[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return len(pairs), pairs[::-1]
