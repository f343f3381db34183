"""GPT2's byte-level BPE (vocab.json + merges.txt, or OpenAI's encoder.json + vocab.bpe)."""

import os
from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ..errors import TokenizerError
from ..json_files import check_kinds, parse_json
from .base import TokenizerBase, without_surrogates
from .reading import reading
from .vocab import read_bounded


def _read_vocab(path: str | os.PathLike) -> dict[str, int]:
    with reading(path):
        vocab = parse_json(read_bounded(path), str(path))
        check_kinds(vocab, dict.fromkeys(vocab, (int,)), str(path))
        if not all(isinstance(token_id, int) for token_id in vocab.values()):
            raise TokenizerError("a token has null for its id")
        return vocab


def _read_merges(path: str | os.PathLike) -> list[tuple[str, str]]:
    with reading(path):
        lines = read_bounded(path).decode("utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
        for merge in merges:
            if len(merge) != 2:
                raise TokenizerError(f"expected two pieces on a line, found {' '.join(merge)[:80]!r}")
        return merges


class BpeTokenizer(TokenizerBase):
    """GPT2's tokenizer with bert4keras' interface: no start or end token, no unknown token, id 0 is a real token.

    `vocab` is the path of vocab.json (or encoder.json) or its content, a dict from token to id; `merges` the path of
    merges.txt (or vocab.bpe) or a list of pairs.
    "<|endoftext|>" in a text is recognised when the vocabulary has it. Source: Radford et al. 2019.
    Raises TokenizerError when the files cannot be read or contradict each other.
    """

    def __init__(
        self,
        vocab: dict[str, int] | str | os.PathLike,
        merges: list[tuple[str, str]] | str | os.PathLike,
        token_start: str | None = None,
        token_end: str | None = None,
    ):
        super().__init__(token_start, token_end)
        where = "this vocabulary with its merges" if isinstance(vocab, dict) else f"{vocab} with {merges}"
        vocab = vocab if isinstance(vocab, dict) else _read_vocab(vocab)
        merges = merges if isinstance(merges, list) else _read_merges(merges)
        with reading(where):
            self.token_dict = {str(token): int(token_id) for token, token_id in vocab.items()}
            self._backend = tokenizers.Tokenizer(models.BPE(self.token_dict, merges))
            if not self.token_dict:
                raise TokenizerError("there are no tokens")
        self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._backend.decoder = decoders.ByteLevel()
        specials = [t for t in ("<|endoftext|>", token_start, token_end) if t in self.token_dict]
        self._backend.add_special_tokens(specials)
        self._special_ids = {self.token_dict[token] for token in specials}
        self._token_dict = self.token_dict
        self._tokens_by_id = {token_id: token for token, token_id in self.token_dict.items()}
        self.vocab_size = max(self._tokens_by_id, default=-1) + 1
        self.eos_id = self.token_dict.get("<|endoftext|>")
        ids = {"pad": None, "unk": None, "mask": None}
        ids |= {"start": self.token_dict.get(token_start), "end": self.token_dict.get(token_end)}
        self._set_specials(ids)

    def save(self, folder: str | os.PathLike) -> None:
        self._backend.model.save(str(folder))

    def _encode(self, text: str) -> tokenizers.Encoding:
        return self._backend.encode(without_surrogates(text), add_special_tokens=False)

    def _tokenize(self, text: str) -> list[str]:
        return self._encode(text).tokens

    def _text_ids(self, texts: list[str]) -> list[list[int]]:
        texts = [without_surrogates(text) for text in texts]
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

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

    def token_to_id(self, token: str) -> int:
        if token not in self.token_dict:
            raise TokenizerError(f"no token {token!r} in this byte-level vocabulary, which has no unknown token")
        return self.token_dict[token]

    def id_to_token(self, token_id: int) -> str:
        if token_id not in self._tokens_by_id:
            raise TokenizerError(f"no token has id {token_id}; ids go from 0 to {self.vocab_size - 1}")
        return self._tokens_by_id[token_id]

    def decode(self, ids: Sequence[int], tokens: Sequence[str] | None = None) -> str:
        """Text of ids (or of `tokens`) without "<|endoftext|>"; incomplete characters become U+FFFD."""
        ids = self.tokens_to_ids(tokens) if tokens is not None else [int(i) for i in ids]
        tokens = [self.id_to_token(i) for i in ids if i not in self._special_ids]
        return self._backend.decoder.decode(tokens)
