"""The `bert4x` command."""

import argparse
import os
import sys

from bert4x import chinese
from bert4x.cli import (
    chat,
    checkpoints,
    embed,
    evaluate,
    export,
    extract,
    few_shot,
    hub,
    light,
    port,
    predict,
    serve,
    text,
)
from bert4x.errors import Bert4xError
from bert4x.version import __version__


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 for an answer of no, 2 for an error."""
    if arguments is None:  # this process is the command's
        light.install()
    options = parse(arguments)
    try:
        return options.run(options) or 0
    except Bert4xError as error:
        print(f"bert4x: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bert4x: interrupted; nothing half-written was left", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed there at exit
        return 141
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"bert4x: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command line. Texts may also stand between and after options, where Python 3.11 leaves them."""
    top = parser()
    options, left = top.parse_known_args(arguments)
    if left and (not hasattr(options, "texts") or any(word.startswith("-") and word != "-" for word in left)):
        top.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.texts = [*options.texts, *left]
    return options


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="bert4x", description="Pretrained Chinese language models in Keras 3.")
    top.add_argument("--version", action="version", version=f"bert4x {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, summary):
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        return sub

    for module in (checkpoints, hub, text, chat, few_shot, extract, predict, evaluate, embed, export, serve, port):
        module.add_commands(command)
    if chinese.is_wanted():
        chinese.translate(top)
    return top
