"""Patterns of variables' paths, and checks of options."""

import numbers
import re
import warnings
from collections.abc import Iterable

from bert4x.errors import ConfigError


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of some patterns is found in a path."""
    return any(re.search(pattern, path) for pattern in patterns)


def check_patterns(options: dict, name: str) -> None:
    """Makes a list of the option `name`; a single string would be read as a list of letters. Raises: ConfigError"""
    patterns = options[name]
    options[name] = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in options[name]:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigError(f"{name}: {pattern!r} is no regular expression: {error}") from error


def check_count(options: dict, name: str) -> None:
    """Raises: ConfigError for an option that is no whole number from 1 on."""
    if not isinstance(options[name], numbers.Integral) or options[name] < 1:
        raise ConfigError(f"{name} {options[name]!r}; expected a whole number, 1 or more")


def warn_unmatched(option: str, patterns: Iterable[str], variables: list) -> None:
    """Warns of patterns that are found in no variable's path."""
    unmatched = [pattern for pattern in patterns if not any(re.search(pattern, v.path) for v in variables)]
    if unmatched:
        warnings.warn(f"{option}: {unmatched} match no trainable variable, so they do nothing", stacklevel=2)
