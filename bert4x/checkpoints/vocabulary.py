"""The vocabulary beside the weights: the tokenizer that it makes, and its copy beside a converted checkpoint."""

import contextlib
import re
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.config_spelling import with_corrected_pad
from bert4x.checkpoints.tensors import atomic_write
from bert4x.checkpoints.write import write_json
from bert4x.config import TransformerConfig, read_config_file
from bert4x.errors import ConversionError, TokenizerError
from bert4x.families import family_of

VOCABULARY_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe"),
)
CHAT_FILES = ("chat_template.jinja", "generation_config.json")  # which name ids, too
RENAMED_VOCABULARY = {
    "hf": {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"},
    "tf1": {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"},
}
TRIMMABLE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
BOM = b"\xef\xbb\xbf"
MORE_THAN_A_TOKEN = re.compile(rb"^[^ \t\r\n]+[ \t]+[^ \t\r\n]", re.M)  # ids, or frequencies, after the tokens


def find_tokenizer(checkpoint: Checkpoint):
    """The tokenizer whose vocabulary lies beside the weights, or None."""
    from bert4x.tokenizers import load_tokenizer

    try:
        config, files = checkpoint.config, checkpoint.files
        place = files.path if files.container == "gguf" else checkpoint.folder
        return load_tokenizer(place, config.extra | {"model_type": config.model})
    except TokenizerError as error:
        warnings.warn(f"the vocabulary in {checkpoint.folder} cannot be used: {error}", stacklevel=3)
        return None


def with_pad_id(checkpoint: Checkpoint, tokenizer, given: bool = False) -> TransformerConfig:
    """The config with the padding id of the vocabulary, which knows better than config files do.

    Without one, a config file that says another id than 0 may be right (multilingual-e5's) or wrong (RoBERTa-wwm's):
    that gives a warning, unless the caller has been `given` the id.
    """
    config, pad = checkpoint.config, getattr(tokenizer, "pad_id", None)
    if not family_of(config.model).pads_by_vocabulary:
        return config
    if pad is None and not given:
        warn_of_pad_id(config, f"the config in {checkpoint.folder}")
    if pad is None:
        return config
    return with_corrected_pad(config, pad) if checkpoint.table.format == "hf" else config.replace(pad_token_id=pad)


def warn_of_pad_id(config: TransformerConfig, where: str) -> None:
    """Warns of another padding id in a config file than counts, where no vocabulary is at hand."""
    said = config.extra.get("pad_token_id")
    if said not in (None, config.pad_token_id):
        warnings.warn(
            f"{where} says pad_token_id = {said}, and no vocabulary is there to confirm it: "
            f"id {config.pad_token_id} counts as padding, {said} does not. Some published configs are right and some "
            f"are wrong; say which with pad_token_id={said} or pad_token_id={config.pad_token_id}, or put the "
            "vocabulary beside the weights",
            stacklevel=4,
        )


def copy_vocabulary(checkpoint: Checkpoint, target: Path, format: str, keep: np.ndarray | None) -> None:
    """Copies the vocabulary under the names, and in the form, that the format's readers look for, trimmed to the kept
    ids.

    Raises: ConversionError when a vocabulary that is no vocab.txt should be trimmed.
    """
    if checkpoint.files.container != "gguf" or has_vocabulary(checkpoint.folder):
        copy_files(checkpoint, checkpoint.folder, target, format, keep)
        return
    tokenizer = find_tokenizer(checkpoint)  # inside the file, as it will be in another GGUF
    if tokenizer is not None and format != "gguf":
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(folder)
            copy_files(checkpoint, Path(folder), target, format, keep)


def has_vocabulary(folder: Path) -> bool:
    """Whether files of a vocabulary lie in a folder."""
    from bert4x.tokenizers.folder import vocab_file

    named = any((folder / name).is_file() for name in VOCABULARY_FILES)
    return named or any(folder.glob("*.model")) or vocab_file(folder) is not None


def copy_files(checkpoint: Checkpoint, source: Path, target: Path, format: str, keep: np.ndarray | None) -> None:
    """Copies the vocabulary that lies in `source`, as `copy_vocabulary`."""
    renamed = RENAMED_VOCABULARY.get(format, {})
    names = [name for name in VOCABULARY_FILES if (source / name).is_file()]
    pieces = sorted(path.name for path in source.glob("*.model") if path.name not in names)
    if keep is not None:
        trim_vocabulary(source, target, [*names, *pieces], keep)
        return
    if format == "hf" and len(pieces) == 1:
        renamed = renamed | {pieces[0]: "spiece.model"}
    for name in [*names, *pieces, *(name for name in CHAT_FILES if (source / name).is_file())]:
        with atomic_write(target / renamed.get(name, name)) as path:
            shutil.copyfile(source / name, path)
    copy_vocab_txt(source, target)
    complete(checkpoint, target, format)


def save_over(target: Path, tokenizer, folder: Path) -> None:
    """Writes a tokenizer into `folder`, whose files will move to `target`: it replaces what readers would find of a
    vocabulary that is there already.
    """
    for name in TRIMMABLE:
        if (target / name).is_file():
            shutil.copyfile(target / name, folder / name)
    tokenizer.save(folder)


def copy_vocab_txt(source: Path, target: Path) -> None:
    """Copies a vocab.txt of any name, in the form that all readers know: one token a line, and nothing else."""
    from bert4x.tokenizers import load_vocab, save_vocab
    from bert4x.tokenizers.folder import vocab_file

    file = vocab_file(source)
    if file is None:
        return
    text = file.read_bytes()
    if text.startswith(BOM) or MORE_THAN_A_TOKEN.search(text):
        save_vocab(target / "vocab.txt", without_gaps(load_vocab(file)))
    else:
        with atomic_write(target / "vocab.txt") as path:
            path.write_bytes(text)


def complete(checkpoint: Checkpoint, target: Path, format: str) -> None:
    """Adds what the format's readers look for and the source did not have."""
    tokenizer = copied_tokenizer(checkpoint, target)
    if tokenizer is None:
        return
    has = {path.name for path in target.iterdir()}
    is_wordpiece, is_bpe = isinstance(tokenizer, wordpiece_class()), hasattr(tokenizer, "eos_id")
    if is_wordpiece and ("vocab.txt" not in has or format == "tf1"):
        complete_vocab_txt(tokenizer, target)
    elif is_bpe and not has & {"vocab.json", "encoder.json"}:
        tokenizer._backend.model.save(str(target))
        for name, other in RENAMED_VOCABULARY.get(format, {}).items():
            if (target / name).exists():
                (target / name).rename(target / other)
    elif format == "tf1" and not is_wordpiece and not is_bpe and not any(name.endswith(".model") for name in has):
        warnings.warn(
            f"the vocabulary in {checkpoint.folder} is a tokenizer.json that no vocab.txt can stand for: bert4x and "
            "transformers read it, bert4keras and Google's code do not",
            stacklevel=4,
        )
    if format == "hf" and "tokenizer_config.json" not in has:
        tokenizer.save(target)


def complete_vocab_txt(tokenizer, target: Path) -> None:
    """Writes a vocab.txt with all tokens, added ones as well, and the files that tell which are added."""
    from bert4x.tokenizers import load_vocab

    file = target / "vocab.txt"
    held = load_vocab(file) if file.is_file() else {}
    if tokenizer.token_dict.items() <= held.items():
        return
    described = target / "tokenizer_config.json"
    said = read_config_file(described) if described.is_file() else {}
    tokenizer.save(target)
    write_json(described, said | read_config_file(described))


def copied_tokenizer(checkpoint: Checkpoint, target: Path):
    """The tokenizer of the files that were copied; None where there are none, or none that bert4x can use."""
    from bert4x.tokenizers import load_tokenizer

    config = checkpoint.config
    with contextlib.suppress(TokenizerError), warnings.catch_warnings():  # it need not be one that bert4x can use
        warnings.simplefilter("ignore")
        return load_tokenizer(target, config.extra | {"model_type": config.model})
    return None


def wordpiece_class() -> type:
    """The class of WordPiece tokenizers; imported here, as converting may need none."""
    from bert4x.tokenizers import Tokenizer

    return Tokenizer


def without_gaps(token_dict: dict[str, int]) -> dict[str, int]:
    """The same tokens, and one that no text contains for every id without one."""
    free = sorted(set(range(max(token_dict.values()))) - set(token_dict.values()))
    return token_dict | {f"[unused-{number}]": number for number in free}


def trim_vocabulary(source: Path, target: Path, names: list[str], keep: np.ndarray) -> None:
    """Writes the kept tokens in their new order as a vocab.txt, and the settings beside it with the new ids.

    Raises: TokenizerError for a vocabulary that cannot be read, ConversionError for ids it does not have and for one
        that is no vocab.txt and cannot be written as one.
    """
    from bert4x.tokenizers import load_tokenizer, load_vocab, save_vocab
    from bert4x.tokenizers.folder import vocab_file

    file, added = vocab_file(source), {}
    if file is None and not names:
        return
    tokenizer = None
    if file is None or "added_tokens.json" in names:
        with contextlib.suppress(TokenizerError):
            tokenizer = load_tokenizer(source)
    untrimmable = [name for name in names if name not in TRIMMABLE]
    if untrimmable or (file is None and not isinstance(tokenizer, wordpiece_class())):
        raise ConversionError(f"only a vocab.txt can be trimmed; found {', '.join(names)}")
    described = read_config_file(source / "tokenizer_config.json") if "tokenizer_config.json" in names else {}
    for number, entry in (described.get("added_tokens_decoder") or {}).items():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and str(number).isdigit():
            added[int(number)] = entry
    known = load_vocab(file) if file is not None else {}
    known = known | (tokenizer.token_dict if tokenizer is not None else {})
    tokens = {number: token for token, number in known.items()} | {n: entry["content"] for n, entry in added.items()}
    absent = [int(i) for i in keep if i not in tokens]
    if absent or len(set(keep.tolist())) < len(keep):
        wrong = f"ids {absent[:5]}, but {file or source} has {len(tokens)} tokens" if absent else "an id twice"
        raise ConversionError(f"keep_tokens lists {wrong}")
    new = {int(old): number for number, old in enumerate(keep.tolist())}
    save_vocab(target / "vocab.txt", {tokens[old]: number for old, number in new.items()})
    if tokenizer is not None:
        from bert4x.tokenizers.settings import described as described_token

        flags = {tokenizer.token_dict[one.content]: one for one in tokenizer.added_tokens.values()}
        added = {number: described_token(one) for number, one in flags.items()} | added
    if described or added:
        if added:
            described["added_tokens_decoder"] = {str(new[old]): added[old] for old in added if old in new}
        write_json(target / "tokenizer_config.json", described)
    if "special_tokens_map.json" in names:
        with atomic_write(target / "special_tokens_map.json") as path:
            shutil.copyfile(source / "special_tokens_map.json", path)
