"""What the commands that write text have in common: options of decoding, models, streams, standard input."""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from numbers import Integral
from pathlib import Path

from bert4x.errors import InputError
from bert4x.generation.options import CHECKS, GenerationOptions, read_options

# The options of decoding that a command takes; their types and defaults are those of GenerationOptions.
DECODING = {
    "max_new_tokens": "tokens to write at most",
    "min_new_tokens": "no end before so many",
    "do_sample": "draw tokens, instead of taking the likeliest; any of the next five implies it",
    "temperature": "below 1: safer, above 1: bolder",
    "top_k": "draw from the K likeliest tokens",
    "top_p": "draw from the fewest tokens that together have this probability",
    "min_p": "draw from tokens at least so likely, relative to the likeliest",
    "seed": "the same seed, prompt and options give the same text",
    "repetition_penalty": "above 1: what was written becomes less likely",
    "no_repeat_ngram_size": "nothing of so many tokens comes twice",
    "num_beams": "search with so many beams",
    "length_penalty": "beams are compared by log p / length ** penalty",
    "num_return_sequences": "texts for each prompt",
    "stop": r"end at this text, which is left out; \n is a line break; may be given several times",
    "prompt_lookup": "try so many tokens that stood in the text before; the same greedy text, faster where it repeats",
    "drafter": "a smaller model of the same vocabulary, whose drafts it checks; the same greedy text",
    "draft_tokens": "tokens of a draft, 4 unless told",
    "choices": "write one of these texts; may be given several times",
    "regex": "write what this regular expression matches",
    "json_schema": "write JSON of this schema, itself JSON, or @FILE that holds it",
    "sliding_window": "forget the oldest tokens when the model has no more positions",
}
FORMS = ("choices", "regex", "json_schema")
UNSTREAMED = ("prompt_lookup", "drafter", "draft_tokens", *FORMS)


def add_model(sub) -> None:
    """The options that say which model."""
    sub.add_argument("--model", help="a checkpoint (default: the model inside the package)")
    sub.add_argument(
        "--application",
        choices=["lm", "unilm"],
        default="lm",
        help="continue, or read and write (default: %(default)s)",
    )
    sub.add_argument("--dtype", help="of the weights: float32, bfloat16 ... (default: Keras' own)")
    sub.add_argument("--quantize", choices=["int8"], help="the matrices: a quarter of float32's memory")


def add_decoding(sub, leave_out=(), **defaults) -> None:
    """The options of decoding, but some; an option that is not given is not passed on."""
    group = sub.add_argument_group("decoding")
    own = {field.name: field.default for field in dataclasses.fields(GenerationOptions)}
    for name in (name for name in DECODING if name not in leave_out):
        default = defaults.get(name, own[name])
        kwargs = {"help": DECODING[name], "default": default if name in defaults else argparse.SUPPRESS}
        if name in TEXTS:
            kwargs |= TEXTS[name]
        elif name not in CHECKS:
            kwargs["action"] = "store_true"
        else:
            kwargs |= {"type": int if CHECKS[name][0] is Integral else float, "metavar": "N"}
            kwargs["help"] += "" if default is None else f" (default: {default})"
        group.add_argument("--" + name.replace("_", "-"), **kwargs)


def schema(text: str) -> str:
    """A schema, or that of a file whose name comes after an @. Raises: argparse.ArgumentTypeError"""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"the schema cannot be read: {error}") from error


def unescaped(text: str) -> str:
    r"""A text in which \n stands for a line break: shells make those hard to write."""
    return text.replace(r"\n", "\n")


# Options that are texts.
TEXTS: dict = {
    "stop": {"action": "append", "type": unescaped},
    "drafter": {"metavar": "MODEL"},
    "choices": {"action": "append", "metavar": "TEXT"},
    "regex": {"metavar": "R"},
    "json_schema": {"type": schema, "metavar": "JSON"},
}


def given_decoding(options) -> dict:
    """The options of decoding that were given; a drafter as a model. Raises: GenerationError."""
    given = {name: getattr(options, name) for name in DECODING if hasattr(options, name)}
    read_options(given)
    if "drafter" in given:
        from bert4x.models.build import load

        given["drafter"] = load(given["drafter"], options.application)
    return given


def load_model(options):
    """The model of a command."""
    from bert4x.models.build import load

    given = {name: getattr(options, name) for name in ("dtype", "quantize") if getattr(options, name)}
    return load(options.model, options.application, **given)


def read_stdin() -> Iterator[str]:
    """The lines of standard input. Raises: InputError for what is no UTF-8."""
    try:
        yield from (line.rstrip("\r\n") for line in sys.stdin)
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8: {error}") from error


def show(pieces: Iterable) -> None:
    """Prints a text as it comes, and ends the line even when it is interrupted."""
    try:
        for piece in pieces:
            print(piece.text, end="", flush=True)
    finally:
        print(flush=True)
