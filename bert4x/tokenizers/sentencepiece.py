"""SentencePiece models: any (mT5, ALBERT), and CPM-LM's, which go through jieba."""

import importlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import tokenizers
from tokenizers import AddedToken, models

from ..errors import TokenizerError
from .base import TokenizerBase, without_surrogates, write_tokenizer_config
from .chat import write_chat
from .settings import described
from .vocab import read_bounded

BETWEEN = "\0"  # the name of what lies between added tokens
_SPACE, _NEWLINE = "\u2582", "\u2583"  # what CPM-LM writes for a space and a line break


class MissingPackageError(TokenizerError, ImportError):
    """A tokenizer needs a package that is not installed."""


def _require(module: str) -> ModuleType:
    try:
        with warnings.catch_warnings():  # jieba's import warns about its own use of pkg_resources
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(f"this tokenizer needs {module}: pip install jieba sentencepiece") from error


class SpTokenizer(TokenizerBase):
    """A SentencePiece model with bert4keras' interface.

    Raises TokenizerError when the file is no SentencePiece model, lacks the start or end token, or
    `sentencepiece` is not installed. Source: Kudo and Richardson 2018 (arXiv 1808.06226).
    """

    kind = "SentencePiece"
    switches: dict[str, bool] = {}  # noqa: RUF012  what tokenizer_config.json says of <s> and </s>, of a Llama's

    def __init__(
        self,
        sp_model_path: str | os.PathLike,
        token_start: str | None = "<s>",
        token_end: str | None = "</s>",
        pre_tokenize: Callable[[str], Iterable[str]] | None = None,
        token_translate: dict[str, str] | None = None,
        *,
        added_tokens: Mapping[int, AddedToken] | None = None,
    ):
        super().__init__(token_start, token_end, pre_tokenize, token_translate)
        processor = _require("sentencepiece").SentencePieceProcessor
        model = read_bounded(sp_model_path)
        try:
            self.sp_model = processor(model_proto=model) if model else None
        except RuntimeError as error:
            raise TokenizerError(f"{sp_model_path} is not a SentencePiece model, or is damaged: {error}") from error
        if self.sp_model is None:
            raise TokenizerError(f"{sp_model_path} is empty; expected a SentencePiece model")
        size = self.sp_model.get_piece_size()
        pieces = {self.sp_model.id_to_piece(i): i for i in range(size)}
        self.added_tokens = {one.content: one for one in (added_tokens or {}).values()}
        self._added_contents = {number: one.content for number, one in (added_tokens or {}).items()}
        self._splitter = splitter(self.added_tokens.values())
        self.vocab_size = max([size - 1, *self._added_contents]) + 1
        self.token_dict = {content: number for number, content in self._added_contents.items()} | pieces
        self._token_dict = self.token_dict
        pad, unk = self.sp_model.pad_id(), self.sp_model.unk_id()
        ids = {"pad": pad if pad >= 0 else self._first_of("<pad>", "[PAD]"), "unk": unk}
        ids |= {"mask": self._first_of("<mask>", "[MASK]")}
        ids |= {"start": self.token_dict.get(token_start), "end": self.token_dict.get(token_end)}
        self._set_specials(ids)

    def _first_of(self, *tokens: str) -> int | None:
        return next((self.token_dict[token] for token in tokens if token in self.token_dict), None)

    def _tokenize(self, text: str) -> list[str]:
        text = without_surrogates(text)
        if self._splitter is None:
            return self._pieces(text)
        encoding = self._splitter.encode(text, add_special_tokens=False)
        parts = zip(encoding.ids, encoding.offsets, strict=True)
        split = ([self._content(i)] if i else self._pieces(text[begin:end]) for i, (begin, end) in parts)
        return [token for tokens in split for token in tokens]

    def _content(self, splitter_id: int) -> str:
        return self._splitter.id_to_token(splitter_id)

    def _pieces(self, text: str) -> list[str]:
        if self._pre_tokenize is not None:
            text = " ".join(self._pre_tokenize(text))
        return self.sp_model.encode(text, out_type=str)

    def save(self, folder: str | os.PathLike) -> None:
        (Path(folder) / "spiece.model").write_bytes(self.sp_model.serialized_model_proto())
        said = write_chat(self, folder) if self.chat_templates or self.stop_ids or self.generation else {}
        said = said | self.switches
        if self.added_tokens:
            added = {str(number): described(self.added_tokens[c]) for number, c in self._added_contents.items()}
            said = said | {"added_tokens_decoder": added}
        if said:
            write_tokenizer_config(folder, **said)

    def token_to_id(self, token: str) -> int:
        return self.token_dict.get(token, self.unk_id)

    def id_to_token(self, token_id: int) -> str:
        if token_id in self._added_contents:
            return self._added_contents[token_id]
        if not 0 <= token_id < self.sp_model.get_piece_size():
            raise TokenizerError(f"no token has id {token_id}; ids go from 0 to {self.vocab_size - 1}")
        return self.sp_model.id_to_piece(int(token_id))

    def decode(self, ids: Sequence[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Text of ids (or of `tokens`); without control and unknown tokens unless `skip_special_tokens` is False."""
        tokens = self.ids_to_tokens(ids) if tokens is None else tokens
        tokens = [self._token_translate_inv.get(token, token) for token in tokens]
        pieces, text = [], ""
        for token in tokens:
            if token in self.added_tokens and not (skip_special_tokens and self._is_special(token)):
                text, pieces = text + self.sp_model.decode_pieces(pieces) + token, []
            elif not (skip_special_tokens and self._is_special(token)):
                pieces.append(token)
        return text + self.sp_model.decode_pieces(pieces)

    def _is_special(self, token: str) -> bool:
        token_id = self.token_dict.get(token)
        if token in self.added_tokens:
            return self.added_tokens[token].special
        if token_id is None:
            return False
        model = self.sp_model
        return model.is_control(token_id) or model.is_unknown(token_id) or model.is_unused(token_id)


def splitter(added: Iterable[AddedToken]) -> tokenizers.Tokenizer | None:
    """Cuts a text at added tokens by their flags: every stretch between them is the token of id 0."""
    added = list(added)
    if not added:
        return None
    backend = tokenizers.Tokenizer(models.WordLevel({BETWEEN: 0}, unk_token=BETWEEN))
    backend.add_tokens(added)
    return backend


class CpmTokenizer(SpTokenizer):
    """CPM-LM's tokenizer: words by jieba, a space as U+2582, a line break as U+2583, then SentencePiece.

    Two models were published. The later one has the piece U+2583 with id 3; in the earlier one id 3 is `<cls>`,
    which then stands for the line break. They are told apart by content and give equal ids. There is no start or
    end token; id 0 is unknown, 5 (`pad_id`) padding, 7 (`eod_id`) the end of a document.

    Source: TsinghuaAI CPM-1-Generate; https://kexue.fm/archives/7912. Raises TokenizerError as `SpTokenizer`,
    and when jieba is not installed.
    """

    kind = "words by jieba, then SentencePiece"

    def __init__(self, sp_model_path: str | os.PathLike, token_start: str | None = None, token_end: str | None = None):
        super().__init__(sp_model_path, token_start, token_end, pre_tokenize=self._words)
        if not is_cpm(self):
            raise TokenizerError(f"{sp_model_path} lacks the pieces of CPM-LM ({_SPACE!r}, '<eod>'); use SpTokenizer")
        self.eod_id = self.token_dict["<eod>"]
        if _NEWLINE not in self.token_dict:
            self._token_translate = {_NEWLINE: "<cls>"}
            self._token_translate_inv = {"<cls>": _NEWLINE}
        _require("jieba").setLogLevel("ERROR")  # it would report on stderr that it reads its dictionary

    def save(self, folder: str | os.PathLike) -> None:
        super().save(folder)
        write_tokenizer_config(folder, tokenizer_class="CpmTokenizer")

    @staticmethod
    def _words(text: str) -> list[str]:
        table = {ord(" "): _SPACE, ord("\n"): _NEWLINE}
        return [word.translate(table) for word in _require("jieba").cut(text, cut_all=False)]

    def decode(self, ids: Sequence[int], tokens: Sequence[str] | None = None, skip_special_tokens: bool = True) -> str:
        """Text of ids (or of `tokens`), spaces and line breaks restored; without control and unknown tokens unless
        `skip_special_tokens` is False.
        """
        text = super().decode(ids, tokens, skip_special_tokens).replace(" ", "")
        return text.replace(_SPACE, " ").replace(_NEWLINE, "\n")

    def _is_special(self, token: str) -> bool:
        return token == "<eod>" or super()._is_special(token)


def is_cpm(tokenizer: SpTokenizer) -> bool:
    """Whether the model is one of the two that CPM-LM was published with, by its pieces."""
    return {_SPACE, "<eod>", "<pad>"} <= tokenizer.token_dict.keys()
