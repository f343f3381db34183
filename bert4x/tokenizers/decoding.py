"""From WordPiece tokens back to readable text."""

import unicodedata
from collections.abc import Sequence

from .vocab import is_cjk, is_punctuation

_CONTRACTIONS = {"re", "m", "s", "t", "ve", "d", "ll"}
_NO_SPACE_AFTER = set("+-/={(<[")


def join_wordpieces(tokens: Sequence[str]) -> str:
    """Joins tokens as people write them: no spaces around Chinese, one between Latin words, `##` merged, none
    before punctuation, none after opening brackets, operators and Chinese punctuation.
    """
    text = ""
    for token in tokens:
        if token.startswith("##") and len(token) > 2:
            text += token[2:]
        elif text and _wants_space(text, token):
            text += " " + token
        else:
            text += token
    return text.strip()


def _wants_space(text: str, token: str) -> bool:
    last = text[-1]
    if len(token) == 1 and (is_cjk(token) or is_punctuation(token)):
        return False
    if last == " " or last in _NO_SPACE_AFTER or is_cjk(last) or _is_chinese_symbol(last):
        return False
    if last == "'" and token in _CONTRACTIONS:
        return False
    is_decimal_point = last == "." and text[-2:-1].isdigit() and token[:1].isdigit()
    return not is_decimal_point


def _is_chinese_symbol(char: str) -> bool:
    """Punctuation beyond ASCII, and full-width forms such as U+FF5E."""
    return not char.isascii() and (is_punctuation(char) or unicodedata.east_asian_width(char) == "F")
