"""Ids and lengths as users give them, checked."""

import numbers
from collections.abc import Iterable, Mapping

from ..errors import TokenizerError


def check_length(maxlen) -> None:
    """Raises: TokenizerError for what is neither an integer nor None."""
    if maxlen is not None and (isinstance(maxlen, bool) or not isinstance(maxlen, numbers.Integral)):
        raise TokenizerError(f"maxlen is {maxlen!r}; expected an integer, or None")


def as_id(value) -> int:
    """A token's id as an int. Raises: TokenizerError for a fraction, NaN, and what is no number."""
    try:
        token_id = int(value)
    except (TypeError, ValueError, OverflowError):
        token_id = None
    if token_id is None or token_id != value:
        raise TokenizerError(f"a token's id is {str(value)[:80]}; expected an integer")
    return token_id


def id_list(ids: Iterable) -> list[int]:
    """Ids of tokens as ints. Raises: TokenizerError for what is no list of them."""
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise TokenizerError(f"found {ids!r:.60}; expected a list of the ids of tokens")
    return [as_id(token_id) for token_id in ids]
