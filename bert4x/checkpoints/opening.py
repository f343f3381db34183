"""Opening a checkpoint, from its path to a `Checkpoint`, of which nothing but names, shapes and the config is read."""

import os
import re

from bert4x.checkpoints import keras_names
from bert4x.checkpoints.adapters import merged
from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.classes import with_classes
from bert4x.checkpoints.config_file import Said, missing_config, naming_config, read_config
from bert4x.checkpoints.files import Files, locate
from bert4x.checkpoints.padding import without_padding
from bert4x.checkpoints.recognition import is_misnamed, of_one_rank, own_family, recognise
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.tables import config_from, own_table, style_for, variables, writer
from bert4x.checkpoints.tensors import LazyTensor, Tensors
from bert4x.checkpoints.wrappers import unwrapped
from bert4x.config import TransformerConfig
from bert4x.errors import UnknownFormatError
from bert4x.families import family_of
from bert4x.json_files import ABSENT, looked_up, put

# Fields of the config -> the layer that has a row for each.
MEASURED = {"vocab_size": "Embedding-Token", "max_position": "Embedding-Position"}


def open_checkpoint(path: str | os.PathLike, config=None, model=None) -> Checkpoint:
    """Opens a checkpoint in any published layout; nothing but names, shapes and the config is read.

    Args:
        config: a path, a dict spelled as in such files, or a `TransformerConfig`; by default the file beside the
            weights.
        model: the family, for names that several have where the config says none.

    Raises: CheckpointNotFoundError, UnknownFormatError, CorruptFileError, UnsafeFileError, ConfigError.
    """
    files = locate(path)
    ending = None
    if files.container == "peft":
        files, tensors, ending = merged(files)
    else:
        files, tensors = of_one_rank(files, files.read())
    if not tensors:
        raise UnknownFormatError(f"{files.path} holds no tensors")
    place, said = read_config(files, config)
    said = said if ending is None else with_class(said, ending)
    with naming_config(place):
        if keras_names.are_ours(tensors):
            return with_our_names(files, tensors, said, model)
        table = recognise(files, tensors, said, model)
        names = with_embeddings(table, unwrapped(table, tensors, files.path), said)
        held = held_layers(table, {table.canonical_name(names[name]): tensors[name] for name in tensors})
        config = published_config(files, table, tensors, said, held)
        if said is not config:
            config = family_of(table.family).config_by_tensors(config, table, held)
        if table.format == "megatron-lm":
            table, tensors = without_padding(table, tensors, config.vocab_size)
        checkpoint = Checkpoint(files, table, config, tensors, names, classes_of(said))
        checkpoint.config = with_classes(checkpoint)
        return checkpoint


def with_embeddings(table: Table, names: dict[str, str], said: Said) -> dict[str, str]:
    """The names of a file's tensors, with that of the embedding table for its copy, the output layer, where a file has
    only this one: safetensors' `save_model` keeps whichever name of the two comes first in the alphabet.
    """
    known = {table.canonical_name(theirs): name for name, theirs in names.items()}
    token = next(entry.theirs for entry in table.entries(1) if entry.ours == ("Embedding-Token/embeddings",))
    copy = next((known[name] for name in table.tied if name in known), None)
    tied = getattr(family_of(table.family).config_class, "tie_word_embeddings", True)  # where the file is silent
    tied = said.get("tie_word_embeddings", tied) if isinstance(said, dict) else tied
    return names | {copy: token} if copy is not None and token not in known and tied else names


def held_layers(table: Table, tensors: Tensors) -> dict[str, LazyTensor]:
    """Our layers, of blocks those of the first, of which a tensor is among these, and the first such tensor."""
    held: dict[str, LazyTensor] = {}
    for entry in table.entries(1):
        if entry.theirs in tensors:
            held.setdefault(entry.ours[0].partition("/")[0], tensors[entry.theirs])
    return held


def with_our_names(files: Files, tensors: Tensors, said: Said, model=None) -> Checkpoint:
    """The checkpoint of weights keyed by our variable paths, or by Keras' numbers of our layers.

    Raises: ConfigError, UnknownFormatError.
    """
    if said is None:
        raise missing_config(files)
    if isinstance(said, TransformerConfig):
        config = said
    elif said.get("library") == "bert4x":
        config = config_from(said, str(said.get("model"))[:80], "bert4x")
    else:  # a published one, where only the weights were saved
        family = own_family(files, keras_names.words(tensors), said, model)
        styles = writer(family).styles
        format = "hf" if "model_type" in said else "tf1"
        config = config_from(said, family, format if format in styles else next(iter(styles)))
        held = dict.fromkeys(keras_names.words(tensors))
        config = family_of(family).config_by_tensors(config, None, held)
    if files.container not in ("hdf5", "tf1"):
        return Checkpoint(files, own_table("bert4x", config), config, tensors)
    tensors = keras_names.by_paths(tensors, variables(config), files.path)
    return Checkpoint(files, own_table("keras", config), config, tensors)


def published_config(
    files: Files, table: Table, tensors: Tensors, said: Said, held: dict[str, LazyTensor]
) -> TransformerConfig:
    """The config of a family's published checkpoint. `held` are our layers that are there, and of each a tensor.

    Raises: ConfigError, UnknownArchitectureError.
    """
    if isinstance(said, TransformerConfig):
        return said
    family = family_of(table.family)
    said = family.config_without_file(tensors) if said is None else said
    if said is None:
        raise missing_config(files)
    if is_misnamed(table, tensors, said):
        said = {key: value for key, value in said.items() if key != "model_type"}
    style = style_for(table.format, table.family)
    said = dict(said)
    for field in style.measured:
        if MEASURED[field] in held and all(looked_up(said, key) is ABSENT for key in style.spellings(field)):
            put(said, style.spellings(field)[0], held[MEASURED[field]].shape[0])
    return config_from(said, table.family, table.format)


def with_class(said: Said, ending: str) -> Said:
    """What a config says, with a class that ends so in place of its own: adapters bring the head of a task."""
    named = classes_of(said)
    match = re.fullmatch(r"(\w+?)(For\w+|Model|LMHeadModel)", named[0]) if named else None
    return said | {"architectures": [match[1] + ending]} if match else said


def classes_of(said: Said) -> tuple[str, ...]:
    """The classes of transformers that a config file names; none where it says something else."""
    named = said.get("architectures") if isinstance(said, dict) else None
    return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()
