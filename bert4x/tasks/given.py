"""What is given to tasks from Python, checked: rows, labels, sizes, models."""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError, DataError, InputError
from bert4x.families import family_of

HEADS = ("with_mlm", "with_nsp", "with_discriminator")  # options of models that then give other things than states
SEVERAL, INTEGER = Sequence | np.ndarray, int | np.integer


def check_fields(rows: Sequence, expected: str, *counts: int) -> None:
    """Raises: DataError for a row that is no tuple or list of so many fields, of which `expected` tells."""
    for number, row in enumerate(rows):
        if isinstance(row, str | bytes) or not isinstance(row, SEVERAL) or len(row) not in counts:
            raise DataError(f"row {number}: found {row!r:.60}; expected {expected}")


def check_keys(rows: Sequence, *keys: str) -> None:
    """Raises: DataError for a row that is no dict with these keys."""
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or any(key not in row for key in keys):
            raise DataError(f"row {number}: found {row!r:.60}; expected a dict with {', '.join(map(repr, keys))}")


def check_items(rows: Sequence, key: str, expected: str, *kinds: type) -> None:
    """Raises: DataError for a row whose `key` is no list of tuples of these kinds, of which `expected` tells."""
    for number, row in enumerate(rows):
        items = row[key] if isinstance(row[key], list | tuple | Set) else [row[key]]
        for item in items:
            fits = isinstance(item, list | tuple) and len(item) == len(kinds)
            if not fits or not all(map(isinstance, item, kinds)):
                raise DataError(f"row {number}: {key} has {item!r:.60}; expected a list of {expected}")


def check_counts(**numbers) -> None:
    """Raises: ConfigError for a setting that is no whole number from 1 on."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, INTEGER) or value < 1:
            raise ConfigError(f"{name} = {value!r}; expected a whole number, at least 1")


def check_shares(**numbers) -> None:
    """Raises: ConfigError for a setting that is no number between 0 and 1."""
    for name, value in numbers.items():
        if not is_number(value) or not 0 < value < 1:
            raise ConfigError(f"{name} = {value!r}; expected a number between 0 and 1")


def is_number(value) -> bool:
    """Whether a setting is a number; NumPy's are some, true and false are none."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def texts_or_pairs(texts) -> tuple[bool, list[Sequence[str]]]:
    """Whether it is one text, or one pair (a tuple), and a list of (text,) or (text, second text).

    Raises: InputError for anything else.
    """
    one = isinstance(texts, str | tuple)
    if not one and (isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable)):
        raise InputError(f"found {texts!r:.60}; expected a text, a pair of texts, or a list of these")
    pairs = [(row,) if isinstance(row, str) else row for row in ([texts] if one else texts)]
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) in (1, 2) and all(isinstance(t, str) for t in pair)):
            raise InputError(f"found {pair!r:.60}; expected a text, or a pair of texts")
    return one, pairs


def label_list(labels: Sequence, what: str = "labels") -> list[str]:
    """Labels as strings. Raises: ConfigError for what has no order, or is a single string."""
    if isinstance(labels, str | bytes | Mapping | Set) or not isinstance(labels, Iterable):
        raise ConfigError(f"{what} = {labels!r:.60}; expected a list of them, in the order that is to be kept")
    return [str(label) for label in labels]


def check_sizes(backbone, maxlen: int, dropout: float = 0.0, **others) -> None:
    """Raises: ConfigError when the model has fewer positions than `maxlen`, and for a dropout that is no rate."""
    most = backbone.config.max_position
    if isinstance(maxlen, bool) or not isinstance(maxlen, INTEGER) or not 8 <= maxlen <= most:
        raise ConfigError(f"maxlen = {maxlen!r:.40}; this model takes texts of 8 to {most} tokens")
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout = {dropout!r:.40}; expected a number from 0 to below 1")


def check_model(backbone) -> None:
    """Raises: ConfigError for what is no model of ours."""
    if not hasattr(backbone, "config") or not hasattr(backbone, "tokenizer"):
        raise ConfigError(f"found {backbone!r:.60} as the model; expected what bert4x.load gives")


def check_sees_all(config: TransformerConfig) -> None:
    """Raises: ConfigError for a model whose tokens see only those before them."""
    if family_of(config.model).causal:
        raise ConfigError(
            f"in a {config.model}, a token does not see what follows it, such as the rest of a name; expected an "
            "encoder, such as bert"
        )


def states_of(backbone, pooled: bool = False):
    """The hidden states that a model gives, or where `pooled` is allowed what its pooler makes of them.

    Shape: (B, T, D), or (B, D)
    Raises: ConfigError for a model that gives something else.
    """
    heads = [name for name in HEADS if getattr(backbone.builder, name, False)]
    if heads or len(backbone.output.shape) not in ((2, 3) if pooled else (3,)):
        which = heads[0] if heads else "with_pool"
        raise ConfigError(
            f"this model gives no hidden states (B, T, D), but what {which} makes of them; load it with "
            "application='encoder', without heads"
        )
    return backbone.output
