"""The tokenizer inside a GGUF, as the tokenizer.json that it is another spelling of.

Three kinds are read: "bert", WordPiece; "gpt2", byte-level BPE, whose `pre` names how a text is cut into words; and
"llama", SentencePiece's BPE, whose merges are told by the scores of its pieces. Source: the specification of GGUF, and
the names that llama.cpp gives to ways of cutting.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from ..checkpoints.formats.gguf_file import open_gguf
from ..errors import TokenizerError
from ..json_files import parse_json, shown
from .reading import reading
from .settings import TokenizerSettings, of_tokenizer_json
from .unigram import template

BEFORE = "tokenizer.ggml."
WHOLE = "tokenizer.huggingface.json"  # a tokenizer.json as a text, where what llama.cpp reads does not say all
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # types of tokens
MARK = "\u2581"  # a space, or where a word begins
LONGEST = 256  # characters of a piece that is cut in all ways; published ones have less than 100
FREE_WAYS, WAYS = 50_000, 8  # ways of all pieces together: so many, and for each piece; of published ones about 3
# Our names of special tokens -> the ids' keys; the first that is there.
NAMES = {
    "unk_token": ("unknown",),
    "pad_token": ("padding",),
    "mask_token": ("mask",),
    "cls_token": ("cls", "bos"),
    "sep_token": ("seperator", "eos"),  # so spelled there
    "bos_token": ("bos",),
    "eos_token": ("eos",),
}
WORDPIECE_NAMES = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
WORDPIECE_NAMES |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
ENDS = ("eos", "eot", "eom")  # of what is generated
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS, _REST = r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Ways of cutting a text before BPE: the pattern of words (None is GPT2's own), and whether the text is made NFC first.
CUTS: dict[str, tuple[str | None, bool]] = {
    "gpt-2": (None, False),
    "qwen2": (rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}", True),
    "llama-bpe": (rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", False),
}
OTHER_NAMES = {"gpt2": "gpt-2", "llama3": "llama-bpe", "llama-v3": "llama-bpe"}


def gguf_tokenizer(path: Path) -> tuple[dict, TokenizerSettings, tuple[dict, tuple[int, ...]]] | None:
    """What a tokenizer.json of the tokenizer in a file would hold, and the settings beside it; the chat templates by
    name, and the ids that end what is generated. None for a file without vocabulary.

    Raises: TokenizerError for kinds that are not read, and for damage.
    """
    with reading(path):
        metadata = open_gguf(path)[0]
        kind = metadata.get(f"{BEFORE}model", "none")
        if kind == "none":
            return None
        makers = {"bert": wordpiece, "gpt2": byte_level, "llama": sentencepiece}
        if kind not in makers:
            raise TokenizerError(
                f"the tokenizer is of kind {shown(kind)}; expected {', '.join(makers)}: put the model's own beside it"
            )
        said = Said(metadata)
        content = whole(metadata[WHOLE]) if WHOLE in metadata else makers[kind](said)
        names = {key: AddedToken(token, special=True) for key, token in said.names().items()}
        ends = () if kind == "bert" else tuple(dict.fromkeys(said.ids[end] for end in ENDS if end in said.ids))
        return content, TokenizerSettings("", names, of_tokenizer_json(content)), (said.templates(), ends)


class Said:
    """What the metadata of a GGUF say of a vocabulary, checked. Raises: TokenizerError."""

    def __init__(self, metadata: dict):
        self.metadata = metadata
        self.kind = metadata[f"{BEFORE}model"]
        self.tokens = self.strings("tokens")
        if not self.tokens:
            raise TokenizerError("the vocabulary has no tokens")
        self.types = self.numbers("token_type", NORMAL)
        self.ids = {}
        for key, value in metadata.items():
            if key.startswith(BEFORE) and key.endswith("_token_id"):
                if type(value) is not int or not 0 <= value < len(self.tokens):
                    raise TokenizerError(f"{key} is {shown(value)}; expected an id below {len(self.tokens)}")
                self.ids[key.removeprefix(BEFORE).removesuffix("_token_id")] = value
        self.real = [n for n, of in enumerate(self.types) if of != UNUSED]  # others fill ids without a token

    def strings(self, key: str) -> list[str]:
        found = self.metadata.get(BEFORE + key, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise TokenizerError(f"{BEFORE}{key} is {shown(found)[:80]}; expected a list of texts")
        return found

    def numbers(self, key: str, default: float) -> list:
        """One for each token."""
        found = self.metadata.get(BEFORE + key)
        found = np.full(len(self.tokens), default) if found is None else found
        if not isinstance(found, np.ndarray) or found.shape != (len(self.tokens),) or found.dtype.kind not in "iuf":
            raise TokenizerError(f"{BEFORE}{key} is {shown(found)[:80]}; expected a number for each token")
        return found.tolist()

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(BEFORE + key, default)
        if not isinstance(value, bool):
            raise TokenizerError(f"{BEFORE}{key} is {shown(value)}; expected true or false")
        return value

    def names(self) -> dict[str, str]:
        """The special tokens, as tokenizer_config.json calls them."""
        ids = {key: next((self.ids[name] for name in names if name in self.ids), None) for key, names in NAMES.items()}
        found = {key: self.tokens[number] for key, number in ids.items() if number is not None}
        if self.kind != "bert":
            return {key: token for key, token in found.items() if key not in ("cls_token", "sep_token")}
        named = {key: name for key, name in WORDPIECE_NAMES.items() if name in self.tokens}
        return named | {key: token for key, token in found.items() if key in WORDPIECE_NAMES}

    def templates(self) -> dict[str, str]:
        """The chat templates by name."""
        said = {key.partition("chat_template")[::2]: text for key, text in self.metadata.items()}
        found = {name.removeprefix("."): text for (before, name), text in said.items() if before == "tokenizer."}
        return {name or "default": text for name, text in found.items() if isinstance(text, str)}

    def vocabulary(self, tokens: Sequence[str] | None = None) -> dict[str, int]:
        """The ids by token. Raises: TokenizerError for a token that two ids have."""
        tokens = self.tokens if tokens is None else tokens
        found: dict[str, int] = {}
        for number in self.real:
            if found.setdefault(tokens[number], number) != number:
                raise TokenizerError(f"ids {found[tokens[number]]} and {number} have the same token {tokens[number]!r}")
        return found

    def added(self) -> list[AddedToken]:
        """The tokens that are found in a text before it is cut."""
        kinds = {CONTROL: True, USER: False} | ({UNKNOWN: True} if self.kind == "llama" else {})
        of = [(self.tokens[n], kinds[self.types[n]]) for n in self.real if self.types[n] in kinds]
        return [AddedToken(token, normalized=False, special=special) for token, special in of]

    def around(self, before: bool) -> tuple[str | None, str | None]:
        """The token before a text and the one after it; `before` says whether one stands there by default."""
        asked = {"bos": self.flag("add_bos_token", before), "eos": self.flag("add_eos_token", False)}
        start, end = (self.tokens[self.ids[n]] if asked[n] and n in self.ids else None for n in asked)
        return start, end


def whole(text) -> dict:
    """The tokenizer.json in the metadata. Raises: TokenizerError"""
    content = parse_json(text.encode("utf-8"), WHOLE) if isinstance(text, str) else None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise TokenizerError(f"{WHOLE} is {shown(text)[:80]}; expected a tokenizer.json")
    return content


def wordpiece(said: Said) -> dict:
    """A BERT's tokenizer. Whether it folds case is not said: where a token has a capital letter it does not."""
    special = {said.ids[name] for names in NAMES.values() for name in names if name in said.ids}
    tokens = []
    for number, token in enumerate(said.tokens):
        as_it_stands = said.types[number] != NORMAL or number in special or (token[:1] + token[-1:] == "[]")
        tokens.append(token[1:] if token.startswith(MARK) else token if as_it_stands else f"##{token}")
    vocabulary = said.vocabulary(tokens)
    cased = any("A" <= char <= "Z" for token in tokens if token[:1] + token[-1:] != "[]" for char in token)
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=said.names().get("unk_token", "[UNK]")))
    backend.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return json.loads(backend.to_str())


def byte_level(said: Said) -> dict:
    """GPT2's tokenizer, or Qwen's or Llama 3's, which cut a text into other words. Raises: TokenizerError"""
    pre = said.metadata.get(f"{BEFORE}pre", "gpt-2")
    pre = OTHER_NAMES.get(pre, pre)
    if pre not in CUTS:
        raise TokenizerError(
            f"{BEFORE}pre is {shown(pre)}; expected {', '.join(CUTS)}: put the model's tokenizer.json beside it"
        )
    pattern, composed = CUTS[pre]
    merges = [tuple(pair.split(" ")) for pair in said.strings("merges")]
    if wrong := next((pair for pair in merges if len(pair) != 2), None):
        raise TokenizerError(f"{BEFORE}merges has {' '.join(wrong)[:80]!r}; expected two pieces")
    backend = tokenizers.Tokenizer(models.BPE(said.vocabulary(), merges, ignore_merges=pre == "llama-bpe"))
    backend.normalizer = normalizers.NFC() if composed else None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern is not None:
        cut = pre_tokenizers.Split(Regex(pattern), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, level])
    backend.decoder = decoders.ByteLevel()
    return finished(backend, said, *said.around(before=pre == "llama-bpe"))


def sentencepiece(said: Said) -> dict:
    """Llama's tokenizer: a space is a mark, and stands before a text, too; what no piece spells is written in bytes."""
    vocabulary, scores = said.vocabulary(), said.numbers("scores", 0.0)
    plain = {said.tokens[n]: n for n in said.real if said.types[n] == NORMAL}
    unknown = said.names().get("unk_token") or next(
        (said.tokens[n] for n in said.real if said.types[n] == UNKNOWN), None
    )
    model = models.BPE(vocabulary, merges_of(plain, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    space = said.flag("add_space_prefix", True)
    steps = [normalizers.Prepend(MARK)] if space else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", MARK)])
    parts = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if space else [])])
    return finished(backend, said, *said.around(before=True))


def merges_of(pieces: dict[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges by which SentencePiece's BPE makes its pieces, the best piece first. Of several ways to one piece the
    order is that of the ids of the parts.

    Raises: TokenizerError for pieces so long, or with so many ways, that this would take for ever.
    """
    found = []
    for piece, number in pieces.items():
        if len(piece) > LONGEST:
            raise TokenizerError(f"a piece of {len(piece):,} characters; expected at most {LONGEST:,}. It is damaged")
        if len(found) > FREE_WAYS + WAYS * len(pieces):
            raise TokenizerError("its pieces are made of each other in more ways than those of any model; damaged")
        parts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        ways = sorted((pieces[a], pieces[b]) for a, b in parts if a in pieces and b in pieces)
        found += [(-scores[number], number, *way) for way in ways]
    names = {number: piece for piece, number in pieces.items()}
    return [(names[a], names[b]) for *_, a, b in sorted(found)]


def finished(backend: tokenizers.Tokenizer, said: Said, start: str | None, end: str | None) -> dict:
    """The content of a tokenizer.json, with added tokens, and what stands around a text."""
    backend.add_tokens(said.added())
    if start or end:
        backend.post_processor = template(backend, start, end, [start] if start else [])
    return json.loads(backend.to_str())
