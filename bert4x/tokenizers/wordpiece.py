"""BERT's WordPiece: the ids of Hugging Face's fast tokenizer, with character offsets, at several times its speed.

`tokenizers` decides everything. Speed comes from one observation: Chinese characters, most punctuation and
spaces are words of their own whatever stands beside them, so their ids come from a table, for a whole batch at once;
only what lies between them ("runs": Latin words, numbers, and anything unusual) is given to `tokenizers`, once.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise

import numpy as np
import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from ..errors import TokenizerError
from .base import TokenizerBase, without_surrogates
from .characters import RUN, Folding, char_table, chunks
from .decoding import join_wordpieces
from .ids import as_id
from .offsets import Offsets
from .saving import save_wordpiece
from .scripts import ScriptNames
from .vocab import load_vocab

NOT_SAID = -1  # the id of a start or end token while it is not known what is unknown
UNWRITTEN = "\0"  # a token that no text has, as this character is removed
_CHUNK = 1 << 20  # characters tokenized at once, and characters of runs remembered


class Tokenizer(Offsets, ScriptNames, TokenizerBase):
    """BERT's tokenizer, with bert4keras' interface and the ids of Hugging Face's BertTokenizerFast.

    `token_dict` is a dict from token to id or the path of a vocab.txt. With `do_lower_case`, text is lower-cased and
    its accents are stripped (unless `strip_accents` says otherwise). Special tokens written in a text ("[MASK]", and
    `special_tokens`, as they stand) are recognised. A word longer than `word_maxlen` characters is unknown: 100 as in
    Hugging Face's tokenizers (200 in Google's and bert4keras'). `pre_tokenize` splits a (normalised) text into words;
    one that is in the vocabulary is one token, whatever its length, as word-based models need. Lone surrogates count
    as U+FFFD.

    `added_tokens` maps ids to `tokenizers.AddedToken`s, which are found in a text before it is cut into words, by
    their `normalized`, `lstrip`, `rstrip` and `single_word`; the id that `token_dict` gives to one of them comes first.

    Source: Devlin et al. 2018 (arXiv 1810.04805); greedy longest match: Wu et al. 2016 (arXiv 1609.08144).
    Raises TokenizerError for a vocabulary without its unknown, start or end token; but a dict may lack them, as in
    scripts for bert4keras, which then say what is unknown before they encode: `tokenizer._token_unk_id = 0`.
    """

    kind = "WordPiece"

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
        added_tokens: Mapping[int, AddedToken] | None = None,
        token_pad: str = "[PAD]",
        token_unk: str = "[UNK]",
        token_mask: str = "[MASK]",
    ):
        super().__init__(token_start, token_end, pre_tokenize, token_translate)
        self.vocab = dict(token_dict) if isinstance(token_dict, dict) else load_vocab(token_dict)
        self.do_lower_case, self.strip_accents = do_lower_case, strip_accents
        self.tokenize_chinese_chars = tokenize_chinese_chars
        added_tokens = dict(added_tokens or {})
        added = {one.content: token_id for token_id, one in added_tokens.items()}
        self.token_dict = self.vocab | {token: added[token] for token in added if token not in self.vocab}
        for token, token_id in self.token_dict.items():
            if not isinstance(token, str) or not isinstance(token_id, int) or not 0 <= token_id < 2**31:
                raise TokenizerError(f"token_dict maps tokens to ids from 0 on; found {token!r}: {token_id!r}")
        self._tokens_by_id = {token_id: token for token, token_id in self.vocab.items()}
        if len(self._tokens_by_id) < len(self.vocab):
            raise TokenizerError("two tokens of token_dict share an id; every token needs its own")
        self._tokens_by_id |= {token_id: one.content for token_id, one in added_tokens.items()}
        self.names = {"pad": token_pad, "unk": token_unk, "mask": token_mask, "start": token_start, "end": token_end}
        if not isinstance(token_dict, dict) or not token_dict:
            self.check_unknown()
        self.vocab_size = max(self._tokens_by_id) + 1
        self.word_maxlen = word_maxlen
        ids = {name: self.token_dict.get(token) for name, token in self.names.items()}
        if ids["unk"] is None:  # what a script makes of a few tokens; it says what is unknown before it encodes
            ids |= {name: NOT_SAID for name in ("start", "end") if self.names[name] and ids[name] is None}
        self._set_specials(ids)
        named = (*self.names.values(), token_start or "[CLS]", token_end or "[SEP]", *special_tokens)
        self._specials = {token: AddedToken(token, special=True) for token in named if token in self.token_dict}
        self._given_tokens = added_tokens
        if self.unk_id is not None:
            self._prepare()

    def check_unknown(self) -> None:
        """Raises: TokenizerError for a vocabulary without its unknown token."""
        if self.names["unk"] not in self.token_dict:
            raise TokenizerError(
                f"the vocabulary of {len(self.token_dict)} tokens lacks {self.names['unk']}, for words it cannot spell"
            )

    @property
    def _token_unk_id(self) -> int | None:
        return self.unk_id

    @_token_unk_id.setter
    def _token_unk_id(self, value: int) -> None:
        """Makes this the id of what is unknown: of words, and of start and end tokens that the vocabulary lacks."""
        self.unk_id = as_id(value)
        self.start_id, self.end_id = (
            None if token is None else self.token_dict.get(token, self.unk_id)
            for token in (self._token_start, self._token_end)
        )
        self._prepare()

    def _prepare(self) -> None:
        """Makes what tokenizes, for the unknown id that there is."""
        unknown = self.names["unk"] if self.token_dict.get(self.names["unk"]) == self.unk_id else UNWRITTEN
        self._backend = tokenizers.Tokenizer(
            models.WordPiece(
                self.vocab | {unknown: self.unk_id}, unk_token=unknown, max_input_chars_per_word=self.word_maxlen
            )
        )
        self._backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.tokenize_chinese_chars,
            strip_accents=self.strip_accents,
            lowercase=self.do_lower_case,
        )
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._add(self._specials, self._given_tokens)
        self._table = char_table(self.vocab, self.unk_id, self.tokenize_chinese_chars)
        self._runs: dict[str, list[int]] = {}
        self._runs_length = 0
        self._normalized_chars: dict[str, str] = {}

    def __getattr__(self, name: str):
        if name in ("_backend", "_context_sensitive"):  # what `_prepare` makes, and is asked for first
            raise self._nothing_unknown()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _nothing_unknown(self) -> TokenizerError:
        return TokenizerError(
            f"the vocabulary lacks {self.names['unk']}; say which id unknown words have: tokenizer._token_unk_id = 0"
        )

    def _add(self, specials: dict[str, AddedToken], added_tokens: dict[int, AddedToken]) -> None:
        """Gives special and added tokens to `tokenizers`, and sorts them by how they are found."""
        self.added_tokens = specials | {one.content: one for one in added_tokens.values()}
        by_id = sorted(self.added_tokens.values(), key=lambda one: self.token_dict[one.content])
        normalize = self._backend.normalizer.normalize_str
        found_as = {normalize(one.content): one for one in reversed(by_id) if one.normalized}
        found_as.pop("", None)  # one of which nothing is left would be found everywhere, without end
        # of those that are equal when normalised `tokenizers` takes any one; here it is the first
        found = {one.content for one in found_as.values()}
        self._backend.add_tokens([one for one in by_id if not one.normalized or one.content in found])
        self._special_contents = {one.content for one in by_id if one.special}
        self._ids_of_backend = {
            self._backend.token_to_id(one.content): self.token_dict[one.content]
            for one in by_id
            if self._backend.token_to_id(one.content) not in (None, self.token_dict[one.content])
        }
        verbatim = [one for one in by_id if not one.normalized]
        self._verbatim = {one.content for one in verbatim}
        plain = [one.content for one in verbatim if not (one.lstrip or one.rstrip or one.single_word)]
        self._plain = sorted((content for content in plain if "\n" not in content), key=len, reverse=True)
        self._plain_pattern = re.compile("|".join(map(re.escape, self._plain)) or "(?!)")
        self._context_sensitive = self._verbatim - set(self._plain)
        self._folded = [one.content for one in found_as.values()]
        self._folding: Folding | None = None

    def token_to_id(self, token: str) -> int:
        if self.unk_id is None:
            raise self._nothing_unknown()
        return self.token_dict.get(token, self.unk_id)

    def decode(self, ids: Sequence[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Readable text of ids (or of `tokens`): no spaces around Chinese, `##` merged. Special tokens and those in
        square brackets ([unused1]) are left out, unless `skip_special_tokens` is False; added tokens that are not
        special stay.
        """
        tokens = self.ids_to_tokens(ids) if tokens is None else tokens
        tokens = [self._token_translate_inv.get(token, token) for token in tokens]
        return join_wordpieces([t for t in tokens if not (skip_special_tokens and self.is_special(t))])

    def is_special(self, token: str) -> bool:
        """Whether a token is no part of the text: a special token, or one in square brackets that was not added."""
        if token in self.added_tokens:
            return token in self._special_contents
        return len(token) > 1 and token[0] == "[" and token[-1] == "]"

    def save(self, folder: str | os.PathLike) -> None:
        save_wordpiece(self, folder)

    # ids of a batch

    def _text_ids(self, texts: list[str]) -> list[list[int]]:
        if self._pre_tokenize or self._token_translate or type(self)._tokenize is not Offsets._tokenize:
            return super()._text_ids(texts)
        return list(chain.from_iterable(self._chunk_ids(chunk) for chunk in chunks(texts, _CHUNK)))

    def _chunk_ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of some texts: by the table, and those that may hold an added token whose neighbours matter, whole."""
        whole = [self._needs_backend(text) for text in texts] if self._needs_backend("\n".join(texts)) else ()
        if not any(whole):
            return self._table_ids(texts)
        rest = iter(self._table_ids([text for text, is_whole in zip(texts, whole, strict=True) if not is_whole]))
        return [
            self._backend_ids(text) if is_whole else next(rest) for text, is_whole in zip(texts, whole, strict=True)
        ]

    def _needs_backend(self, text: str) -> bool:
        if any(content in text for content in self._context_sensitive):
            return True
        if self._folded and self._folding is None:
            self._folding = Folding(self._backend.normalizer, self._folded)
        return self._folding is not None and self._folding.may_hold(text)

    def _backend_ids(self, text: str) -> list[int]:
        return self._own_ids(self._backend.encode(without_surrogates(text), add_special_tokens=False).ids)

    def _own_ids(self, ids: list[int]) -> list[int]:
        """The ids that the files give to added tokens; `tokenizers` counts on from the vocabulary."""
        other = self._ids_of_backend
        return [other.get(token_id, token_id) for token_id in ids] if other else ids

    def _table_ids(self, texts: list[str]) -> list[list[int]]:
        joined = "\n".join(("", *texts, ""))
        try:
            encoded = joined.encode("utf-32-le")
        except UnicodeEncodeError:
            joined = without_surrogates(joined)
            encoded = joined.encode("utf-32-le")
        values = self._table.take(np.frombuffer(encoded, "<u4"), mode="clip")  # all above U+FFFF is RUN, like it

        cut = np.zeros(len(values), bool)  # between a character and the one before
        if any(token in joined for token in self._plain):
            for match in self._plain_pattern.finditer(joined):
                values[match.start() : match.end()] = RUN
                cut[[match.start(), match.end()]] = True
        is_run = values == RUN
        continues = np.zeros(len(values), bool)
        continues[1:] = is_run[1:] & is_run[:-1] & ~cut[1:]
        begins = np.flatnonzero(is_run & ~continues)
        ends = np.flatnonzero(is_run[:-1] & ~continues[1:]) + 1
        runs = self._run_ids([joined[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)])

        counts = (values >= 0).astype(np.int64)
        counts[begins] = [len(ids) for ids in runs]
        flat = np.repeat(values, counts)
        flat[flat == RUN] = list(chain.from_iterable(runs))
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
            known.update((run, self._own_ids(encoding.ids)) for run, encoding in zip(missing, encodings, strict=True))
            self._runs_length += sum(map(len, missing))
        return [known[run] for run in runs]
