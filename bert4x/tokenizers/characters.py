"""Characters that are words of their own, and what a character becomes when text is normalised: tables for NumPy."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import normalizers

SPACE, RUN = -1, -2
SEVERAL = 0x10FFFF  # in a table of characters: becomes none of them alone
COMPATIBILITY = (0x2F800, 0x2FA1F)  # characters above U+FFFF that normalising may turn into ones below
PUNCTUATION_BLOCKS = ((0x21, 0x7E), (0xA1, 0xBF), (0x2010, 0x205E), (0x3001, 0x301F), (0xFF01, 0xFF65))
CJK_BLOCKS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF))


def is_lone_punctuation(char: str) -> bool:
    is_letter_or_digit = char.isascii() and char.isalnum()
    is_punctuation = char.isascii() or unicodedata.category(char).startswith("P")
    return is_punctuation and not is_letter_or_digit and unicodedata.normalize("NFD", char) == char


def char_table(vocab: dict[str, int], unk_id: int, split_cjk: bool) -> np.ndarray:
    """For each character up to U+FFFF: its id if it is always a word of its own, or SPACE or RUN."""
    table = np.full(0x10000, RUN, np.int32)
    for first, last in PUNCTUATION_BLOCKS:
        table[[code for code in range(first, last + 1) if is_lone_punctuation(chr(code))]] = unk_id
    for first, last in CJK_BLOCKS if split_cjk else ():
        table[first : last + 1] = unk_id
    for token, token_id in vocab.items():
        if len(token) == 1 and ord(token) < len(table) and table[ord(token)] != RUN:
            table[ord(token)] = token_id
    table[[ord(char) for char in " \t\n\r\u3000"]] = SPACE
    return table


class Folding:
    """Tells which texts may hold one of some strings, once both are normalised.

    It errs on the safe side: spaces count for nothing, and a text may hold anything if it has a character that becomes
    several or changes places with others.
    """

    def __init__(self, normalizer: normalizers.Normalizer, strings: Sequence[str]):
        self._strings = [_without_spaces(normalizer.normalize_str(string)) for string in strings]
        self._above_is_safe = all(ord(char) < 0x10000 for string in self._strings for char in string)
        self._table = np.full(0x10000, SEVERAL, "<u4")
        for code in (*range(0xD800), *range(0xE000, 0x10000)):
            normalized = _without_spaces(normalizer.normalize_str(chr(code)))
            if len(normalized) < 2 and not (normalized and unicodedata.combining(chr(code))):
                self._table[code] = ord(normalized) if normalized else 0

    def may_hold(self, text: str) -> bool:
        """Whether the text may hold one of the strings."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        above = codes >= 0x10000
        folded = self._table.take(codes, mode="clip")
        folded[above] = codes[above] if self._above_is_safe else SEVERAL
        folded[(codes >= COMPATIBILITY[0]) & (codes <= COMPATIBILITY[1])] = SEVERAL
        if (folded == SEVERAL).any():
            return True
        folded = folded[folded > 0].tobytes().decode("utf-32-le")
        return any(string in folded for string in self._strings)


def _without_spaces(text: str) -> str:
    return text.replace(" ", "")


def chunks(texts: list[str], size: int) -> Iterator[list[str]]:
    """The texts in order, in lists of about `size` characters."""
    chunk, length = [], 0
    for text in texts:
        chunk.append(text)
        length += len(text) + 1
        if length >= size:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk
