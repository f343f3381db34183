"""Reading, writing and trimming vocab.txt."""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ..checkpoints.formats.foreign import HEAD, text_of
from ..checkpoints.tensors import atomic_write
from ..errors import TokenizerError

MAX_BYTES = 64 << 20  # the largest published vocabularies are a few megabytes

# The code points Google's BERT takes for Chinese characters.
CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def is_cjk(char: str) -> bool:
    """Whether BERT puts spaces around this character."""
    code = ord(char)
    return any(first <= code <= last for first, last in CJK_RANGES)


def is_punctuation(char: str) -> bool:
    """Whether BERT splits at this character: every ASCII symbol, and Unicode's categories P."""
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")


def stem(token: str) -> str:
    """The token without the `##` that marks a continuation."""
    return token[2:] if token.startswith("##") else token


def read_bounded(path: str | os.PathLike) -> bytes:
    """The bytes of a vocabulary file. Raises: TokenizerError for none, and for more than MAX_BYTES."""
    if not isinstance(path, str | os.PathLike):
        raise TokenizerError(f"found {path!r:.60} as a vocabulary; expected the path of its file")
    path = Path(path)
    if not path.is_file():
        raise TokenizerError(f"no vocabulary file at {path}; pass the path of vocab.txt or of the model file")
    if path.stat().st_size > MAX_BYTES:
        raise TokenizerError(
            f"{path} has {path.stat().st_size:,} bytes; a vocabulary has at most {MAX_BYTES:,}. Is it the weights?"
        )
    data = path.read_bytes()
    if what := text_of(data[:HEAD]):
        raise TokenizerError(f"{path}: this is {what}")
    return data


def load_vocab(
    dict_path: str | os.PathLike,
    encoding: str = "utf-8",
    simplified: bool = False,
    startswith: Iterable[str] | None = None,
) -> dict[str, int] | tuple[dict[str, int], list[int]]:
    """Reads a vocab.txt: one token a line, whose number is its id, or "token<tab>id" lines, id 0 first (Paddle).

    With `simplified=True` returns `(token_dict, keep_tokens)` as bert4keras does: `startswith` first, then every
    other token in its old order, less those of several characters that contain a Chinese character or punctuation
    (`##的`, `[unused1]`), which BERT's tokenizer can never produce. `keep_tokens[new_id]` is the old id, for
    `load(..., keep_tokens=keep_tokens)`. `startswith` defaults to the special tokens the vocabulary has.

    Every line keeps its number: a blank one has the token "", which no text contains, and of equal tokens the last
    wins, as in transformers (ERNIE 3.0's vocabulary has "$" twice).

    Raises TokenizerError for a file that is missing, empty, undecodable, or that gives an id twice.
    """
    try:
        text = read_bounded(dict_path).decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{dict_path} is not a {encoding} text file ({error}); pass its encoding=") from error
    if "\0" in text:
        raise TokenizerError(f"{dict_path} holds binary data, not one token a line")
    lines = re.sub("\r\n?", "\n", text).rstrip("\n").split("\n")
    if lines == [""]:
        raise TokenizerError(f"{dict_path} is empty; expected one token a line")
    has_ids = lines[0].endswith("\t0")

    token_dict: dict[str, int] = {}
    lines_of: dict[int, int] = {}
    for number, line in enumerate(lines):
        token, *rest = re.split("[ \t]+", line.strip(" \t"))  # of a frequency list, what follows the token is dropped
        token_id = number
        if has_ids and not token:
            continue
        if has_ids:
            if len(rest) != 1 or not re.fullmatch("[0-9]{1,9}", rest[0]):
                raise TokenizerError(
                    f"{dict_path} line {number + 1}: expected a token, a tab and its id, found {line!r}"
                )
            token_id = int(rest[0])
        if token_id in lines_of:
            raise TokenizerError(f"{dict_path} lines {lines_of[token_id]} and {number + 1} both have id {token_id}")
        token_dict[token] = token_id
        lines_of[token_id] = number + 1
    return simplify_vocab(token_dict, startswith) if simplified else token_dict


def simplify_vocab(token_dict: dict[str, int], startswith: Iterable[str] | None = None) -> tuple[dict, list[int]]:
    """The `(token_dict, keep_tokens)` of `load_vocab(simplified=True)`. Raises: TokenizerError for absent tokens."""
    if startswith is None:
        startswith = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in token_dict]
    first = list(dict.fromkeys(startswith))
    if absent := [token for token in first if token not in token_dict]:
        raise TokenizerError(f"startswith names tokens that the vocabulary lacks: {', '.join(map(repr, absent))}")
    rest = sorted(token_dict.keys() - set(first), key=token_dict.__getitem__)
    tokens = first + [token for token in rest if not is_redundant(token)]
    return {token: i for i, token in enumerate(tokens)}, [token_dict[token] for token in tokens]


def is_redundant(token: str) -> bool:
    """Whether BERT's tokenizer can never produce this token: several characters with one that it splits at."""
    return len(token) > 1 and any(is_cjk(char) or is_punctuation(char) for char in stem(token))


def save_vocab(dict_path: str | os.PathLike, token_dict: dict[str, int], encoding: str = "utf-8") -> None:
    """Writes one token a line in the order of the ids, which must be 0, 1, 2 ...

    Raises: TokenizerError for other ids, and for a token that a line cannot hold.
    """
    tokens = sorted(token_dict, key=token_dict.__getitem__)
    for expected, token in enumerate(tokens):
        if token_dict[token] != expected:
            raise TokenizerError(f"a vocab.txt has ids 0, 1, 2 ...; id {expected} is missing or given twice")
        if re.search("[ \t\r\n]", token):
            raise TokenizerError(f"token {token!r} holds a space or line break; a vocab.txt cannot hold it")
    with atomic_write(dict_path) as temporary:
        temporary.write_text("".join(f"{token}\n" for token in tokens), encoding=encoding, newline="\n")
