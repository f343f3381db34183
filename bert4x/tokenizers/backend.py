"""Any tokenizer of Hugging Face's `tokenizers`, as a tokenizer.json describes it: XLM-R's, ALBERT's, and others."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from ..errors import TokenizerError
from .base import TokenizerBase, without_surrogates, write_tokenizer_config
from .chat import write_chat
from .ids import id_list
from .reading import reading
from .settings import TokenizerSettings

KEYS = {"pad": "pad_token", "unk": "unk_token", "mask": "mask_token", "start": "cls_token", "end": "sep_token"}


class BackendTokenizer(TokenizerBase):
    """A `tokenizers.Tokenizer` with bert4keras' interface, and transformers' ids.

    `names` are the pad, unk and mask tokens. `second_start` are the tokens before the second text of a pair, instead of
    the start token: XLM-R's pairs are `<s> a </s></s> b </s>`; None where pairs are refused. `second_segment` is the
    segment of that text.

    Raises: TokenizerError when the start or end token is not in the vocabulary.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        token_start: str | None = None,
        token_end: str | None = None,
        names: dict[str, str | None] | None = None,
        second_start: Sequence[str] | None = (),
        second_segment: int = 1,
    ):
        super().__init__(token_start, token_end)
        self._backend = backend
        self.token_dict = backend.get_vocab(with_added_tokens=True)
        self._token_dict = self.token_dict
        self._tokens_by_id = {token_id: token for token, token_id in self.token_dict.items()}
        self.vocab_size = max(self._tokens_by_id, default=-1) + 1
        self._second_start, self._second_segment = second_start, second_segment
        self.names = {"pad": None, "unk": None, "mask": None} | (names or {}) | {"start": token_start, "end": token_end}
        self._set_specials({name: self.token_dict.get(token) for name, token in self.names.items()})

    @property
    def kind(self) -> str:
        return type(self._backend.model).__name__

    def save(self, folder: str | os.PathLike) -> None:
        (Path(folder) / "tokenizer.json").write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        names = {KEYS[name]: token for name, token in self.names.items() if token is not None}
        names = write_chat(self, folder) | names
        write_tokenizer_config(folder, tokenizer_class="PreTrainedTokenizerFast", **names)

    def _encode(self, text: str) -> tokenizers.Encoding:
        with reading("this tokenizer"):
            return self._backend.encode(without_surrogates(text), add_special_tokens=False)

    def _tokenize(self, text: str) -> list[str]:
        return [self._tokens_by_id[token_id] for token_id in self._encode(text).ids]

    def _text_ids(self, texts: list[str]) -> list[list[int]]:
        texts = [without_surrogates(text) for text in texts]
        with reading("this tokenizer"):
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _join(self, first, second, maxlen, pattern, truncate_from) -> tuple[list[int], list[int]]:
        if second is not None and self._second_start is None:
            raise TokenizerError(
                "the tokenizer.json joins two texts otherwise than with what stands around each of them; expected one "
                "text at a time"
            )
        if second is None or pattern != "S*E*E" or not (self._second_start or self._second_segment == 0):
            return super()._join(first, second, maxlen, pattern, truncate_from)
        starts = self.tokens_to_ids(self._second_start)
        room = None if maxlen is None else maxlen - len(starts)
        ids, segments = super()._join(first, second, room, pattern, truncate_from)
        cut = segments.index(1) if 1 in segments else len(segments)
        second_ids = starts + ids[cut:]
        return ids[:cut] + second_ids, [0] * cut + [self._second_segment] * len(second_ids)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The token ids of `encode(text)`, and for each the `(start, end)` of its characters in `text`."""
        encoding = self._encode(text)
        start = [] if self.start_id is None else [self.start_id]
        end = [] if self.end_id is None else [self.end_id]
        offsets = [(0, 0)] * len(start) + list(encoding.offsets) + [(0, 0)] * len(end)
        return start + encoding.ids + end, offsets

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """`(start, end)` in `text` of each token of `tokenize(text)`."""
        return self.encode_with_offsets(text)[1]

    def rematch(self, text: str, tokens: Sequence[str]) -> list[list[int]]:
        """For each token the indices of its characters in `text`; empty for one that does not stand in it. `tokens`
        come from `tokenize(text)` or are a part of it.
        """
        whole, offsets, place, mapping = self.tokenize(text), self.offsets(text), 0, []
        for token in tokens:
            found = next((i for i in range(place, len(whole)) if whole[i] == token), None)
            mapping.append([] if found is None else list(range(*offsets[found])))
            place = place if found is None else found + 1
        return mapping

    def token_to_id(self, token: str) -> int:
        token_id = self.token_dict.get(token, self.unk_id)
        if token_id is None:
            raise TokenizerError(f"no token {token!r} in this vocabulary, which has no unknown token")
        return token_id

    def decode(self, ids: Sequence[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Text of ids (or of `tokens`), without special tokens unless `skip_special_tokens` is False."""
        ids = self.tokens_to_ids(tokens) if tokens is not None else id_list(ids)
        for token_id in ids:
            self.id_to_token(token_id)
        with reading("this tokenizer"):
            return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)


def read_backend(content: dict, where: str) -> tokenizers.Tokenizer:
    """The `tokenizers.Tokenizer` that a tokenizer.json describes, without its own truncation and padding.

    Raises: TokenizerError where it is damaged, or has an added token that the normalizer takes away whole, which
        `tokenizers` would find everywhere, without end.
    """
    with reading(where):
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        backend.no_truncation()
        backend.no_padding()
        for token in backend.get_added_tokens_decoder().values():
            if token.normalized and backend.normalizer and not backend.normalizer.normalize_str(token.content):
                raise TokenizerError(f"nothing is left of the added token {token.content!r} when it is normalised")
        backend.encode("a, b", add_special_tokens=True)  # what panics does so now
        return backend


def around(backend: tokenizers.Tokenizer) -> tuple[list[str], list[str], list[str] | None, int]:
    """What a tokenizer.json's post_processor puts before a text, after it, before the second of a pair (after what ends
    the first), and the segment of that text. None of the third for pairs that are not two texts with these around.
    """
    one, pair = backend.encode("a", add_special_tokens=True), backend.encode("a", "b", add_special_tokens=True)
    first, second = ([i for i, n in enumerate(c.sequence_ids) if n == number] for number, c in enumerate((one, pair)))
    if not first or not second:
        return [], [], [], 1
    alone, tokens = ([backend.id_to_token(token_id) for token_id in c.ids] for c in (one, pair))
    before, after, segment = alone[: first[0]], alone[first[-1] + 1 :], pair.type_ids[second[0]]
    start = tokens[len(alone) : second[0]]
    joined = [*alone, *start, *tokens[second[0] : second[-1] + 1], *after]
    segments = [0] * len(alone) + [segment] * (len(joined) - len(alone))
    return before, after, start if (tokens, pair.type_ids) == (joined, segments) else None, segment


def from_tokenizer_json(backend: tokenizers.Tokenizer, settings: TokenizerSettings, where: str) -> BackendTokenizer:
    """A tokenizer.json as it stands, with the names of special tokens that the files beside it give.

    Raises: TokenizerError for one that puts several tokens before or after a text.
    """
    before, after, second_start, second_segment = around(backend)
    if len(before) > 1 or len(after) > 1:
        raise TokenizerError(f"{where} puts {before} before a text and {after} after it; expected one token at most")
    if None in (*before, *after, *(second_start or ())):
        raise TokenizerError(f"{where} puts a token around texts that is not in its vocabulary")
    known = backend.get_vocab(with_added_tokens=True)
    usual = {"pad": ("<pad>", "[PAD]"), "unk": ("<unk>", "[UNK]"), "mask": ("<mask>", "[MASK]")}
    first = {name: next((token for token in tokens if token in known), None) for name, tokens in usual.items()}
    names = {name: settings.name(KEYS[name], first[name]) for name in first}
    start, end = (tokens[0] if tokens else None for tokens in (before, after))
    return BackendTokenizer(backend, start, end, names, second_start, second_segment)
