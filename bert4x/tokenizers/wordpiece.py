"""BERT's WordPiece: the ids of Hugging Face's fast tokenizer, with character offsets, at several times its speed.

`tokenizers` decides everything. Speed comes from one observation: Chinese characters, most punctuation and
spaces are words of their own whatever stands beside them, so their ids come from a table, for a whole batch at once;
only what lies between them ("runs": Latin words, numbers, and anything unusual) is given to `tokenizers`, once.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from ..errors import TokenizerError
from .base import TokenizerBase, without_surrogates, write_tokenizer_config
from .decoding import join_wordpieces
from .vocab import load_vocab, save_vocab

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_SPACE, _RUN = -1, -2
_CHUNK = 1 << 20  # characters tokenized at once, and characters of runs remembered
_PUNCTUATION_BLOCKS = ((0x21, 0x7E), (0xA1, 0xBF), (0x2010, 0x205E), (0x3001, 0x301F), (0xFF01, 0xFF65))
_CJK_BLOCKS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF))


def _is_lone_punctuation(char: str) -> bool:
    is_letter_or_digit = char.isascii() and char.isalnum()
    is_punctuation = char.isascii() or unicodedata.category(char).startswith("P")
    return is_punctuation and not is_letter_or_digit and unicodedata.normalize("NFD", char) == char


def _char_table(vocab: dict[str, int], unk_id: int, split_cjk: bool) -> np.ndarray:
    """For each character up to U+FFFF: its id if it is always a word of its own, or _SPACE or _RUN."""
    table = np.full(0x10000, _RUN, np.int32)
    for first, last in _PUNCTUATION_BLOCKS:
        table[[code for code in range(first, last + 1) if _is_lone_punctuation(chr(code))]] = unk_id
    for first, last in _CJK_BLOCKS if split_cjk else ():
        table[first : last + 1] = unk_id
    for token, token_id in vocab.items():
        if len(token) == 1 and ord(token) < len(table) and table[ord(token)] != _RUN:
            table[ord(token)] = token_id
    table[[ord(char) for char in " \t\n\r\u3000"]] = _SPACE
    return table


class Tokenizer(TokenizerBase):
    """BERT's tokenizer, with bert4keras' interface and the ids of Hugging Face's BertTokenizerFast.

    `token_dict` is a dict from token to id or the path of a vocab.txt. With `do_lower_case`, text is lower-cased and
    its accents are stripped (unless `strip_accents` says otherwise). Special tokens written in a text ("[MASK]", and
    `special_tokens`, as they stand) are recognised. A word longer than `word_maxlen` characters is unknown: 100 as in
    Hugging Face's tokenizers (200 in Google's and bert4keras'). `pre_tokenize` splits a (normalised) text into words;
    one that is in the vocabulary is one token, whatever its length, as word-based models need. Lone surrogates count
    as U+FFFD.

    Source: Devlin et al. 2018 (arXiv 1810.04805); greedy longest match: Wu et al. 2016 (arXiv 1609.08144).
    Raises TokenizerError for a vocabulary without "[UNK]" or without the start or end token.
    """

    def __init__(
        self,
        token_dict: dict[str, int] | str | os.PathLike,
        do_lower_case: bool = False,
        word_maxlen: int = 100,
        token_start: str | None = "[CLS]",
        token_end: str | None = "[SEP]",
        pre_tokenize: Callable[[str], Iterable[str]] | None = None,
        token_translate: dict[str, str] | None = None,
        *,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        special_tokens: Iterable[str] = (),
    ):
        super().__init__(token_start, token_end, pre_tokenize, token_translate)
        self.token_dict = dict(token_dict) if isinstance(token_dict, dict) else load_vocab(token_dict)
        self.do_lower_case = do_lower_case
        self._token_dict = self.token_dict  # the name bert4keras' scripts reach for
        for token, token_id in self.token_dict.items():
            if not isinstance(token, str) or not isinstance(token_id, int) or not 0 <= token_id < 2**31:
                raise TokenizerError(f"token_dict maps tokens to ids from 0 on; found {token!r}: {token_id!r}")
        self._tokens_by_id = {token_id: token for token, token_id in self.token_dict.items()}
        if len(self._tokens_by_id) < len(self.token_dict):
            raise TokenizerError("two tokens of token_dict share an id; every token needs its own")
        if "[UNK]" not in self.token_dict:
            raise TokenizerError(
                f"the vocabulary of {len(self.token_dict)} tokens lacks [UNK], for words it cannot spell"
            )
        self.vocab_size = max(self._tokens_by_id) + 1
        names = {"pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]", "start": token_start, "end": token_end}
        self._set_specials({name: self.token_dict.get(token) for name, token in names.items()})

        candidates = dict.fromkeys((*SPECIALS, token_start, token_end, *special_tokens))
        self._specials = [token for token in candidates if token and token in self.token_dict]
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._backend = tokenizers.Tokenizer(
            models.WordPiece(self.token_dict, unk_token="[UNK]", max_input_chars_per_word=word_maxlen)
        )
        self._backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=tokenize_chinese_chars,
            strip_accents=strip_accents,
            lowercase=do_lower_case,
        )
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._backend.add_special_tokens(self._specials)
        self._table = _char_table(self.token_dict, self.unk_id, tokenize_chinese_chars)
        self._runs: dict[str, list[int]] = {}
        self._runs_length = 0
        self._normalized_chars: dict[str, str] = {}

    def token_to_id(self, token: str) -> int:
        return self.token_dict.get(token, self.unk_id)

    def id_to_token(self, token_id: int) -> str:
        if token_id not in self._tokens_by_id:
            raise TokenizerError(f"no token has id {token_id}; ids go from 0 to {self.vocab_size - 1}")
        return self._tokens_by_id[token_id]

    def decode(self, ids: Sequence[int], tokens: Sequence[str] | None = None) -> str:
        """Readable text of ids (or of `tokens`): no spaces around Chinese, `##` merged, bracketed tokens left out."""
        tokens = self.ids_to_tokens(ids) if tokens is None else tokens
        return join_wordpieces([self._token_translate_inv.get(token, token) for token in tokens])

    def save(self, folder: str | os.PathLike) -> None:
        save_vocab(Path(folder) / "vocab.txt", self.token_dict)
        write_tokenizer_config(folder, tokenizer_class="BertTokenizer", do_lower_case=self.do_lower_case)

    # ids of a batch

    def _text_ids(self, texts: list[str]) -> list[list[int]]:
        if self._pre_tokenize or self._token_translate:
            return super()._text_ids(texts)
        return list(chain.from_iterable(self._chunk_ids(chunk) for chunk in _chunks(texts)))

    def _chunk_ids(self, texts: list[str]) -> list[list[int]]:
        joined = "\n".join(("", *texts, ""))
        try:
            encoded = joined.encode("utf-32-le")
        except UnicodeEncodeError:
            joined = without_surrogates(joined)
            encoded = joined.encode("utf-32-le")
        values = self._table.take(np.frombuffer(encoded, "<u4"), mode="clip")  # all above U+FFFF is _RUN, like it

        cut = np.zeros(len(values), bool)  # between a character and the one before
        if any(token in joined for token in self._specials):
            for match in self._special_pattern.finditer(joined):
                values[match.start() : match.end()] = _RUN
                cut[[match.start(), match.end()]] = True
        is_run = values == _RUN
        continues = np.zeros(len(values), bool)
        continues[1:] = is_run[1:] & is_run[:-1] & ~cut[1:]
        begins = np.flatnonzero(is_run & ~continues)
        ends = np.flatnonzero(is_run[:-1] & ~continues[1:]) + 1
        runs = self._run_ids([joined[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)])

        counts = (values >= 0).astype(np.int64)
        counts[begins] = [len(ids) for ids in runs]
        flat = np.repeat(values, counts)
        flat[flat == _RUN] = list(chain.from_iterable(runs))
        stops = np.cumsum([0, *(len(text) + 1 for text in texts)])
        bounds = np.concatenate([[0], np.cumsum(counts)])[stops].tolist()
        ids = flat.tolist()
        return [ids[begin:end] for begin, end in pairwise(bounds)]

    def _run_ids(self, runs: list[str]) -> list[list[int]]:
        """Ids of strings without table characters, by `tokenizers`; each distinct string is asked about once."""
        known = self._runs
        if self._runs_length > _CHUNK:
            known, self._runs_length = {}, 0
            self._runs = known
        missing = [run for run in dict.fromkeys(runs) if run not in known]
        if missing:
            encodings = self._backend.encode_batch_fast(missing, add_special_tokens=False)
            known.update((run, encoding.ids) for run, encoding in zip(missing, encodings, strict=True))
            self._runs_length += sum(map(len, missing))
        return [known[run] for run in runs]

    # tokens and offsets of one text

    def _tokenize(self, text: str) -> list[str]:
        return [token for token, _, _ in self._pieces(text)]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """`(start, end)` in `text` of each token of `tokenize(text)`; (0, 0) for the added start and end tokens."""
        return self.encode_with_offsets(text)[1]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The token ids of `encode(text)`, and for each where it stands: `text[start:end]`."""
        pieces = self._pieces(text)
        start = [] if self.start_id is None else [self.start_id]
        end = [] if self.end_id is None else [self.end_id]
        ids = self.tokens_to_ids(self._token_translate.get(token, token) for token, _, _ in pieces)
        offsets = [(begin, stop) for _, begin, stop in pieces]
        return start + ids + end, [(0, 0)] * len(start) + offsets + [(0, 0)] * len(end)

    def _pieces(self, text: str) -> list[tuple[str, int, int]]:
        """Tokens with their offsets; an unknown word is given as the word itself, normalised."""
        text = without_surrogates(text)
        if self._pre_tokenize is None:
            return list(self._backend_pieces(text))
        normalized, origins = self._normalize(text)
        pieces, position = [], 0
        for word in self._pre_tokenize(normalized):
            position = max(position, normalized.find(word, position))
            here = origins[position : position + len(word)]
            if word in self.token_dict:
                pieces.append((word, here[0], here[-1] + 1))
            else:
                pieces += [(token, here[a], here[b - 1] + 1) for token, a, b in self._backend_pieces(word)]
            position += len(word)
        return pieces

    def _backend_pieces(self, text: str) -> Iterator[tuple[str, int, int]]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        for token_id, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            token, source = self._tokens_by_id[token_id], text[begin:end]
            if token_id == self.unk_id and source != token:
                token = self._normalize(source)[0] or token  # empty where NFD reordered marks across the offsets
            yield token, begin, end

    def _normalize(self, text: str) -> tuple[str, list[int]]:
        """The text as WordPiece sees it (special tokens untouched), and for each character its index in `text`."""
        chars, origins, begin = [], [], 0
        for match in chain(self._special_pattern.finditer(text), [None]):
            end = len(text) if match is None else match.start()
            for index in range(begin, end):
                normalized = self._normalize_char(text[index])
                chars.append(normalized)
                origins += [index] * len(normalized)
            if match is not None:
                chars.append(match.group())
                origins += range(match.start(), match.end())
                begin = match.end()
        return "".join(chars), origins

    def _normalize_char(self, char: str) -> str:
        known = self._normalized_chars.get(char)
        if known is None:
            padded = self._backend.normalizer.normalize_str(without_surrogates(char))
            known = self._normalized_chars[char] = padded.strip(" ") or padded[:1]
        return known

    def rematch(self, text: str, tokens: Sequence[str]) -> list[list[int]]:
        """For each token the indices of its characters in `text`; empty for a token that does not stand in it.

        `tokens` come from `tokenize(text)` or are a part of it. The first and last count as added when they
        are the start and end tokens. Several pieces of one character (a Hangul syllable) all have its index.
        """
        normalized, origins = self._normalize(text)
        mapping, position = [], 0
        for number, token in enumerate(tokens):
            token = self._token_translate_inv.get(token, token)
            is_added = (number == 0 and token == self._token_start) or (
                number == len(tokens) - 1 and token == self._token_end
            )
            while position < len(normalized) and normalized[position] == " ":
                position += 1
            if token in self._specials:
                found = position if not is_added and normalized.startswith(token, position) else -1
            else:
                token = token[2:] if token.startswith("##") and token in self.token_dict else token
                found = normalized.find(token, position)
            if found < 0:
                mapping.append([])
                continue
            position = found + len(token)
            mapping.append(sorted(set(origins[found:position])))
        return mapping


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    """The texts in order, in lists of about `_CHUNK` characters."""
    chunk, length = [], 0
    for text in texts:
        chunk.append(text)
        length += len(text) + 1
        if length >= _CHUNK:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk
