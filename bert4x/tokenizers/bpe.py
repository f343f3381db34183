"""GPT2's byte-level BPE (vocab.json + merges.txt, or OpenAI's encoder.json + vocab.bpe)."""

import os
from collections.abc import Mapping

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from ..errors import TokenizerError
from ..json_files import check_kinds, parse_json
from .backend import KEYS, BackendTokenizer
from .reading import reading
from .settings import TokenizerSettings
from .unigram import with_added
from .vocab import read_bounded

ROBERTA = {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>", "start": "<s>", "end": "</s>"}
END_OF_TEXT = "<|endoftext|>"


def read_vocab(path: str | os.PathLike) -> dict[str, int]:
    """Token -> id, of a vocab.json. Raises: TokenizerError."""
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


class BpeTokenizer(BackendTokenizer):
    """GPT2's tokenizer with bert4keras' interface: no start or end token, no unknown token, id 0 is a real token.

    `vocab` is the path of vocab.json (or encoder.json) or its content, a dict from token to id; `merges` the path of
    merges.txt (or vocab.bpe) or a list of pairs. `added_tokens` maps ids to `tokenizers.AddedToken`s.
    "<|endoftext|>" in a text is recognised when the vocabulary has it. With `add_prefix_space` a text begins with a
    space. Source: Radford et al. 2019.
    Raises TokenizerError when the files cannot be read or contradict each other.
    """

    kind = "byte-level BPE"

    def __init__(
        self,
        vocab: dict[str, int] | str | os.PathLike,
        merges: list[tuple[str, str]] | str | os.PathLike,
        token_start: str | None = None,
        token_end: str | None = None,
        added_tokens: Mapping[int, AddedToken] | None = None,
        token_pad: str | None = None,
        *,
        add_prefix_space: bool = False,
    ):
        added = {one.content: one for one in (added_tokens or {}).values()}
        where = "this vocabulary with its merges" if isinstance(vocab, dict) else f"{vocab} with {merges}"
        vocab = vocab if isinstance(vocab, dict) else read_vocab(vocab)
        merges = merges if isinstance(merges, list) else _read_merges(merges)
        with reading(where):
            known = {one.content: number for number, one in (added_tokens or {}).items()}
            known |= {str(token): int(token_id) for token, token_id in vocab.items()}
            backend = tokenizers.Tokenizer(models.BPE(known, merges))
            if not known:
                raise TokenizerError("there are no tokens")
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
        backend.decoder = decoders.ByteLevel()
        specials = [AddedToken(t, special=True) for t in (END_OF_TEXT, token_start, token_end) if t in known]
        backend.add_tokens([*({one.content: one for one in specials} | added).values()])
        super().__init__(backend, token_start, token_end, {"pad": token_pad})
        self.token_dict = self._token_dict = known
        self.eos_id, self.add_prefix_space = known.get(END_OF_TEXT), add_prefix_space

    def save(self, folder: str | os.PathLike) -> None:
        self._backend.model.save(str(folder))
        added = self._backend.get_added_tokens_decoder().keys() - {self.eos_id}
        if self.chat_templates or self.add_prefix_space or added:
            super().save(folder)


def roberta(vocab: str | os.PathLike, merges: str | os.PathLike, settings: TokenizerSettings) -> BackendTokenizer:
    """RoBERTa's tokenizer of a vocab.json and merges.txt: GPT2's, with `<s> a </s></s> b </s>`. `<mask>` takes the
    spaces before it. Source: Liu et al. 2019 (arXiv 1907.11692).

    Raises: TokenizerError
    """
    with reading(f"{vocab} with {merges}"):
        backend = tokenizers.Tokenizer(models.BPE(read_vocab(vocab), _read_merges(merges)))
    prefix = settings.switch("add_prefix_space", False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    names = {name: settings.name(KEYS[name], token) for name, token in ROBERTA.items()}
    mask = [] if "mask_token" in settings.names else [AddedToken(names["mask"], lstrip=True, special=True)]
    tokenizer = with_added(backend, names, settings, mask, second_start=[names["end"]], second_segment=0)
    ends = ((names[name], tokenizer.token_to_id(names[name])) for name in ("end", "start"))
    backend.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=prefix)
    return tokenizer
