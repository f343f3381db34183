"""What the files beside a vocabulary say of its tokens, read by the rules of transformers.

The rules: what tokenizer_config.json says of added tokens (`added_tokens_decoder`) is all there is; without it
special_tokens_map.json renames special tokens, and added_tokens.json and the `added_tokens` of tokenizer.json add some.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ..errors import CorruptFileError, TokenizerError
from ..json_files import check_kinds, read_json, shown

NAMES = ("pad_token", "unk_token", "mask_token", "cls_token", "sep_token", "bos_token", "eos_token")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
ENDS = ("add_bos_token", "add_eos_token")  # of a LlamaTokenizer
SWITCHES = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "keep_accents", "add_prefix_space", *ENDS)
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")  # classes that leave everything to tokenizer.json


@dataclass(frozen=True)
class TokenizerSettings:
    """Names of special tokens, added tokens by id, added tokens to which no file gives an id, and switches."""

    kind: str = ""  # tokenizer_class, without "Fast"
    names: dict[str, AddedToken] = field(default_factory=dict)
    added: dict[int, AddedToken] = field(default_factory=dict)
    extra: tuple[AddedToken, ...] = ()
    switches: dict[str, bool | None] = field(default_factory=dict)
    configured: bool = False  # there is a tokenizer_config.json

    def name(self, key: str, default: str | None = None) -> str | None:
        """The name of a special token."""
        return self.names[key].content if key in self.names else default

    def switch(self, key: str, default: bool | None = None) -> bool | None:
        """A switch; null counts as not given."""
        value = self.switches.get(key)
        return default if value is None else value


def read_settings(folder: Path, config: dict | None, tokenizer_json: dict) -> TokenizerSettings:
    """The settings of a folder; `config` is the model's, `tokenizer_json` the content of tokenizer.json, or {}.

    Raises: TokenizerError naming the file that is damaged.
    """
    place = folder / "tokenizer_config.json"
    own = checked(read_object(place), str(place))
    model = checked(config if config is not None else read_object(folder / "config.json"), str(folder / "config.json"))
    data = {key: model[key] for key in (*SWITCHES, *NAMES, "tokenizer_class") if model.get(key) is not None} | own
    if own.get("split_special_tokens"):
        raise TokenizerError(f"{place} says split_special_tokens = true, to cut special tokens in texts; not supported")
    names = {key: token(data[key], f"{place}: {key}", special=True) for key in NAMES if data.get(key) is not None}
    extra = data.get("extra_special_tokens") or data.get("additional_special_tokens") or ()
    extra = list(tokens(extra, f"{place}: extra_special_tokens"))
    if "added_tokens_decoder" in data:
        added = by_id(data["added_tokens_decoder"], f"{place}: added_tokens_decoder")
    else:
        place = folder / "special_tokens_map.json"
        renamed = read_object(place)
        names |= {key: token(renamed[key], f"{place}: {key}", special=True) for key in NAMES if renamed.get(key)}
        known = {one.content for one in names.values()}
        extra += tokens(renamed.get("extra_special_tokens") or (), f"{place}: extra_special_tokens")
        known |= {one.content for one in extra}
        extra += tokens(renamed.get("additional_special_tokens") or (), f"{place}: additional_special_tokens")
        added = written_alone(folder / "added_tokens.json", known) | of_tokenizer_json(tokenizer_json)
    kind = (data.get("tokenizer_class") or "").removesuffix("Fast")
    if kind in GENERIC:
        added = added | of_tokenizer_json(tokenizer_json)
    named = {one.content for one in names.values()}
    for one in added.values():
        one.special = one.special or one.content in named
    flagged = {one.content: one for one in added.values()}
    names = {key: flagged.get(one.content, one) for key, one in names.items()}
    listed = tuple({one.content: one for one in extra if one.content not in flagged}.values())
    switches = {key: data[key] for key in SWITCHES if key in data}
    return TokenizerSettings(kind, names, added, listed, switches, bool(own))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file, {} if there is none. Raises: TokenizerError."""
    try:
        return read_json(path) if path.is_file() else {}
    except CorruptFileError as error:
        raise TokenizerError(str(error)) from error


def checked(data: dict, where: str) -> dict:
    """The same object, whose switches and class are of their kinds. Raises: TokenizerError."""
    try:
        check_kinds(data, dict.fromkeys(SWITCHES, (bool,)) | {"tokenizer_class": (str,)}, where)
    except CorruptFileError as error:
        raise TokenizerError(str(error)) from error
    return data


def token(value, where: str, **defaults: bool) -> AddedToken:
    """A token given by its content, or by an object with content and flags. Raises: TokenizerError."""
    value = {"content": value} if isinstance(value, str) else value
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not content:
        raise TokenizerError(f'{where} is {shown(value)}; expected a token, or an object with its "content"')
    flags = defaults | {key: value[key] for key in FLAGS if value.get(key) is not None}
    flags |= defaults  # what is named as a special token is one
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise TokenizerError(f"{where} is {shown(value)}; {', '.join(FLAGS)} are true or false")
    return AddedToken(content, **flags)


def tokens(values, where: str) -> Iterable[AddedToken]:
    """Special tokens from a list, or from an object whose values they are. Raises: TokenizerError."""
    values = list(values.values()) if isinstance(values, dict) else values
    if not isinstance(values, list | tuple):
        raise TokenizerError(f"{where} is {shown(values)}; expected a list of tokens")
    return [token(value, where, special=True) for value in values]


def by_id(values, where: str) -> dict[int, AddedToken]:
    """Tokens from an object that maps ids to them. Raises: TokenizerError."""
    if not isinstance(values, dict):
        raise TokenizerError(f"{where} is {shown(values)}; expected an object of ids and tokens")
    return {token_id(key, where): token(value, f"{where}[{key}]") for key, value in values.items()}


def token_id(value, where: str) -> int:
    """An id, which JSON may hold as a string. Raises: TokenizerError."""
    text = str(value)
    if isinstance(value, bool | float) or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise TokenizerError(f"{where} has {shown(value)} where an id from 0 on was expected")
    return int(text)


def written_alone(path: Path, special: set[str]) -> dict[int, AddedToken]:
    """The tokens of an added_tokens.json, an object of tokens and ids. Raises: TokenizerError."""
    found = {}
    for content, number in read_object(path).items():
        is_special = content in special
        one = token(content, str(path)) if content else None
        if one is not None:
            one = AddedToken(content, normalized=not is_special, special=is_special)
            found[token_id(number, str(path))] = one
    return found


def of_tokenizer_json(data: dict) -> dict[int, AddedToken]:
    """The added tokens of a tokenizer.json. Raises: TokenizerError."""
    entries = data.get("added_tokens") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TokenizerError("tokenizer.json: added_tokens is no list of objects")
    where = "tokenizer.json: added_tokens"
    return {token_id(entry.get("id"), where): token(entry, where) for entry in entries}


def described(token: AddedToken) -> dict:
    """A token as tokenizer_config.json has it."""
    return {"content": token.content} | {flag: getattr(token, flag) for flag in FLAGS}
