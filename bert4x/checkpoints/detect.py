"""Opening a checkpoint: which format, which family, and what its config file means."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bert4x.checkpoints import keras_names
from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.files import Files, locate, places
from bert4x.checkpoints.others import ALTERED, HOLLOW, OBJECTS, OTHERS
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.tables import OWN_STYLE, own_table, published, style_for, variables
from bert4x.checkpoints.tensors import Tensors
from bert4x.checkpoints.wrappers import known_names, unwrapped
from bert4x.config import TransformerConfig, from_json, read_config_file
from bert4x.errors import (
    CheckpointNotFoundError,
    ConfigError,
    CorruptFileError,
    TokenizerError,
    UnknownFormatError,
)
from bert4x.families import families
from bert4x.families.gpt2 import CPM_LM

CONFIG_NAMES = ("config.json", "bert_config.json", "albert_config.json", "hparams.json", "model_config.json")
TENSORFLOW_NAMES = ("bert_config.json", "albert_config.json", "hparams.json")  # before another's config.json
MODEL_KEYS = ({"hidden_size", "n_embd"}, {"num_hidden_layers", "n_layer"})  # one of each is in the config of a model
# model_type of config files that name a BERT after the recipe of its training: CLUE's RoBERTa. The original's own
# tensors are never under "bert.".
MISNAMED = ("roberta", "xlm-roberta")


def open_checkpoint(source, config=None) -> Checkpoint:
    """Opens a checkpoint in any published layout; nothing but names, shapes and the config is read.

    `config` is a path, a dict spelled as in such files, or a `TransformerConfig`; by default the file beside the
    weights.

    Raises: CheckpointNotFoundError, UnknownFormatError, CorruptFileError, UnsafeFileError, ConfigError.
    """
    files = locate(source)
    files, tensors = of_one_rank(files, files.read())
    if not tensors:
        raise UnknownFormatError(f"{files.path} holds no tensors")
    given = isinstance(config, dict | TransformerConfig)
    place = None if given else find_config(files, config)
    data = config if given else place and read_config_file(place)
    with naming_config(place):
        return described_by(data, files, tensors)


@contextlib.contextmanager
def naming_config(place: Path | None) -> Iterator[None]:
    """Puts the path of the config file before the message of an error about what it says."""
    try:
        yield
    except ConfigError as error:
        if place is None or place.name in str(error):
            raise
        raise type(error)(f"{place}: {error}") from error


def described_by(data: dict | TransformerConfig | None, files: Files, tensors: Tensors) -> Checkpoint:
    """The checkpoint that tensors and a config make.

    Raises: UnknownFormatError, ConfigError.
    """
    if "Embedding-Token" in keras_names.words(tensors):  # the layers are ours
        own = data if isinstance(data, TransformerConfig) else own_config(data, files, tensors)
        if files.container in ("hdf5", "tf1"):
            tensors = keras_names.by_paths(tensors, variables(own), files.path)
            return Checkpoint(files, own_table("keras", own), own, tensors)
        return Checkpoint(files, own_table("bert4x", own), own, tensors)
    table = detect(files, tensors, data)
    names = unwrapped(table, tensors, files.path)
    if isinstance(data, TransformerConfig):
        return Checkpoint(files, table, data, tensors, names)
    data = guess_config(files, table, tensors) if data is None else data
    if data.get("model_type") in MISNAMED and any(".bert." in f".{name}" for name in tensors):
        data = data | {"model_type": "bert"}
    config = from_json(data, table.family, style_for(table.format, table.family))
    return Checkpoint(files, table, config, tensors, names, architectures_of(data))


def of_one_rank(files: Files, tensors: Tensors) -> tuple[Files, Tensors]:
    """What DeepSpeed (ZeRO 1 and 2) saved of a Hugging Face model: its one rank, by the model's own names."""
    if files.container != "megatron" or not all(name.startswith("0/") for name in tensors):
        return files, tensors
    plain = {name[2:]: replace(tensor, name=name[2:]) for name, tensor in tensors.items()}
    scores = {table: known_names(table, plain if table.format == "hf" else tensors) for table in published()}
    best = max((table for table in scores if table.format in ("hf", "megatron")), key=scores.get)
    return (replace(files, container="torch"), plain) if best.format == "hf" else (files, tensors)


def architectures_of(data: dict) -> tuple[str, ...]:
    """The classes of transformers that a config file names; none where it says something else."""
    named = data.get("architectures")
    return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()


def own_config(data: dict | None, files: Files, tensors: Tensors) -> TransformerConfig:
    """The config beside weights keyed by our paths: ours, or a published one when only the weights were saved.

    Raises: ConfigError
    """
    if data is None:
        raise ConfigError(
            f"no config file beside the weights in {files.folder}; expected one of {', '.join(CONFIG_NAMES)}"
        )
    if data.get("library") == "bert4x":
        return from_json(data, str(data.get("model"))[:80], OWN_STYLE)
    layers = keras_names.words(tensors)
    shared = "Transformer-MultiHeadSelfAttention" in layers
    family = "albert" if shared else "gpt2" if "Output-Norm" in layers else "bert"
    family = "albert_unshared" if data.get("model_type") == "albert" and not shared else family
    return from_json(data, family, style_for("hf" if "model_type" in data else "tf1", family))


def detect(files: Files, tensors: Tensors, config: dict | TransformerConfig | None = None) -> Table:
    """The table that knows most of the names.

    Raises: UnknownFormatError when none knows enough of them, or when a known but different model is recognised.
    """
    formats = {"safetensors": "hf", "torch": "hf", "tf1": "tf1", "megatron": "megatron"}
    tables = [table for table in published() if table.format == formats.get(files.container)]
    objects = [name for name in tensors if " at " in name] if files.container == "tf1" else []
    if objects:
        raise UnknownFormatError(f"{files.path}: {OBJECTS.format(', '.join(objects[:6]))}")
    for pattern, reason in ALTERED:
        if any(re.search(pattern, name) for name in tensors):
            raise UnknownFormatError(f"{files.path}: {reason}")
    for table in tables:
        for pattern, reason in table.foreign:
            if any(re.search(pattern, name) for name in tensors):
                raise UnknownFormatError(f"{files.path}: {reason}")
    scores = {table: known_names(table, tensors) for table in tables}
    best = max(scores, key=scores.get, default=None)
    if best is None or scores[best] < 3:
        reason = next((reason for pattern, reason in OTHERS if any(re.search(pattern, name) for name in tensors)), "")
        model_type = config.get("model_type") if isinstance(config, dict) else None
        reason = reason or (f"the config says model_type = {model_type!r}" if model_type else "")
        raise UnknownFormatError(
            f"{files.path}: no family known here ({', '.join(sorted(families()))}) has tensors of these names: "
            f"{', '.join(list(tensors)[:6])} ...{reason and ' '}{reason}"
        )
    if best.format == "hf" and any(tensor.shape == (0,) for tensor in tensors.values()):
        raise UnknownFormatError(f"{files.path}: {HOLLOW}")
    return best


def find_config(files: Files, path=None) -> Path | None:
    """The config file beside the weights (or `path`), or None. One that is of something else is passed over.

    Raises: ConfigError if several could be meant.
    """
    if path is not None:
        return Path(path).expanduser()
    for place in places(files.folder):
        names = (*TENSORFLOW_NAMES, *CONFIG_NAMES) if files.container == "tf1" else CONFIG_NAMES
        named = [place / name for name in dict.fromkeys(names) if (place / name).is_file()]
        others = sorted(p for p in place.glob("*config*.json") if p not in named and p.is_file())
        of_models = [p for p in others if is_of_a_model(p)]
        if not any(map(is_of_a_model, named)) and len(of_models) > 1:
            names = ", ".join(p.name for p in of_models)
            raise ConfigError(f"several config files in {place}: {names}; pass one of them")
        found = [*filter(is_of_a_model, named), *of_models, *named]
        if found:
            return found[0]
    return None


def is_of_a_model(path: Path) -> bool:
    """Whether a config file describes a model, rather than a tokenizer, a pipeline or a run."""
    try:
        data = read_config_file(path)
    except (CorruptFileError, CheckpointNotFoundError):
        return False
    return all(keys & data.keys() for keys in MODEL_KEYS)


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
        config = checkpoint.config
        return load_tokenizer(checkpoint.folder, config.extra | {"model_type": config.model})
    except TokenizerError as error:
        warnings.warn(f"the vocabulary in {checkpoint.folder} cannot be used: {error}", stacklevel=3)
        return None


def with_pad_id(checkpoint: Checkpoint, tokenizer, given: bool = False) -> TransformerConfig:
    """The config with the padding id of the vocabulary, which knows better than config files do.

    Without one, a config file that says another id than 0 may be right (multilingual-e5's) or wrong (RoBERTa-wwm's):
    that gives a warning, unless the caller has been `given` the id.
    """
    config, pad = checkpoint.config, getattr(tokenizer, "pad_id", None)
    if config.model == "gpt2":
        return config
    said = config.extra.get("pad_token_id")
    if pad is None and said not in (None, config.pad_token_id) and not given:
        warnings.warn(
            f"the config in {checkpoint.folder} says pad_token_id = {said}, and no vocabulary is there to confirm it: "
            f"id {config.pad_token_id} counts as padding, {said} does not. Some published configs are right and some "
            f"are wrong; say which with pad_token_id={said} or pad_token_id={config.pad_token_id}, or put the "
            "vocabulary beside the weights",
            stacklevel=4,
        )
    return config if pad is None else config.replace(pad_token_id=pad)
