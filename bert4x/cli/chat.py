"""The command chat: a conversation, line by line."""

import argparse
import contextlib
import sys
from collections.abc import Iterator

from bert4x.cli.decoding import (
    UNSTREAMED,
    add_decoding,
    add_model,
    given_decoding,
    load_model,
    read_stdin,
    show,
    unescaped,
)
from bert4x.errors import Bert4xError, GenerationError, InputError

TEMPLATE = r"问：{text}\n答："
END = "/exit"
KEYS = f"Ctrl-C stops an answer, {END} or Ctrl-D ends."
NO_ASSISTANT = "This model was not trained for dialogue, it continues text: do not expect an assistant."
ROOM = 512  # tokens of an answer of a model that was trained for dialogue, by default


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("chat", run_chat, "talk with a model; lines are read from the terminal or standard input")
    sub.add_argument("folder", nargs="?", metavar="MODEL", help="the same as --model")
    add_model(sub)
    sub.add_argument(
        "--template",
        help=r"one turn up to the answer; \n is a line break (default: the model's chat template, else 问 and 答)",
    )
    sub.add_argument("--system", metavar="TEXT", help="what the model is told first, by a chat template")
    sub.add_argument(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        help="whether a model that can think before it answers does",
    )
    add_decoding(sub, leave_out=("num_beams", "length_penalty", "num_return_sequences", "sliding_window", *UNSTREAMED))


def run_chat(options) -> int:
    """Answers line after line, until the input ends. Raises: InputError for two models."""
    given = given_decoding(options)
    if options.template is not None:
        check_template(unescaped(options.template))
    if options.folder is not None and options.model is not None:
        raise InputError(f"two models are given, {options.folder!r} and {options.model!r}; give one")
    options.model = options.model if options.folder is None else options.folder
    conversation = conversation_with(load_model(options), options, given)
    print(conversation.note, file=sys.stderr)
    for line in lines_of_user():
        if line.strip() == END:
            break
        try:
            show(conversation.answer(line))
        except KeyboardInterrupt:  # stops this answer only
            continue
        except Bert4xError as error:
            print(f"bert4x: {type(error).__name__}: {error}", file=sys.stderr)
    return 0


def conversation_with(model, options, given: dict) -> "Conversation | Dialogue":
    """By the model's chat template, or by one of a text. Raises: GenerationError for options that would do nothing."""
    templates = getattr(model.tokenizer, "chat_templates", {})
    if templates and options.template is None:
        variables = {} if options.thinking is None else {"enable_thinking": options.thinking}
        if variables and not any("enable_thinking" in template for template in templates.values()):
            raise GenerationError("the chat template of this model knows no enable_thinking; leave --thinking out")
        return Dialogue(model, options.system, variables, {"max_new_tokens": ROOM} | given)
    for name in ("system", "thinking"):
        if getattr(options, name) is not None:
            why = "this model has none" if not templates else "--template replaces it"
            raise GenerationError(f"--{name} is for a chat template, and {why}; leave it out")
    return Conversation(model, unescaped(options.template or TEMPLATE), given)


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

    note = f"{NO_ASSISTANT} {KEYS}"

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

        room = positions_of(self.model.builder) - read_options(self.options).max_new_tokens
        while self.turns and len(encode(self.model, "".join(self.turns) + asked).ids) > room:
            del self.turns[0]
        return "".join(self.turns) + asked


class Dialogue:
    """Messages by a model's chat template; what it is given is as many of the last turns as leave room for an answer.

    Raises: TokenizerError for a system text that the template refuses.
    """

    note = KEYS

    def __init__(self, model, system: str | None, variables: dict, options: dict):
        self.model, self.variables, self.options = model, variables, options
        self.first = [] if system is None else [{"role": "system", "content": system}]
        self.turns: list[dict] = []
        self.prompt("你好")  # what the template refuses, it refuses now

    def answer(self, text: str) -> Iterator:
        """Streams the answer, and remembers it as far as it came."""
        messages, said = self.prompt(text), []
        try:
            for piece in self.model.chat(messages, self.variables, stream=True, **self.options):
                said.append(piece.text)
                yield piece
        finally:
            if said:
                self.turns += [messages[-1], {"role": "assistant", "content": "".join(said)}]

    def prompt(self, text: str) -> list[dict]:
        """The messages up to the next answer; forgets the turns that do not fit."""
        from bert4x.generation.chat import prompt_of
        from bert4x.generation.options import read_options
        from bert4x.generation.window import positions_of

        room = positions_of(self.model.builder) - read_options(self.options).max_new_tokens
        messages = [*self.first, *self.turns, {"role": "user", "content": text}]
        while len(prompt_of(self.model, messages, self.variables).ids) > room and self.turns:
            del self.turns[:2]
            messages = [*self.first, *self.turns, messages[-1]]
        return messages


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
