"""Chat templates: messages as the text that a model for dialogue was trained on, and the tokens that end its answers.

A template is a Jinja program in a downloaded file. It runs in a sandbox that can neither change what it is given
nor reach what is not JSON, nor compute without end (`chat_bounds`).
"""

import functools
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from ..json_files import shown
from .settings import read_object, read_settings

TEMPLATE_FILE, GENERATION_FILE = "chat_template.jinja", "generation_config.json"
TOOLS = "tool_use"  # the name of the template for tools, where there are several
THOUGHTS = ("reasoning_content", "thinking", "reasoning")  # what callers call the thoughts before an answer


def render_for(tokenizer, messages: Sequence[dict], template: str | None, given: dict[str, Any]) -> str:
    """The text of messages by a tokenizer's template. Raises: TokenizerError."""
    program = chosen(tokenizer.chat_templates, template, given["tools"])
    return render(program, messages, **tokenizer.special_names | {"documents": None} | given)


def render(template: str, messages: Sequence[dict], **variables: Any) -> str:
    """The text of messages by a template, with the functions that templates of transformers may call.

    Raises: TokenizerError for a template that is wrong or refuses these messages.
    """
    import jinja2

    from .chat_bounds import METER, Meter

    try:
        given = json.loads(json.dumps([messages, variables]))  # plain values, which have no methods of users' classes
    except (TypeError, ValueError, RecursionError) as error:
        raise TokenizerError(f"messages and what goes with them must be JSON values: {error}") from error
    messages, variables = given
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise TokenizerError(
            f'messages are {shown(messages)}; expected a list such as [{{"role": "user", "content": "你好"}}]'
        )
    messages = [with_thoughts({key: value for key, value in one.items() if value is not None}) for one in messages]
    try:
        return compiled(template).render(messages=messages, **variables | {METER: Meter(template)})
    except (
        jinja2.TemplateError,
        ArithmeticError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise TokenizerError(f"the chat template cannot write these messages: {error}") from error


def with_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    """A message with its thoughts under the names that templates read, whatever the caller calls them."""
    thoughts = next((message[name] for name in THOUGHTS if name in message), None)
    return message if thoughts is None else {"thinking": thoughts} | message | {"reasoning_content": thoughts}


@functools.lru_cache(maxsize=16)
def compiled(template: str):
    """The program of a template. Raises: jinja2.TemplateError"""
    import jinja2
    from jinja2.ext import loopcontrols

    from .chat_bounds import BoundedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks what the model writes, which matters to training only."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": datetime.now().strftime}
    return environment.from_string(template)


def chosen(templates: dict[str, str], name: str | None, tools) -> str:
    """One of a tokenizer's templates: that of a name, by default the one for tools where there are some, else the
    first. A text that is no name is a template itself.

    Raises: TokenizerError where there is none.
    """
    if name is not None:
        return templates.get(name, name)
    if not templates:
        raise TokenizerError(
            f"this tokenizer has no chat template; give one (template=...), or put {TEMPLATE_FILE} beside the weights. "
            "A model that was not trained for dialogue has none"
        )
    first = templates.get("default", next(iter(templates.values())))
    return templates.get(TOOLS, first) if tools else first


def read_chat(tokenizer, folder: Path) -> None:
    """Gives a tokenizer the templates of a folder, the names of its tokens that they write, and the ids that end what
    its model generates.

    Raises: TokenizerError naming the file that is damaged.
    """
    tokenizer.chat_templates = read_templates(folder)
    tokenizer.special_names = {key: one.content for key, one in read_settings(folder, {}, {}).names.items()}
    tokenizer.generation = read_object(folder / GENERATION_FILE)
    tokenizer.stop_ids = stop_ids_of(tokenizer, folder / GENERATION_FILE)


def stop_ids_of(tokenizer, place: Path) -> tuple[int, ...]:
    """The ids that end what is generated, by its generation_config.json. Raises: TokenizerError"""
    ends = tokenizer.generation.get("eos_token_id")
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in ends):
        raise TokenizerError(f"{place}: eos_token_id is {shown(ends)}; expected an id or a list of ids")
    # Files that transformers wrote beside a vocabulary of another size keep GPT2's 50256.
    return tuple(one for one in ends if one in tokenizer.token_dict.values())


def read_templates(folder: Path) -> dict[str, str]:
    """The templates of a folder by name: of tokenizer_config.json, or chat_template.jinja. Raises: TokenizerError"""
    place = folder / "tokenizer_config.json"
    said = read_object(place).get("chat_template")
    if isinstance(said, list) and all(isinstance(one, dict) for one in said):
        said = {one.get("name"): one.get("template") for one in said}
    found = {} if said is None else {"default": said} if isinstance(said, str) else said
    if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise TokenizerError(f"{place}: chat_template is {shown(said)}; expected a text, or texts by name")
    files = {"default": folder / TEMPLATE_FILE}
    files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    return found | {name: read_text(path) for name, path in files.items() if path.is_file()}


def read_text(path: Path) -> str:
    """A text file. Raises: TokenizerError for what is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8: {error}") from error


def write_chat(tokenizer, folder: str | os.PathLike) -> dict[str, Any]:
    """Writes the templates and how texts are generated. Returns what tokenizer_config.json is to say."""
    folder = Path(folder)
    if "default" in tokenizer.chat_templates:
        (folder / TEMPLATE_FILE).write_text(tokenizer.chat_templates["default"], encoding="utf-8")
    for name, text in tokenizer.chat_templates.items():
        if name != "default":
            (folder / "additional_chat_templates").mkdir(exist_ok=True)
            (folder / "additional_chat_templates" / f"{name}.jinja").write_text(text, encoding="utf-8")
    place, said = folder / GENERATION_FILE, tokenizer.generation
    if tokenizer.stop_ids != stop_ids_of(tokenizer, place):
        said = said | {"eos_token_id": list(tokenizer.stop_ids)}
    if said:
        place.write_text(json.dumps(said, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return tokenizer.special_names
