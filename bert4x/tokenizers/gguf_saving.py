"""A tokenizer as the metadata of a GGUF: what llama.cpp reads, and where that does not say all, its tokenizer.json."""

import json
import warnings
from itertools import groupby
from typing import Any

from .base import TokenizerBase
from .gguf import BEFORE, BYTE, CONTROL, CUTS, MARK, NORMAL, UNKNOWN, UNUSED, USER, WHOLE, merges_of
from .saving import tokenizer_json
from .sentencepiece import SpTokenizer
from .unigram import UNIGRAM
from .wordpiece import Tokenizer

ROLES = {  # of tokens; a WordPiece's start and end tokens are bos, and both of eos and separator
    "start_id": ("bos",),
    "end_id": ("eos", "seperator"),  # so spelled there
    "unk_id": ("unknown",),
    "pad_id": ("padding",),
    "mask_id": ("mask",),
}


def vocabulary_metadata(tokenizer: TokenizerBase | None, size: int, pre: str | None) -> dict[str, Any]:
    """The metadata of a vocabulary, filled up to `size` tokens. `pre` is how models of this family usually cut a text
    into words; a tokenizer that cuts otherwise, and has no name there, gives a warning.
    """
    found = None
    if isinstance(tokenizer, Tokenizer):
        found = wordpiece(tokenizer)
    elif isinstance(tokenizer, SpTokenizer):
        found = of_sentencepiece(tokenizer)
    elif (content := bpe_content(tokenizer)) is not None:
        level = "ByteLevel" in json.dumps(content["pre_tokenizer"])
        found = byte_level(content, pre) if level else with_scores(content)
    if found is None:
        if tokenizer is not None:
            warnings.warn(
                f"the GGUF has no vocabulary: a {type(tokenizer).__name__} has no form there; llama.cpp takes ids only",
                stacklevel=5,
            )
        return {f"{BEFORE}model": "none"}
    tokens, types, said, content = found
    size = max(size, 1 + max(tokens))
    said["tokens"] = [tokens.get(number, f"[PAD{number}]") for number in range(size)]
    said["token_type"] = [types.get(n, NORMAL) if n in tokens else UNUSED for n in range(size)]
    if "scores" in said:
        said["scores"] = [said["scores"].get(n, 0.0) for n in range(size)]
    said |= ids_of(tokenizer)
    found = {f"{BEFORE}{key}": value for key, value in said.items()} | ({} if content is None else {WHOLE: content})
    for name, text in tokenizer.chat_templates.items():
        found["tokenizer.chat_template" + ("" if name == "default" else f".{name}")] = text
    return found


def ids_of(tokenizer: TokenizerBase) -> dict[str, int | bool]:
    """The ids of special tokens, and what stands around a text."""
    found = {}
    for role, names in ROLES.items():
        number = getattr(tokenizer, role, None)
        found |= {f"{name}_token_id": int(number) for name in names if number is not None}
    if isinstance(tokenizer, Tokenizer):
        return found
    found.pop("seperator_token_id", None)
    named = {key: tokenizer.token_dict.get(token) for key, token in tokenizer.special_names.items()}
    usual = (tokenizer.end_id, named.get("eos_token"), getattr(tokenizer, "eos_id", None))
    ends = tokenizer.stop_ids or [number for number in usual if number is not None][:1]
    found |= {f"{name}_token_id": int(number) for name, number in zip(("eos", "eot", "eom"), ends, strict=False)}
    return found | {"add_bos_token": tokenizer.start_id is not None, "add_eos_token": tokenizer.end_id is not None}


def wordpiece(tokenizer: Tokenizer):
    """What continues a word as it stands, what begins one behind a mark; and a tokenizer.json, which tells the case."""
    control = {getattr(tokenizer, role, None) for role in ROLES} - {None}
    control |= {tokenizer.token_dict[one.content] for one in tokenizer.added_tokens.values() if one.special}
    tokens = {}
    for token, number in tokenizer.token_dict.items():
        as_it_stands = number in control or (token.startswith("[") and token.endswith("]"))
        tokens[number] = token if as_it_stands else token[2:] if token.startswith("##") else MARK + token
    types = {number: UNKNOWN if number == tokenizer.unk_id else CONTROL for number in control}
    return tokens, types, {"model": "bert"}, tokenizer_json(tokenizer)


def bpe_content(tokenizer: TokenizerBase | None) -> dict | None:
    """The tokenizer.json of a BPE of `tokenizers`, whose merges are pairs in it; None for another tokenizer."""
    backend = getattr(tokenizer, "_backend", None)
    content = {} if backend is None else json.loads(backend.to_str())
    if content.get("model", {}).get("type") != "BPE":
        return None
    model = content["model"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    return content | {"model": model | {"merges": merges}}


def added_to(content: dict) -> tuple[dict[int, str], dict[int, int]]:
    """The tokens by id, and the types of those that are added to the vocabulary."""
    added = {one["id"]: one for one in content["added_tokens"]}
    tokens = {number: token for token, number in content["model"]["vocab"].items()}
    types = {number: CONTROL if one["special"] else USER for number, one in added.items()}
    return tokens | {number: one["content"] for number, one in added.items()}, types


def byte_level(content: dict, pre: str | None):
    """GPT2's kind. One that cuts texts in a way without a name there has its tokenizer.json in the file, too."""
    tokens, types = added_to(content)
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    name = next((name for name in CUTS if cuts(content, name)), None)
    if name is None:
        warnings.warn(
            f"this tokenizer cuts texts as none that llama.cpp knows; the GGUF says {pre!r}, which may give it other "
            "ids. bert4x reads it as it is",
            stacklevel=6,
        )
    said = {"model": "gpt2", "merges": merges} | ({"pre": name or pre} if name or pre else {})
    return tokens, types, said, json.dumps(as_read(content), ensure_ascii=False) if name is None else None


def as_read(content: dict) -> dict:
    """A tokenizer.json with its merges as texts, which all versions of `tokenizers` read."""
    return content | {"model": content["model"] | {"merges": [" ".join(pair) for pair in content["model"]["merges"]]}}


def cuts(content: dict, name: str) -> bool:
    """Whether a tokenizer.json cuts texts into words as this name says."""
    pattern, composed = CUTS[name]
    normalizer, splitter = content["normalizer"] or {}, content["pre_tokenizer"]
    if content["model"].get("ignore_merges", False) != (name == "llama-bpe") or splitter.get("add_prefix_space"):
        return False
    if normalizer.get("type") != ("NFC" if composed else None):
        return False
    if pattern is None:
        return splitter["type"] == "ByteLevel" and splitter.get("use_regex", True)
    parts = splitter.get("pretokenizers") or [{}]
    return parts[0].get("pattern", {}).get("Regex") in (pattern, spelled_out(pattern)) and len(parts) == 2


def spelled_out(pattern: str) -> str:
    """The same pattern with both cases of each letter, as Qwen's file has it."""
    cases = "|".join(
        "'" + "".join(f"[{c}{c.upper()}]" for c in word) for word in ("s", "t", "re", "ve", "m", "ll", "d")
    )
    return pattern.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", f"(?:{cases})")


def with_scores(content: dict):
    """Llama's kind: the scores of pieces, by which SentencePiece merges, from merges; None where no scores do so."""
    model = content["model"]
    if not model.get("byte_fallback") or content["pre_tokenizer"]:
        return None
    tokens, types = added_to(content)
    types |= {n: BYTE for n, token in tokens.items() if len(token) == 6 and token.startswith("<0x")}
    if model.get("unk_token") in model["vocab"]:
        types[model["vocab"][model["unk_token"]]] = UNKNOWN
    scores: dict[int, float] = {}
    for rank, pair in enumerate(model["merges"]):
        scores.setdefault(model["vocab"]["".join(pair)], -float(rank))
    scores = {n: scores.get(n, -float(len(scores))) for n in tokens}
    plain = {token: n for n, token in tokens.items() if types.get(n, NORMAL) == NORMAL}
    told = merges_of(plain, [scores.get(n, 0.0) for n in range(max(tokens) + 1)])
    if by_piece(told) != by_piece(model["merges"]):
        return None
    prefix = "Prepend" in json.dumps(content["normalizer"])
    return tokens, types, {"model": "llama", "scores": scores, "add_space_prefix": prefix}, None


def by_piece(merges: list[tuple[str, str]]) -> list[set[tuple[str, str]]]:
    """The ways to each piece, which one score cannot put in an order."""
    return [set(ways) for _, ways in groupby(merges, "".join)]


def of_sentencepiece(tokenizer: SpTokenizer):
    """The pieces and scores of a SentencePiece model of BPE; None for one of another kind."""
    from .unigram import sp_model_of

    model = sp_model_of(tokenizer.sp_model.serialized_model_proto(), "the SentencePiece model")
    if model.kind == UNIGRAM or type(tokenizer) is not SpTokenizer:
        return None
    tokens = {number: piece for number, (piece, _, _) in enumerate(model.pieces)}
    types = {number: kind for number, (_, _, kind) in enumerate(model.pieces)}
    scores = {number: score for number, (_, score, _) in enumerate(model.pieces)}
    for token, number in tokenizer.token_dict.items():
        if number not in tokens:
            tokens[number], types[number] = token, CONTROL if tokenizer.added_tokens[token].special else USER
    return tokens, types, {"model": "llama", "scores": scores}, None
