"""The vocabulary of a converted checkpoint: under the names, and in the form, that the target's readers look for."""

import contextlib
import shutil
from pathlib import Path

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.tensors import atomic_write
from bert4x.checkpoints.write import write_json
from bert4x.config import read_config_file
from bert4x.errors import ConversionError, TokenizerError

VOCABULARY_FILES = (
    *("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe"),
)
RENAMED_VOCABULARY = {
    "hf": {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"},
    "tf1": {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"},
}
TRIMMABLE = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def copy_vocabulary(checkpoint: Checkpoint, target: Path, format: str, keep: np.ndarray | None) -> None:
    """Copies the vocabulary files under the names the format's readers look for, trimmed to the kept ids.

    Raises: ConversionError when a vocabulary that is no vocab.txt should be trimmed.
    """
    renamed = RENAMED_VOCABULARY.get(format, {})
    names = [name for name in VOCABULARY_FILES if (checkpoint.folder / name).is_file()]
    pieces = sorted(path.name for path in checkpoint.folder.glob("*.model") if path.name not in names)
    if format == "hf" and len(pieces) == 1:
        renamed = renamed | {pieces[0]: "spiece.model"}
    if keep is not None:
        if any(name not in TRIMMABLE for name in names) or pieces:
            raise ConversionError(f"only a vocab.txt can be trimmed; found {', '.join([*names, *pieces])}")
        names = [name for name in names if name != "tokenizer.json"]  # holds the whole vocabulary; vocab.txt suffices
    for name in [*names, *pieces]:
        if keep is not None and name == "vocab.txt":
            trim_vocabulary(checkpoint.folder / name, target / name, keep)
        elif keep is not None and name == "tokenizer_config.json":  # its ids are those of the whole vocabulary
            data = read_config_file(checkpoint.folder / name)
            write_json(target / name, {key: data[key] for key in data if key != "added_tokens_decoder"})
        else:
            with atomic_write(target / renamed.get(name, name)) as path:
                shutil.copyfile(checkpoint.folder / name, path)
    if format == "hf" and not (target / "tokenizer_config.json").exists():
        write_tokenizer_config(target)


def trim_vocabulary(source: Path, target: Path, keep: np.ndarray) -> None:
    """Writes the kept tokens of a vocab.txt in their new order.

    Raises: TokenizerError for a vocabulary that cannot be read, ConversionError for ids it does not have.
    """
    from bert4x.tokenizers import load_vocab, save_vocab

    tokens = {i: token for token, i in load_vocab(source).items()}
    absent = [int(i) for i in keep if i not in tokens]
    if absent or len(set(keep.tolist())) < len(keep):
        wrong = f"ids {absent[:5]}, but {source} has {len(tokens)} tokens" if absent else "an id twice"
        raise ConversionError(f"keep_tokens lists {wrong}")
    save_vocab(target, {tokens[i]: new for new, i in enumerate(keep.tolist())})


def write_tokenizer_config(folder: Path) -> None:
    """Says to `transformers` which tokenizer the vocabulary is for, where the original release did not."""
    from bert4x.tokenizers import load_tokenizer

    with contextlib.suppress(TokenizerError):  # it was copied as it is; it need not be one that bert4x can use
        tokenizer = load_tokenizer(folder)
        if tokenizer is not None:
            tokenizer.save(folder)
