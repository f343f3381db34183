"""Writing a WordPiece tokenizer so that bert4x, transformers and the readers of a plain vocab.txt agree."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, processors

from ..checkpoints.tensors import atomic_write
from .backend import KEYS
from .base import write_tokenizer_config
from .chat import write_chat
from .settings import described
from .vocab import save_vocab

if TYPE_CHECKING:
    from .wordpiece import Tokenizer

SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]", "start": "[CLS]", "end": "[SEP]"}


def save_wordpiece(tokenizer: Tokenizer, folder: str | os.PathLike) -> None:
    """Writes vocab.txt, tokenizer_config.json, and tokenizer.json where vocab.txt alone would not do.

    vocab.txt has every token, added ones as well, in the line of its id, as bert4keras and Google's code need; a line
    that cannot say what it should (a token with a space, an id without one) holds one that no text contains.
    """
    folder = Path(folder)
    lines = all_lines(tokenizer)
    save_vocab(folder / "vocab.txt", {token: number for number, token in enumerate(lines)})
    settings = {"do_lower_case": tokenizer.do_lower_case}
    if tokenizer.strip_accents is not None:
        settings["strip_accents"] = tokenizer.strip_accents
    if not tokenizer.tokenize_chinese_chars:
        settings["tokenize_chinese_chars"] = False
    settings |= {KEYS[name]: token for name, token in tokenizer.names.items() if token and token != SPECIALS[name]}
    added = {one.content: one for one in tokenizer.added_tokens.values()}
    older = any((folder / name).exists() for name in ("added_tokens.json", "special_tokens_map.json"))
    if older or any(not is_plain(one) for one in added.values()) or not added.keys() <= set(tokenizer.names.values()):
        ids = sorted(added, key=tokenizer.token_dict.__getitem__)
        settings["added_tokens_decoder"] = {str(tokenizer.token_dict[t]): described(added[t]) for t in ids}
    if tokenizer.chat_templates or tokenizer.stop_ids or tokenizer.generation:
        settings = write_chat(tokenizer, folder) | settings
    write_tokenizer_config(folder, tokenizer_class="BertTokenizer", **settings)
    exact = {token: number for number, token in enumerate(lines)} == tokenizer.vocab
    if not exact or (folder / "tokenizer.json").exists():  # an old one would be read before vocab.txt
        with atomic_write(folder / "tokenizer.json") as path:
            path.write_text(tokenizer_json(tokenizer), encoding="utf-8")


def all_lines(tokenizer: Tokenizer) -> list[str]:
    """The token of every id, as a vocab.txt can hold it."""
    unheld = re.compile(r"[\s\0]")
    held = {number: token for token, number in tokenizer.token_dict.items() if token and not unheld.search(token)}
    lines = []
    for number in range(tokenizer.vocab_size):
        token = held.get(number, f"[unused{number}]")
        while number not in held and token in tokenizer.token_dict:
            token = token.replace("]", "_]")
        lines.append(token)
    return lines


def is_plain(token: tokenizers.AddedToken) -> bool:
    """Whether a token is special and has no other flag."""
    return token.special and not (token.normalized or token.lstrip or token.rstrip or token.single_word)


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """Hugging Face's own file: the vocabulary without added tokens, these with their flags, start and end tokens."""
    backend = tokenizers.Tokenizer.from_str(tokenizer._backend.to_str())
    start, end = tokenizer._token_start, tokenizer._token_end
    first, last = (f"{start}:0 " if start else ""), (f" {end}:0" if end else "")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first}$A:0{last}",
        pair=f"{first}$A:0{last} $B:1{last.replace(':0', ':1')}",
        special_tokens=[(token, backend.token_to_id(token)) for token in {start, end} - {None}],
    )
    backend.decoder = decoders.WordPiece()
    data = json.loads(backend.to_str())
    numbers = set(tokenizer.vocab.values())
    free = set(range(max(numbers, default=-1))) - numbers
    data["model"]["vocab"] |= {token: number for number, token in enumerate(all_lines(tokenizer)) if number in free}
    for entry in data["added_tokens"]:
        entry["id"] = tokenizer.token_dict[entry["content"]]
    return json.dumps(data, ensure_ascii=False)
