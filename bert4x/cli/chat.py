"""The command chat: a conversation, line by line."""

import contextlib
import sys
from collections.abc import Iterator

from bert4x.cli.decoding import add_decoding, add_model, given_decoding, load_model, read_stdin, show, unescaped
from bert4x.errors import Bert4xError, GenerationError

TEMPLATE = r"问：{text}\n答："
NOTE = (
    "A base model continues text. None that bert4x loads was trained for dialogue: do not expect an assistant. "
    "Ctrl-C stops an answer, Ctrl-D ends."
)


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("chat", run_chat, "talk with a model; lines are read from the terminal or standard input")
    add_model(sub)
    sub.add_argument(
        "--template", default=TEMPLATE, help=r"one turn up to the answer; \n is a line break (default: %(default)s)"
    )
    add_decoding(sub, leave_out=("num_beams", "length_penalty", "num_return_sequences", "sliding_window"))


def run_chat(options) -> int:
    """Answers line after line, until the input ends."""
    given, template = given_decoding(options), unescaped(options.template)
    check_template(template)
    conversation = Conversation(load_model(options), template, given)
    print(NOTE, file=sys.stderr)
    for line in lines_of_user():
        try:
            show(conversation.answer(line))
        except KeyboardInterrupt:  # stops this answer only
            continue
        except Bert4xError as error:
            print(f"bert4x: {type(error).__name__}: {error}", file=sys.stderr)
    return 0


def check_template(template: str) -> None:
    """Raises: GenerationError for a template without `{text}`, or with anything else to fill in."""
    try:
        filled = template.format(text="")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise GenerationError(f"template {template!r}: {error!r}; it has one field, {{text}}") from error
    if filled == template.format(text="x"):
        raise GenerationError(f"template {template!r} has no {{text}}, the place of what you say")


class Conversation:
    """Turns of what was said and answered; a prompt is as many of the last ones as leave room for an answer."""

    def __init__(self, model, template: str, options: dict):
        before = template.partition("{text}")[0].strip()  # a model that goes on would play both parts
        self.model, self.template = model, template
        self.options = {"stop": ["\n", before] if before else ["\n"]} | options
        self.turns: list[str] = []

    def answer(self, text: str) -> Iterator:
        """Streams the answer, and remembers it as far as it came."""
        asked, said = self.template.format(text=text), []
        try:
            for piece in self.model.stream(self.prompt(asked), **self.options):
                said.append(piece.text)
                yield piece
        finally:
            if said:
                self.turns.append(f"{asked}{''.join(said)}\n")

    def prompt(self, asked: str) -> str:
        """The conversation up to the next answer; forgets the turns that do not fit."""
        from bert4x.generation.options import read_options
        from bert4x.generation.text import encode
        from bert4x.generation.window import positions_of

        room = positions_of(self.model.backbone) - read_options(self.options).max_new_tokens
        while self.turns and len(encode(self.model, "".join(self.turns) + asked).ids) > room:
            del self.turns[0]
        return "".join(self.turns) + asked


def lines_of_user() -> Iterator[str]:
    """What is typed or piped, line by line, without empty lines, until the end of the input."""
    if not sys.stdin.isatty():
        yield from (line for line in read_stdin() if line.strip())
        return
    with contextlib.suppress(ImportError):  # there is none on Windows
        import readline  # noqa: F401  # input() then edits lines and remembers them
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line.strip():
            yield line
