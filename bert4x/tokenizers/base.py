"""What all tokenizers share: start and end tokens, pairs, truncation, batches."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import TokenizerError
from . import chat
from .ids import check_length, id_list
from .scripts import special_id

_SURROGATES = re.compile("[\ud800-\udfff]")


def write_tokenizer_config(folder: str | os.PathLike, **values) -> None:
    """Writes tokenizer_config.json, by which loaders know the class of a vocabulary."""
    text = json.dumps(values, ensure_ascii=False, indent=2)
    (Path(folder) / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


PADDINGS = (False, True, "longest", "max_length")
Text = str | list[str]  # a text, or tokens that are already split and carry their own start and end


class TokenizerBase:
    """bert4keras' tokenizer interface. A subclass gives `_tokenize`, `token_to_id`, `id_to_token`, `decode`.

    `token_start` and `token_end` (None for none) surround every text. `pre_tokenize` is a function from a text to
    a list of words. `token_translate` renames tokens after splitting, and back when decoding.
    `pad_id, unk_id, mask_id, start_id, end_id` are None for what the vocabulary lacks.
    """

    vocab_size: int
    token_dict: dict[str, int]
    _tokens_by_id: dict[int, str]
    kind: str = "tokens"  # what `print` says that the vocabulary is
    chat_templates: dict[str, str] = {}  # noqa: RUF012  of a model for dialogue, by name; the usual one is "default"
    special_names: dict[str, str] = {}  # noqa: RUF012  "eos_token" and so on, as chat templates call them
    stop_ids: tuple[int, ...] = ()  # that end what its model generates, where a file says them
    generation: dict = {}  # noqa: RUF012  all that this file, generation_config.json, says

    def __init__(
        self,
        token_start: str | None = "[CLS]",
        token_end: str | None = "[SEP]",
        pre_tokenize: Callable[[str], Iterable[str]] | None = None,
        token_translate: dict[str, str] | None = None,
    ):
        self._token_start = token_start
        self._token_end = token_end
        self._pre_tokenize = pre_tokenize
        self._token_translate = dict(token_translate or {})
        self._token_translate_inv = {new: old for old, new in self._token_translate.items()}

    def _set_specials(self, ids: dict[str, int | None]) -> None:
        """Takes the ids of pad, unk, mask, start and end."""
        for name in ("start", "end"):
            token = getattr(self, f"_token_{name}")
            if token is not None and ids[name] is None:
                raise TokenizerError(
                    f"token_{name}={token!r} is not in the vocabulary; pass the {name} token it uses, or None"
                )
        self.pad_id, self.unk_id = ids["pad"], ids["unk"]
        self.mask_id, self.start_id, self.end_id = ids["mask"], ids["start"], ids["end"]

    # bert4keras' names
    _token_pad_id, _token_mask_id = special_id("pad_id"), special_id("mask_id")
    _token_unk_id = special_id("unk_id")
    _token_start_id, _token_end_id = special_id("start_id"), special_id("end_id")

    @property
    def _vocab_size(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        """Kind and size of the vocabulary, its special tokens with their ids, and whether it lower-cases."""
        roles = {"start": self.start_id, "end": self.end_id, "padding": self.pad_id}
        roles |= {"unknown": self.unk_id, "mask": self.mask_id}
        specials = [f"{role} {self.id_to_token(i)!r} {i}" for role, i in roles.items() if i is not None and i >= 0]
        absent = [role for role, i in roles.items() if i is None or i < 0]
        specials += [f"no {', '.join(absent)} token"] if absent else []
        case = {True: ", lower-cased", False: ", cased"}.get(getattr(self, "do_lower_case", None), "")
        return f"<{type(self).__name__}: {self.kind}, {self.vocab_size} tokens{case}; {', '.join(specials)}>"

    # for subclasses

    def _tokenize(self, text: str) -> list[str]:
        """Tokens of a text, without start and end."""
        raise NotImplementedError

    def _text_ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without start and end."""
        return [self.tokens_to_ids(self._tokens(text)) for text in texts]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the vocabulary into a folder, under the names `load_tokenizer` and `transformers` look for."""
        raise NotImplementedError

    def token_to_id(self, token: str) -> int:
        """The id of a token; the unknown id when the vocabulary lacks it."""
        raise NotImplementedError

    def id_to_token(self, token_id: int) -> str:
        """The token of an id. Raises: TokenizerError outside the vocabulary."""
        if token_id not in self._tokens_by_id:
            raise TokenizerError(f"no token has id {token_id}; ids go from 0 to {self.vocab_size - 1}")
        return self._tokens_by_id[token_id]

    def decode(self, ids: Sequence[int], tokens: Sequence[str] | None = None) -> str:
        """Readable text of ids (or of `tokens`, when given), without special tokens."""
        raise NotImplementedError

    # the interface

    def ids_without_token(self, size: int) -> list[int]:
        """Ids below `size` that no token has: models often have more rows than tokens, to a round number."""
        return sorted(set(range(size)) - set(self.token_dict.values()))

    def tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        """The id of each token."""
        return [self.token_to_id(token) for token in tokens]

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """The token of each id."""
        return [self.id_to_token(token_id) for token_id in id_list(ids)]

    def tokenize(self, text: str, maxlen: int | None = None) -> list[str]:
        """Tokens of a text with the start and end tokens, at most `maxlen` of them (cut before the end token).

        A word that the vocabulary cannot spell is given as the word itself; its id is the unknown id.
        """
        start = [] if self._token_start is None else [self._token_start]
        end = [] if self._token_end is None else [self._token_end]
        tokens = start + self._tokens(_checked(text)) + end
        return self._truncate(tokens, None, maxlen, "right")[0]

    def _tokens(self, text: str) -> list[str]:
        return [self._token_translate.get(token, token) for token in self._tokenize(text)]

    def apply_chat_template(
        self,
        messages: Sequence[dict],
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        tools: Sequence[dict] | None = None,
        template: str | None = None,
        **variables,
    ) -> str | list[int]:
        """The text of messages, `{"role": "user", "content": "..."}`, as the model was trained on it; with
        `add_generation_prompt` up to where its answer begins, with `tokenize` as ids.
        `tools` are JSON schemas of what it may call; `template` is a name of `chat_templates`, or a template;
        `variables` are those of the template, such as Qwen3's `enable_thinking=False`.
        Raises: TokenizerError without a template, for one that is wrong, and for messages that it refuses.
        """
        given = {"tools": tools, "add_generation_prompt": add_generation_prompt} | variables
        text = chat.render_for(self, messages, template, given)
        return self._text_ids([text])[0] if tokenize else text

    def encode(
        self,
        first_text: Text,
        second_text: Text | None = None,
        maxlen: int | None = None,
        pattern: str = "S*E*E",
        truncate_from: str | int = "right",
    ) -> tuple[list[int], list[int]]:
        """`(token_ids, segment_ids)`, each of one length T <= `maxlen`; segments are 0, and 1 for the second text.

        A list of tokens is used as it is, so it must hold its own start and end tokens. `pattern` "S*E*E" drops the
        start token of the second text, "S*ES*E" keeps it. When the result is longer than `maxlen`, the longer
        of the two texts is shortened, at its "right" or "left" end or from an index on.
        """
        firsts, seconds = self._encode_all([first_text], None if second_text is None else [second_text])
        return self._join(firsts[0], seconds[0], maxlen, pattern, truncate_from)

    def encode_batch(
        self,
        texts: Iterable[Text],
        second_texts: Iterable[Text] | None = None,
        maxlen: int | None = None,
        pattern: str = "S*E*E",
        truncate_from: str | int = "right",
        padding: bool | str = False,
    ) -> tuple:
        """`encode` of many texts (with `second_texts`: of pairs), much faster than one by one.

        Returns `(token_ids, segment_ids)`: lists of B lists, or with `padding` int32 arrays of shape (B, T), filled up
        with `pad_id` and segment 0. T is the longest text with `padding=True` or "longest", and `maxlen` with
        "max_length".
        Raises: TokenizerError for what cannot be encoded or padded so.
        """
        if padding is not None and padding not in PADDINGS:
            raise TokenizerError(f"padding={padding!r}; expected one of {', '.join(map(repr, PADDINGS))}")
        if padding == "max_length" and maxlen is None:
            raise TokenizerError('padding="max_length" pads to maxlen; give it, or pad to the longest text with True')
        if isinstance(texts, str | Mapping) or not isinstance(texts, Iterable):
            raise TokenizerError(f"encode_batch takes a list of texts, not {texts!r:.40}; use encode for one text")
        texts = list(texts)
        seconds = None if second_texts is None else list(second_texts)
        if seconds is not None and len(seconds) != len(texts):
            raise TokenizerError(f"{len(texts)} texts but {len(seconds)} second texts; they must go in pairs")
        firsts, seconds = self._encode_all(texts, seconds)
        pairs = [self._join(a, b, maxlen, pattern, truncate_from) for a, b in zip(firsts, seconds, strict=True)]
        token_ids, segment_ids = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if not padding:
            return token_ids, segment_ids
        if self.pad_id is None:
            raise TokenizerError("this vocabulary has no padding token; pad the lists yourself and pass a padding_mask")
        length = maxlen if padding == "max_length" else max(map(len, token_ids), default=0)
        return _pad(token_ids, length, self.pad_id), _pad(segment_ids, length, 0)

    def _encode_all(self, firsts: list[Text], seconds: list[Text] | None) -> tuple[list[list[int]], list]:
        """Ids of all texts, each with start and end, in one go."""
        texts = firsts + (seconds or [])
        plain = [text for text in texts if not isinstance(text, list | tuple)]
        for text in plain:
            _checked(text)
        start = [] if self.start_id is None else [self.start_id]
        end = [] if self.end_id is None else [self.end_id]
        encoded = [start + ids + end for ids in self._text_ids(plain)]
        if len(plain) < len(texts):
            rest = iter(encoded)
            encoded = [self.tokens_to_ids(t) if isinstance(t, list | tuple) else next(rest) for t in texts]
        return encoded[: len(firsts)], encoded[len(firsts) :] or [None] * len(firsts)

    def joined(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """`(token_ids, segment_ids)` of two texts that are given by their ids, without special tokens; these are added.

        Raises: TokenizerError for a tokenizer that takes no pairs.
        """
        start = [] if self.start_id is None else [self.start_id]
        end = [] if self.end_id is None else [self.end_id]
        return self._join([*start, *first, *end], [*start, *second, *end], None, "S*E*E", "right")

    def _join(self, first, second, maxlen, pattern, truncate_from) -> tuple[list[int], list[int]]:
        check_length(maxlen)
        if pattern not in ("S*E*E", "S*ES*E"):
            raise TokenizerError(f"pattern {pattern!r}; expected 'S*E*E' or 'S*ES*E'")
        dropped = int(self._token_start is not None and pattern == "S*E*E")
        if second is None:
            first, _ = self._truncate(first, None, maxlen, truncate_from)
            return first, [0] * len(first)
        first, second = self._truncate(first, second, maxlen, truncate_from, dropped)
        second = second[dropped:]
        return first + second, [0] * len(first) + [1] * len(second)

    def _truncate(
        self, first: list, second: list | None, maxlen: int | None, truncate_from: str | int, dropped: int = 0
    ):
        """Drops items from the longer sequence until both have `maxlen` together, of equal ones from the first; the
        second will lose `dropped` more.
        """
        a, b = len(first), len(second or ())
        given, maxlen = maxlen, None if maxlen is None else maxlen + dropped
        check_length(maxlen)
        if maxlen is None or a + b <= maxlen:
            return first, second
        half, other_half = maxlen // 2, maxlen - maxlen // 2
        keep = max(maxlen - b, min(a, half)) if second is not None else maxlen
        keep_second = min(b, max(maxlen - a, other_half))
        start, end = self._token_start is not None, self._token_end is not None
        if min(keep, keep_second if second is not None else keep) < start + end:
            raise TokenizerError(f"maxlen is too short for the start and end tokens; {given} given")
        index = {"right": -1 - end, "left": int(start)}.get(truncate_from, truncate_from)
        if isinstance(index, bool) or not isinstance(index, int):
            raise TokenizerError(f"truncate_from={truncate_from!r}; expected 'right', 'left' or an index")
        return _drop(first, a - keep, index), None if second is None else _drop(second, b - keep_second, index)


def _drop(items: list, count: int, index: int) -> list:
    """What `count` calls of `items.pop(index)` leave; near an end that has too few items, the nearest others go."""
    at = index if index >= 0 else len(items) + index + 1 - count
    at = max(0, min(at, len(items) - count))
    return items[:at] + items[at + count :]


def without_surrogates(text: str) -> str:
    """The text with every lone surrogate, which no UTF-8 can hold, as U+FFFD; its length stays."""
    return _SURROGATES.sub("\ufffd", text)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TokenizerError(f"a text must be a str or a list of tokens, not {type(text).__name__}")
    return text


def _pad(rows: list[list[int]], length: int, value: int) -> np.ndarray:
    array = np.full((len(rows), length), value, np.int32)
    for row, ids in zip(array, rows, strict=True):
        row[: len(ids)] = ids
    return array
