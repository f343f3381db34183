"""Finding the tokenizer that lies beside a model's weights."""

import json
import os
import re
import reprlib
import warnings
from pathlib import Path

import tokenizers

from ..checkpoints.files import default_model, is_name
from ..errors import CorruptFileError, TokenizerError
from ..json_files import check_kinds, read_json
from .base import TokenizerBase
from .bpe import BpeTokenizer
from .reading import reading
from .sentencepiece import CpmTokenizer, MissingPackageError, SpTokenizer, is_cpm
from .vocab import load_vocab
from .wordpiece import Tokenizer

_SENTENCEPIECE_NAMES = ("spiece.model", "sentencepiece.model", "spm.model", "tokenizer.model", "chinese_vocab.model")
_BPE_NAMES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
# what the keys that are obeyed may hold, in tokenizer_config.json and in the model's config
_KINDS = {
    **dict.fromkeys(("do_lower_case", "strip_accents", "tokenize_chinese_chars"), (bool,)),
    **dict.fromkeys(("cls_token", "sep_token"), (str, dict)),
    "tokenizer_class": (str,),
    "added_tokens_decoder": (dict,),
}
_BRACKETED = re.compile(r"\[.*\]|<.*>")


def load_tokenizer(folder: str | os.PathLike | None = None, config: dict | None = None) -> TokenizerBase | None:
    """The tokenizer of a model folder (or of the folder a file lies in), by default of the small model inside the
    package; or None when no vocabulary lies in it.

    Looks for vocab.txt (or the only *vocab*.txt), tokenizer.json, a SentencePiece model, and GPT2's vocab.json +
    merges.txt or encoder.json + vocab.bpe; for CPM-LM's original layout also in `bpe_3w_new` and one folder up.
    `config` is the model's Hugging Face configuration; without it config.json is read. tokenizer_config.json is
    obeyed. A vocab.txt alone is lower-cased unless it has a token with a capital Latin letter ([CLS] aside).

    What is no path, but may be the name of a published checkpoint, is fetched, without its weights (`bert4x.hub`).

    Raises TokenizerError for a vocabulary that is damaged. One that needs a package that is not installed, or is of a
    kind not supported here, gives a warning and None, so that the weights can be used all the same.
    """
    folder = default_model() if folder is None else local(folder)
    folder = folder if folder.is_dir() else folder.parent
    places = [folder, folder / "bpe_3w_new"]
    if folder.name.isdigit():  # DeepSpeed's folder of one step
        places += [folder.parent, folder.parent / "bpe_3w_new"]
    for place in places:
        tokenizer = _load_from(place, config) if place.is_dir() else None
        if tokenizer is not None:
            return tokenizer
    return None


def local(folder: str | os.PathLike) -> Path:
    """The path itself, or that of a published checkpoint by its name.

    Raises: HubError
    """
    path = Path(folder).expanduser()
    in_a_folder = path.name != str(path) and path.parent.is_dir()  # of a file whose vocabulary lies beside it
    if not is_name(folder) or in_a_folder or path.exists() or Path(f"{path}.index").exists():
        return path
    from ..hub import resolve

    return resolve(str(folder), weights=False)


def _load_from(folder: Path, config: dict | None) -> TokenizerBase | None:
    described = folder / "tokenizer_config.json"
    with reading(folder / "config.json"):
        options = _checked(config if config is not None else _read_json(folder / "config.json"), folder / "config.json")
    with reading(described):
        options = options | _checked(_read_json(described), described)
    vocab = _vocab_file(folder)
    pieces = _sentencepiece_file(folder)
    kind = (options.get("tokenizer_class") or "").removesuffix("Fast")
    if pieces is not None and (vocab is None or kind in ("CpmTokenizer", "AlbertTokenizer", "T5Tokenizer")):
        try:
            with reading(pieces):
                return _sentencepiece(pieces)
        except MissingPackageError as error:
            warnings.warn(f"{pieces} is not loaded: {error}", stacklevel=3)
            return None
    if vocab is not None:
        with reading(vocab):
            return _wordpiece(vocab, options)
    if (folder / "tokenizer.json").is_file():
        with reading(folder / "tokenizer.json"):
            return _from_tokenizer_json(folder / "tokenizer.json")
    for names in _BPE_NAMES:
        if all((folder / name).is_file() for name in names):
            return BpeTokenizer(*(folder / name for name in names))
    return None


def _checked(options: dict, path: Path) -> dict:
    """The keys that are obeyed, after checking what they hold."""
    check_kinds(options, _KINDS, str(path))
    for key in ("cls_token", "sep_token"):
        if isinstance(options.get(key), dict):
            check_kinds(options[key], {"content": (str,)}, f"{path}: {key!r}")
    for token_id, entry in (options.get("added_tokens_decoder") or {}).items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not re.fullmatch("[0-9]{1,9}", token_id) or not isinstance(content, str):
            raise TokenizerError(
                f"{path}: 'added_tokens_decoder' maps {token_id[:40]!r} to {reprlib.repr(entry)}; expected an id and "
                'an object such as {"content": "[CLS]"}'
            )
    return options


def _read_json(path: Path) -> dict:
    """The JSON object of a file, {} if there is none."""
    try:
        return read_json(path) if path.is_file() else {}
    except CorruptFileError as error:
        raise TokenizerError(str(error)) from error


def _vocab_file(folder: Path) -> Path | None:
    if (folder / "vocab.txt").is_file():
        return folder / "vocab.txt"
    found = sorted(path for path in folder.glob("*vocab*.txt") if path.is_file())
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise TokenizerError(f"{folder} has several vocabularies ({names}); name the right one vocab.txt")
    return found[0] if found else None


def _sentencepiece_file(folder: Path) -> Path | None:
    named = [folder / name for name in _SENTENCEPIECE_NAMES]
    return next((path for path in named + sorted(folder.glob("*.model")) if path.is_file()), None)


def _sentencepiece(path: Path) -> SpTokenizer:
    tokenizer = SpTokenizer(path, token_start=None, token_end=None)
    if is_cpm(tokenizer):
        return CpmTokenizer(path)
    for start, end in (("[CLS]", "[SEP]"), ("<s>", "</s>"), (None, "</s>")):
        if (start is None or start in tokenizer.token_dict) and end in tokenizer.token_dict:
            return SpTokenizer(path, start, end)
    return tokenizer


def _wordpiece(path: Path, options: dict) -> Tokenizer:
    vocab = load_vocab(path)
    added = {entry["content"]: int(i) for i, entry in (options.get("added_tokens_decoder") or {}).items()}
    lower = options.get("do_lower_case")
    if lower is None:
        lower = not any(re.search("[A-Z]", token) and not _BRACKETED.fullmatch(token) for token in vocab)
    ends = {}
    for argument, key, default in (("token_start", "cls_token", "[CLS]"), ("token_end", "sep_token", "[SEP]")):
        token = options.get(key) or default
        token = token.get("content", default) if isinstance(token, dict) else token
        ends[argument] = token if token in vocab else None
    return Tokenizer(
        vocab | added,
        do_lower_case=bool(lower),
        strip_accents=options.get("strip_accents"),
        tokenize_chinese_chars=options.get("tokenize_chinese_chars") is not False,
        special_tokens=added,
        **ends,
    )


def _from_tokenizer_json(path: Path) -> TokenizerBase | None:
    """Hugging Face's own file: BERT's WordPiece and GPT2's BPE are read, in the form their tokenizers save them."""
    content = _read_json(path)
    tokenizers.Tokenizer.from_str(json.dumps(content))  # raises for all that is not as the library writes it
    model, normalizer, splitter = (content.get(key) or {} for key in ("model", "normalizer", "pre_tokenizer"))
    added = {token["content"]: token["id"] for token in content.get("added_tokens") or []}
    kinds = model.get("type"), normalizer.get("type"), splitter.get("type")
    if kinds == ("WordPiece", "BertNormalizer", "BertPreTokenizer") and normalizer["clean_text"]:
        vocab = model["vocab"] | added
        return Tokenizer(
            vocab,
            do_lower_case=normalizer["lowercase"],
            word_maxlen=model["max_input_chars_per_word"],
            token_start="[CLS]" if "[CLS]" in vocab else None,
            token_end="[SEP]" if "[SEP]" in vocab else None,
            strip_accents=normalizer["strip_accents"],
            tokenize_chinese_chars=normalizer["handle_chinese_chars"],
            special_tokens=added,
        )
    if kinds == ("BPE", None, "ByteLevel") and not splitter["add_prefix_space"]:
        merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
        return BpeTokenizer(model["vocab"] | added, merges)
    warnings.warn(f"{path} describes a tokenizer that bert4x does not read: {kinds}", stacklevel=4)
    return None
