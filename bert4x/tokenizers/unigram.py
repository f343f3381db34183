"""SentencePiece models as transformers reads them for ALBERT and XLM-R: their own normalisation before the pieces.

The file is read here, without the sentencepiece package: pieces with scores, and the map of normalised characters.
Sources: google-research/albert, tokenization.py; the field numbers of sentencepiece_model.proto.
"""

import json
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import TokenizerError
from .backend import KEYS, BackendTokenizer
from .reading import reading
from .settings import TokenizerSettings
from .vocab import read_bounded

PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields of the model
CONTROL, USER_DEFINED = 3, 4  # types of pieces
UNIGRAM = 1


class SpModel(NamedTuple):
    """What a SentencePiece model holds: (piece, score, type) by id, the unknown id, the kind, the map of characters."""

    pieces: list[tuple[str, float, int]]
    unk_id: int
    kind: int
    charsmap: bytes


def read_sp_model(path: str | os.PathLike) -> SpModel:
    """Raises: TokenizerError for a file that is no SentencePiece model."""
    with reading(path):
        data = read_bounded(path)
    return sp_model_of(data, path)


def sp_model_of(data: bytes, path: str | os.PathLike) -> SpModel:
    """What the bytes of a model say. Raises: TokenizerError for bytes, of `path`, that are none."""
    with reading(path):
        model = list(fields(data))
        pieces = [dict(fields(value)) for number, value in model if number == PIECES]
        trainer = dict(fields(next((value for number, value in model if number == TRAINER), b"")))
        normalizer = dict(fields(next((value for number, value in model if number == NORMALIZER), b"")))
        read = [
            (piece[1].decode("utf-8"), struct.unpack("<f", piece.get(2, bytes(4)))[0], piece.get(3, 1))
            for piece in pieces
        ]
    if not read:
        raise TokenizerError(f"{path} is not a SentencePiece model: it has no pieces")
    return SpModel(read, trainer.get(40, 0), trainer.get(3, UNIGRAM), normalizer.get(2, b""))


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: number and value, of a nested message its bytes.

    Raises: ValueError, IndexError for what is none.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        length, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if length < 0 or at + length > len(data):
            raise ValueError(f"a field of kind {kind} at byte {at} does not fit")
        yield number, data[at : at + length]
        at += length


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where the next field begins. Raises: IndexError, ValueError."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def albert(path: str | os.PathLike, settings: TokenizerSettings) -> BackendTokenizer:
    """ALBERT's tokenizer: ``` `` ``` and `''` become `"`, accents go (NFKD), text is lower-cased; then SentencePiece.

    A piece that ends in a digit and a comma is never taken, as in Google's code, which takes such pieces apart.

    Raises: TokenizerError
    """
    model = read_sp_model(path)
    pieces = [(piece, score - 100 * ends_in_digit_and_comma(piece)) for piece, score, _ in model.pieces]
    names = {"pad": "<pad>", "unk": "<unk>", "mask": "[MASK]", "start": "[CLS]", "end": "[SEP]"}
    return unigram(path, model, pieces, model.unk_id, albert_steps(settings), names, settings)


def albert_steps(settings: TokenizerSettings) -> list[normalizers.Normalizer]:
    """How ALBERT normalises text before the map of the SentencePiece model."""
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.switch("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    return [*steps, normalizers.Lowercase()] if settings.switch("do_lower_case", True) else steps


def albert_normalizer(normalizer: dict, settings: TokenizerSettings) -> dict:
    """The normalizer of an ALBERT's tokenizer.json, as tokenizer_config.json wants it: transformers obeys that one."""
    steps = json.loads(normalizers.Sequence(albert_steps(settings)).__getstate__())["normalizers"]
    return {"type": "Sequence", "normalizers": [*steps, *maps_of(normalizer)]}


def ends_in_digit_and_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def xlm_roberta(path: str | os.PathLike, settings: TokenizerSettings) -> BackendTokenizer:
    """XLM-R's tokenizer: fairseq's ids are SentencePiece's plus one, after `<s> <pad> </s> <unk>`; `<mask>` is last.

    Raises: TokenizerError
    """
    model = read_sp_model(path)
    specials = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = specials + [(piece, score) for piece, score, _ in model.pieces[3:]] + [("<mask>", 0.0)]
    names = {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>", "start": "<s>", "end": "</s>"}
    return unigram(path, model, pieces, 3, [], names, settings, second_start=["</s>"], second_segment=0)


def words(settings: TokenizerSettings) -> pre_tokenizers.PreTokenizer:
    """Words between spaces, each with a mark of its space before it, the first one unless the settings say no."""
    scheme = "always" if settings.switch("add_prefix_space", True) else "never"
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)])


def xlm_roberta_parts(normalizer: dict, settings: TokenizerSettings) -> dict:
    """What surrounds the pieces of an XLM-R's tokenizer.json in transformers 5, whatever that file says: of its
    normalizer the map of characters alone, of which that of every published model consists.
    """
    maps = maps_of(normalizer)
    return {
        "normalizer": maps[0] if maps else None,
        "pre_tokenizer": json.loads(words(settings).__getstate__()),
        "decoder": json.loads(decoders.Metaspace().__getstate__()),
    }


def maps_of(normalizer: dict) -> list[dict]:
    """The maps of characters in the normalizer of a tokenizer.json."""
    parts = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer]
    return [part for part in parts or [] if isinstance(part, dict) and part.get("type") == "Precompiled"]


def unigram(path, model: SpModel, pieces, unk_id: int, steps, names, settings: TokenizerSettings, **pairs):
    """A BackendTokenizer over the pieces of a model. Raises: TokenizerError."""
    if model.kind != UNIGRAM:
        raise TokenizerError(f"{path} is a SentencePiece model of kind {model.kind}; expected a unigram model")
    with reading(path):
        backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id))
        steps = [*steps, normalizers.Precompiled(model.charsmap)] if model.charsmap else steps
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = words(settings)
    backend.decoder = decoders.Metaspace()
    own = [
        AddedToken(piece, normalized=False, special=kind == CONTROL)
        for piece, _, kind in model.pieces
        if kind in (CONTROL, USER_DEFINED)
    ]
    names = {name: settings.name(KEYS[name], token) for name, token in names.items()}
    return with_added(backend, names, settings, own, **pairs)


def with_added(backend, names, settings: TokenizerSettings, own=(), **pairs) -> BackendTokenizer:
    """A BackendTokenizer with the special tokens of `names`, the added tokens of the settings, and `own` ones."""
    known = backend.get_vocab(with_added_tokens=True)
    named = {settings_name.content: settings_name for settings_name in settings.names.values()}
    specials = [named.get(token, AddedToken(token, special=True)) for token in names.values() if token in known]
    added = [settings.added[number] for number in sorted(settings.added)]
    wanted = {one.content: one for one in [*own, *specials, *settings.extra, *added]}
    normalize = backend.normalizer.normalize_str if backend.normalizer else str
    order = {one.content: number for number, one in enumerate(added)}
    wanted = sorted(wanted.values(), key=lambda one: order.get(one.content, len(order)))
    backend.add_tokens([one for one in wanted if not one.normalized or normalize(one.content)])
    known = backend.get_vocab(with_added_tokens=True)
    start, end = (names[name] if names[name] in known else None for name in ("start", "end"))
    backend.post_processor = template(backend, start, end, **pairs)
    return BackendTokenizer(backend, start, end, {n: names[n] for n in ("pad", "unk", "mask")}, **pairs)


def template(backend, start, end, second_start=(), second_segment: int = 1) -> processors.TemplateProcessing:
    """What `tokenizers` puts around a text and a pair."""
    before, after = ([f"{token}:0"] if token else [] for token in (start, end))
    second = [f"{token}:{second_segment}" for token in (*second_start, "$B", *([end] if end else []))]
    used = {token for token in (start, end, *second_start) if token}
    return processors.TemplateProcessing(
        single=[*before, "$A:0", *after],
        pair=[*before, "$A:0", *after, *second],
        special_tokens=[(token, backend.token_to_id(token)) for token in used],
    )
