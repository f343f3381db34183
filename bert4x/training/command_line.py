"""A dataclass of arguments as a command line: its fields are the options, their help what is said of them."""

import argparse
import dataclasses
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

from bert4x.errors import RunError

TESTS = {
    "least": (lambda x, bound: x >= bound, "at least"),
    "above": (lambda x, bound: x > bound, "above"),
    "below": (lambda x, bound: x < bound, "below"),
}


def option(default, help: str, *, only: dict[str, Any] | None = None, **limits) -> Any:
    """A field with its default and its help; `least`, `above` and `below` limit a number.

    Args:
        only: other fields, without which this one does nothing: the values that they must have, or whether they must be
            given.
    """
    return dataclasses.field(default=default, metadata={"help": help, "limits": limits, "only": only or {}})


def parse(cls: type, description: str | None = None, argv: Sequence[str] | None = None):
    """An instance of a class of arguments, from a command line. Another `--backend` than the one that is loaded starts
    the same command anew with it.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        add_argument(parser, field, hints[field.name])
    given = vars(parser.parse_args(argv))
    args = cls(**(dict(cls.smoke_values) if given.get("smoke") else {}) | given)
    try:
        check(args)
        check_used(args, given)
    except RunError as error:
        parser.error(str(error))
    if argv is None and getattr(args, "backend", None):
        restart_with(args.backend)
    return args


def add_argument(parser: argparse.ArgumentParser, field: dataclasses.Field, hint) -> None:
    """One field as an option; what is not given is left to the field's default."""
    name, text = flag(field.name), field.metadata["help"]
    kind = next(k for k in alternatives(hint) if k is not type(None))
    several = typing.get_origin(kind) is tuple  # tuple[X, ...]: one or more
    kind = typing.get_args(kind)[0] if several else kind
    shown = "" if field.default in (None, ()) or kind is bool else f" (default: {field.default})"
    options: dict[str, Any] = {"help": (text + shown).replace("%", "%%"), "default": argparse.SUPPRESS}
    if several:
        options["nargs"] = "+"
    if kind is bool and field.default is None:  # yes, no, or not said
        parser.add_argument(name, action=argparse.BooleanOptionalAction, **options)
    elif kind is bool:
        parser.add_argument(name, action="store_true", **options)
    elif typing.get_origin(kind) is Literal:
        parser.add_argument(name, choices=typing.get_args(kind), **options)
    else:
        parser.add_argument(name, type=kind, metavar=field.name.rpartition("_")[2].upper(), **options)


def alternatives(hint) -> tuple:
    """What a type may be: of `X | None`, both."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def flag(name: str) -> str:
    """A field's name as an option of a command line."""
    return "--" + name.replace("_", "-")


def check(args, spell: Callable[[str], str] = flag) -> None:
    """Raises: RunError for a number out of its limits; `spell` says how the field is named to whoever gave it."""
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        for limit, bound in field.metadata["limits"].items():
            holds, said = TESTS[limit]
            if value is not None and not (math.isfinite(value) and holds(value, bound)):
                raise RunError(f"{spell(field.name)} {value}; expected a number {said} {bound}")


def check_used(args, given: Collection[str]) -> None:
    """Raises: RunError for a field that was given and does nothing beside the others."""
    for field in dataclasses.fields(args):
        for other, wanted in field.metadata["only"].items() if field.name in given else ():
            value = getattr(args, other)
            if isinstance(wanted, tuple) and value not in wanted:
                raise RunError(f"{flag(field.name)} is for {flag(other)} {' or '.join(wanted)}, not for {value}")
            if isinstance(wanted, bool) and bool(value) != wanted:
                raise RunError(f"{flag(field.name)} does nothing with{'out' if wanted else ''} {flag(other)}")


def restart_with(backend: str) -> None:
    """Runs the same command with another backend, which Keras reads once, when it is imported."""
    import keras

    if keras.backend.backend() != backend:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"KERAS_BACKEND": backend})
