"""Opening a checkpoint: which format, which family, and what its config file means."""

import functools
import re
import warnings
from pathlib import Path

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.files import Files, locate
from bert4x.checkpoints.spec import NUMBER, Table
from bert4x.checkpoints.tables import OWN_STYLE, PUBLISHED, own_table, style_for
from bert4x.checkpoints.tables.gpt2 import CPM_LM
from bert4x.checkpoints.tensors import Tensors
from bert4x.config import TransformerConfig, from_json, read_config_file
from bert4x.errors import ConfigError, TokenizerError, UnknownFormatError

CONFIG_NAMES = ("config.json", "bert_config.json", "albert_config.json", "hparams.json", "model_config.json")


def open_checkpoint(source, config=None) -> Checkpoint:
    """Opens a checkpoint in any published layout; nothing but names, shapes and the config is read.

    `config` is a path, a dict spelled as in such files, or a `TransformerConfig`; by default the file beside the
    weights.

    Raises: CheckpointNotFoundError, UnknownFormatError, CorruptFileError, UnsafeFileError, ConfigError.
    """
    files = locate(source)
    tensors = files.read()
    if not tensors:
        raise UnknownFormatError(f"{files.path} holds no tensors")
    given = isinstance(config, dict | TransformerConfig)
    data = config if given else read_config(files.folder, config)
    if "Embedding-Token/embeddings" in tensors:  # keyed by our variable paths
        own = data if isinstance(data, TransformerConfig) else own_config(data, files, tensors)
        table = own_table("keras" if files.container == "hdf5" else "bert4x", own)
        return Checkpoint(files, table, own, tensors)
    table = detect(files, tensors)
    if isinstance(data, TransformerConfig):
        return Checkpoint(files, table, data, tensors)
    data = guess_config(files, table, tensors) if data is None else data
    return Checkpoint(files, table, from_json(data, table.family, style_for(table.format, table.family)), tensors)


def own_config(data: dict | None, files: Files, tensors: Tensors) -> TransformerConfig:
    """The config beside weights keyed by our paths: ours, or a published one when only the weights were saved.

    Raises: ConfigError
    """
    if data is None:
        raise ConfigError(
            f"no config file beside the weights in {files.folder}; expected one of {', '.join(CONFIG_NAMES)}"
        )
    if data.get("library") == "bert4x":
        return from_json(data, str(data.get("model")), OWN_STYLE)
    shared = any(name.startswith("Transformer-MultiHeadSelfAttention") for name in tensors)
    family = "albert" if shared else "gpt2" if "Output-Norm/gamma" in tensors else "bert"
    family = "albert_unshared" if data.get("model_type") == "albert" and not shared else family
    return from_json(data, family, style_for("hf" if "model_type" in data else "tf1", family))


def detect(files: Files, tensors: Tensors) -> Table:
    """The table that knows most of the names.

    Raises: UnknownFormatError when none knows enough of them, or when a known but different model is recognised.
    """
    formats = {"safetensors": "hf", "torch": "hf", "tf1": "tf1", "megatron": "megatron"}
    tables = [table for table in PUBLISHED if table.format == formats.get(files.container)]
    for table in tables:
        for pattern, reason in table.foreign:
            if any(re.search(pattern, name) for name in tensors):
                raise UnknownFormatError(f"{files.path}: {reason}")
    scores = {table: sum(known_name(table, name) for name in tensors) for table in tables}
    best = max(scores, key=scores.get, default=None)
    if best is None or scores[best] < 3:
        raise UnknownFormatError(
            f"{files.path}: no family known here has tensors of these names: {', '.join(list(tensors)[:6])} ..."
        )
    return best


def known_name(table: Table, name: str) -> bool:
    """Whether a table has a rule for a tensor, in any layer."""
    name = name.split("/", 1)[1] if table.sharded else name
    name = table.canonical_name(name)
    return name_pattern(table).fullmatch(name) is not None


@functools.cache
def name_pattern(table: Table) -> re.Pattern:
    """All tensor names of a table as one pattern."""

    def pattern(part: str) -> str:
        if not part.startswith("{"):
            return re.escape(part)
        return r"\d+" if NUMBER.fullmatch(part) else "(?:" + "|".join(map(re.escape, part[1:-1].split(","))) + ")"

    names = ("".join(map(pattern, re.split(r"(\{[^}]*\})", rule.theirs))) for rule in table.rules)
    return re.compile("|".join(names))


def read_config(folder: Path, path=None) -> dict | None:
    """The config file beside the weights (or at `path`), or None.

    Raises: ConfigError if `path` does not exist or several could be meant, CorruptFileError if it is no JSON object.
    """
    if path is not None:
        return read_config_file(path)
    places = [folder, folder.parent] if folder.name.isdigit() else [folder]
    for place in places:
        for name in CONFIG_NAMES:
            if (place / name).is_file():
                return read_config_file(place / name)
        others = sorted(
            p for p in place.glob("*config*.json") if "tokenizer" not in p.name and "generation" not in p.name
        )
        if len(others) > 1:
            raise ConfigError(f"several config files in {place}: {', '.join(p.name for p in others)}; pass one of them")
        if others:
            return read_config_file(others[0])
    return None


def guess_config(files: Files, table: Table, tensors: Tensors) -> dict:
    """The config of a checkpoint that is published without one.

    Raises: ConfigError for any but CPM-LM: the number of heads cannot be seen from the weights.
    """
    norm = tensors.get("0/transformer.final_layernorm.weight") if table.format == "megatron" else None
    if norm is not None and norm.shape == (CPM_LM["hidden_size"],):
        return CPM_LM
    raise ConfigError(
        f"no config file beside the weights in {files.folder}; expected one of {', '.join(CONFIG_NAMES)}. "
        "Put the published one there, or pass it as config_path"
    )


def find_tokenizer(checkpoint: Checkpoint):
    """The tokenizer whose vocabulary lies beside the weights, or None."""
    from bert4x.tokenizers import load_tokenizer

    try:
        return load_tokenizer(checkpoint.folder, checkpoint.config.extra)
    except TokenizerError as error:
        warnings.warn(f"the vocabulary in {checkpoint.folder} cannot be used: {error}", stacklevel=3)
        return None
