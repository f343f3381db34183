"""Finding the tokenizer that lies beside a model's weights."""

import dataclasses
import os
import re
import warnings
from pathlib import Path

from tokenizers import AddedToken

from ..checkpoints.files import default_model, places
from ..errors import TokenizerError
from ..hub.names import local
from ..json_files import shown
from .backend import around, from_tokenizer_json, read_backend
from .base import TokenizerBase
from .bpe import BpeTokenizer, read_vocab, roberta
from .chat import read_chat
from .gguf import gguf_tokenizer
from .reading import reading
from .sentencepiece import CpmTokenizer, MissingPackageError, SpTokenizer, is_cpm
from .settings import ENDS, GENERIC, TokenizerSettings, read_object, read_settings
from .unigram import albert, albert_normalizer, xlm_roberta, xlm_roberta_parts
from .vocab import load_vocab
from .wordpiece import Tokenizer

_SENTENCEPIECE_NAMES = ("spiece.model", "sentencepiece.model", "spm.model", "tokenizer.model", "chinese_vocab.model")
_BPE_NAMES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
BYTE_LEVEL = ("GPT2Tokenizer", "RobertaTokenizer")  # whose tokenizer_config.json says if a text begins with a space
SENTENCEPIECE_KINDS = ("CpmTokenizer", "AlbertTokenizer", "T5Tokenizer", "XLMRobertaTokenizer")
ROLES = {  # of a WordPiece tokenizer: the argument, and what tokenizer_config.json calls it
    "token_start": ("cls_token", "[CLS]"),
    "token_end": ("sep_token", "[SEP]"),
    "token_pad": ("pad_token", "[PAD]"),
    "token_unk": ("unk_token", "[UNK]"),
    "token_mask": ("mask_token", "[MASK]"),
}
_BRACKETED = re.compile(r"\[.*\]|<.*>")


def load_tokenizer(folder: str | os.PathLike | None = None, config: dict | None = None) -> TokenizerBase | None:
    """The tokenizer of a model folder (or of the folder a file lies in), by default of the small model inside the
    package; or None when no vocabulary lies in it.

    Looks for vocab.txt (or the only *vocab*.txt), tokenizer.json, a SentencePiece model, and GPT2's vocab.json +
    merges.txt or encoder.json + vocab.bpe; also in `bpe_3w_new` (CPM-LM's original layout), in `assets` (that of a
    SavedModel), in `0_Transformer` (that of sentence-transformers), and beside DeepSpeed's folder of one step;
    last, inside a GGUF.
    `config` is the model's Hugging Face configuration; without it config.json is read. tokenizer_config.json is
    obeyed. A vocab.txt alone is lower-cased unless it has a token with a capital Latin letter ([CLS] aside).

    What is no path, but may be the name of a published checkpoint, is fetched, without its weights (`bert4x.hub`).

    Raises TokenizerError for a vocabulary that is damaged. One that needs a package that is not installed, or is of a
    kind not supported here, gives a warning and None, so that the weights can be used all the same.
    """
    source = default_model() if folder is None else Path(local(folder, weights=False)).expanduser()
    for place in places(source if source.is_dir() else source.parent):
        tokenizer = _load_from(place, config)
        if tokenizer is not None:
            read_chat(tokenizer, place)
            return tokenizer
    found = [source] if source.is_file() else sorted(source.glob("*.gguf"))
    return _from_gguf(found[0]) if len(found) == 1 and found[0].suffix == ".gguf" else None


def _from_gguf(path: Path) -> TokenizerBase | None:
    """The tokenizer inside a GGUF, with its chat templates."""
    said = gguf_tokenizer(path)
    if said is None:
        return None
    content, settings, (templates, stop_ids) = said
    with reading(path):
        tokenizer = _from_tokenizer_json(path, content, settings, None)
    if tokenizer is not None:
        tokenizer.chat_templates, tokenizer.stop_ids = templates, stop_ids
        tokenizer.special_names = {key: one.content for key, one in settings.names.items()}
    return tokenizer


def _load_from(folder: Path, config: dict | None) -> TokenizerBase | None:
    content = read_object(folder / "tokenizer.json")
    settings = read_settings(folder, config, content)
    vocab, pieces = vocab_file(folder), _sentencepiece_file(folder)
    if content:
        with reading(folder / "tokenizer.json"):
            tokenizer = _from_tokenizer_json(folder / "tokenizer.json", content, settings, vocab)
        if tokenizer is not None or (vocab is None and pieces is None):
            return tokenizer
    if pieces is not None and (vocab is None or settings.kind in SENTENCEPIECE_KINDS):
        try:
            with reading(pieces):
                return _sentencepiece(pieces, settings, _model_type(folder, config))
        except MissingPackageError as error:
            warnings.warn(f"no tokenizer is loaded: {error}", stacklevel=3)
            return None
    if vocab is not None:
        with reading(vocab):
            tokens = load_vocab(vocab)
        others = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")
        others = [name for name in others if (folder / name).is_file()]
        with reading(f"{vocab} with {', '.join(others)}" if others else vocab):
            return _wordpiece(tokens, settings)
    for names in _BPE_NAMES:
        if all((folder / name).is_file() for name in names):
            paths = [folder / name for name in names]
            if settings.kind == "RobertaTokenizer":
                return roberta(*paths, settings)
            options = {"token_pad": settings.name("pad_token")}
            options["add_prefix_space"] = settings.switch("add_prefix_space", False)
            return BpeTokenizer(*paths, added_tokens=_with_numbers(settings, read_vocab(paths[0])), **options)
    return None


def _model_type(folder: Path, config: dict | None) -> str:
    """The family that a config names, "" if it does not."""
    data = config if config and "model_type" in config else read_object(folder / "config.json")
    return str(data.get("model_type") or data.get("model") or "")


def vocab_file(folder: Path) -> Path | None:
    """The vocabulary of a folder, or None. Raises: TokenizerError for several."""
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


def _sentencepiece(path: Path, settings: TokenizerSettings, model_type: str) -> TokenizerBase:
    if settings.kind == "AlbertTokenizer" or (not settings.kind and model_type.startswith("albert")):
        return albert(path, settings)
    if settings.kind == "XLMRobertaTokenizer" or path.name == "sentencepiece.bpe.model":
        return xlm_roberta(path, settings)
    tokenizer = SpTokenizer(path, token_start=None, token_end=None)
    if is_cpm(tokenizer):
        return CpmTokenizer(path)
    added = {number: one for number, one in settings.added.items() if one.content not in tokenizer.token_dict}
    if settings.kind == "LlamaTokenizer" or (not settings.kind and model_type in ("llama", "mistral")):
        added_ends = {key: True for key in ENDS if settings.switch(key)}  # neither, where no file says so
        start, end = (token if key in added_ends else None for key, token in zip(ENDS, ("<s>", "</s>"), strict=True))
        tokenizer = SpTokenizer(path, start, end, added_tokens=added)
        tokenizer.switches = added_ends
        return tokenizer
    pairs = ("[CLS]", "[SEP]"), ("<s>", "</s>"), (None, "</s>")
    for start, end in pairs[2:] if settings.kind == "T5Tokenizer" or model_type in ("t5", "mt5") else pairs:
        if (start is None or start in tokenizer.token_dict) and end in tokenizer.token_dict:
            return SpTokenizer(path, start, end, added_tokens=added)
    return SpTokenizer(path, None, None, added_tokens=added) if added else tokenizer


def _with_numbers(settings: TokenizerSettings, vocab: dict[str, int] | None = None) -> dict[int, AddedToken]:
    """All added tokens by id; those without an id in any file follow the others, as in transformers."""
    vocab = vocab or {}
    added = {vocab.get(one.content, number): one for number, one in settings.added.items()}
    flagged = [one for one in settings.names.values() if one.content in vocab]
    added |= {vocab[one.content]: one for one in (*settings.extra, *flagged) if one.content in vocab}
    following = max([-1, *vocab.values(), *added]) + 1
    new = [one for one in settings.extra if one.content not in vocab]
    return added | dict(enumerate(new, start=following))


def _wordpiece(vocab: dict[str, int], settings: TokenizerSettings, lower: bool | None = None, **options) -> Tokenizer:
    lower = settings.switch("do_lower_case", lower)
    if lower is None:
        lower = not any(re.search("[A-Z]", token) and not _BRACKETED.fullmatch(token) for token in vocab)
    added = _with_numbers(settings, vocab)
    known = vocab.keys() | {one.content for one in added.values()}
    names = {}
    for argument, (key, default) in ROLES.items():
        name = settings.name(key, default)
        if name not in known and key in settings.names:
            warnings.warn(f"the files beside the vocabulary name {name!r} as {key}, but give it no id", stacklevel=5)
        optional = argument in ("token_start", "token_end")
        names[argument] = None if optional and name not in known else name
    for one in added.values():
        one.special = one.special or one.content in names.values()
    usual = {
        "strip_accents": settings.switch("strip_accents"),
        "tokenize_chinese_chars": settings.switch("tokenize_chinese_chars", True),
    }
    tokenizer = Tokenizer(vocab, lower, added_tokens=added, **(names | usual | options))
    tokenizer.check_unknown()
    return tokenizer


def _from_tokenizer_json(
    path: Path, content: dict, settings: TokenizerSettings, vocab: Path | None
) -> TokenizerBase | None:
    """Hugging Face's own file: BERT's WordPiece, GPT2's BPE and ALBERT's Unigram as classes, others as they stand."""
    model, normalizer, splitter = (_object(content, key, path) for key in ("model", "normalizer", "pre_tokenizer"))
    if settings.kind in BYTE_LEVEL and settings.configured and splitter.get("type") == "ByteLevel":
        splitter = splitter | {"add_prefix_space": settings.switch("add_prefix_space", False)}
        content = content | {"pre_tokenizer": splitter}
    kind = model.get("type") or ("WordPiece" if "max_input_chars_per_word" in model else None)  # old files leave it out
    kinds = kind, normalizer.get("type"), splitter.get("type")
    bert = kinds == ("WordPiece", "BertNormalizer", "BertPreTokenizer") and normalizer.get("clean_text") is True
    if not settings.configured or settings.kind in GENERIC:  # what the file itself says counts
        bert = bert and model.get("continuing_subword_prefix", "##") == "##"
    if bert and settings.configured and settings.kind in GENERIC:
        usual = [[settings.name(*ROLES[role])] for role in ("token_start", "token_end")]
        bert = around(read_backend(content, str(path))) == (*usual, [], 1)  # pairs too, as BERT's
    if kind == "WordPiece" and (bert or settings.kind == "BertTokenizer"):
        read_backend(content, str(path))
        base = model["vocab"]
        _compare(path, base | {one.content: n for n, one in settings.added.items()}, vocab)
        options = {"word_maxlen": model.get("max_input_chars_per_word", 100)}
        if settings.configured and settings.kind not in GENERIC:
            return _wordpiece(base, settings, lower=True, **options)
        options |= {"strip_accents": normalizer.get("strip_accents")}
        options |= {"tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True)}
        names = settings.names
        if isinstance(unknown := model.get("unk_token"), str):  # what the model itself gives, whatever is named beside
            names = names | {"unk_token": AddedToken(unknown, special=True, normalized=False)}
        unsaid = dataclasses.replace(settings, switches={}, names=names)
        return _wordpiece(base, unsaid, lower=bool(normalizer.get("lowercase")), **options)
    if kinds == ("BPE", None, "ByteLevel") and is_gpt2(model, splitter, content.get("post_processor")):
        backend = read_backend(content, str(path))
        if any(around(backend)[:2]):  # RoBERTa's, which stands between <s> and </s>
            return from_tokenizer_json(backend, settings, str(path))
        merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
        added = _with_numbers(settings, model["vocab"])
        return BpeTokenizer(model["vocab"], merges, added_tokens=added, token_pad=settings.name("pad_token"))
    if kind in ("WordPiece", "BPE", "Unigram"):
        if kind == "WordPiece":
            _compare(path, model["vocab"] | {one.content: n for n, one in settings.added.items()}, vocab)
        if settings.kind == "AlbertTokenizer" and settings.configured:
            content = content | {"normalizer": albert_normalizer(normalizer, settings)}
        if settings.kind == "XLMRobertaTokenizer" and settings.configured and kind == "Unigram":
            content = content | xlm_roberta_parts(normalizer, settings)
        return from_tokenizer_json(read_backend(content, str(path)), settings, str(path))
    read_backend(content, str(path))
    warnings.warn(f"{path} describes a tokenizer that bert4x does not read: {kinds}", stacklevel=4)
    return None


def is_gpt2(model: dict, splitter: dict, joins) -> bool:
    """Whether a byte-level BPE does what GPT2's does, and nothing else: texts are split by GPT2's pattern and merged as
    the merges say, and spaces belong to the words after them. `joins` is the post_processor.
    """
    others = ("ignore_merges", "byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix")
    trims = isinstance(joins, dict) and joins.get("type") == "ByteLevel" and joins.get("trim_offsets", True)
    plain = splitter.get("use_regex", True) and not splitter.get("add_prefix_space")
    return plain and not trims and not any(model.get(key) for key in others)


def _object(content: dict, key: str, path: Path) -> dict:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} is damaged: its {key} is {shown(value)}; expected an object")
    return value


def _compare(path: Path, tokens: dict[str, int], vocab: Path | None) -> None:
    """Warns where a vocab.txt beside a tokenizer.json gives other ids, of which transformers knows nothing."""
    other = {} if vocab is None else load_vocab(vocab)
    differing = [t for t, number in other.items() if tokens.get(t, number) != number]
    if differing:
        warnings.warn(
            f"{vocab} and {path} contradict each other ({differing[0]!r} is {other[differing[0]]} and "
            f"{tokens[differing[0]]}); {path.name} counts, as in transformers. Delete the one that is out of date",
            stacklevel=6,
        )
