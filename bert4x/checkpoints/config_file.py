"""The config file of a checkpoint: where it lies, and which of several is the model's."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bert4x.checkpoints.files import Files, places
from bert4x.checkpoints.gguf_metadata import said_by
from bert4x.checkpoints.keras_graph import said_by_graph
from bert4x.checkpoints.tables import config_names, spelled_keys
from bert4x.config import TransformerConfig, read_config_file
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError

MODEL_FIELDS = ("hidden_size", "num_hidden_layers")  # each is in the config of a model, however it is spelled
DECODED = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id")  # keys about what is written
Said = dict | TransformerConfig | None  # what is known of a model beside its weights


def read_config(files: Files, given=None) -> tuple[Path | None, Said]:
    """The file of the config and what it says: that of a path, the one beside the weights, a GGUF itself, or a whole
    model of Keras 2. What is `given` as a dict or a config is taken as it is; (None, None) where there is none.

    Raises: ConfigError, CorruptFileError.
    """
    if isinstance(given, dict | TransformerConfig):
        return None, given
    if given is None and files.container == "gguf":
        return files.path, said_by(files.gguf[0], files.path)
    if given is not None and not isinstance(given, str | os.PathLike):
        raise ConfigError(f"found {given!r:.60} as the config; expected the path of a file, or a dict")
    place = find_config(files) if given is None else Path(given).expanduser()
    if place is None and files.container == "hdf5":
        said = said_by_graph(files.path)
        return (None if said is None else files.path), said
    return place, place and with_generation(place, read_model_config(place))


def with_generation(place: Path, said: dict) -> dict:
    """What the config file of an encoder-decoder says, but about the tokens that targets have in any case what the
    generation_config.json beside it says: transformers reads no other, where there is one.
    """
    file = place.parent / "generation_config.json"
    if not said.get("is_encoder_decoder") or not file.is_file():
        return said
    found = {key: value for key, value in read_config_file(file).items() if key in DECODED and value is not None}
    return {key: None if key.startswith("forced_") else value for key, value in said.items()} | found


def find_config(files: Files) -> Path | None:
    """The config file beside the weights, or None. One that is of something else is passed over.

    Raises: ConfigError if several could be meant.
    """
    for place in places(files.folder):
        of_family = config_names("tf1") if files.container == "tf1" else ()  # these come before another's config.json
        names = *of_family, *usual_names()
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
        data = read_model_config(path)
    except (CorruptFileError, CheckpointNotFoundError):
        return False
    return all(spelled_keys(field) & data.keys() for field in MODEL_FIELDS)


def read_model_config(path: Path) -> dict:
    """What a config file says of a model: PaddleNLP's may say it in the arguments of a class, or of one in these."""
    data = read_config_file(path)
    for _ in range(8):
        arguments = data.pop("init_args", None)
        if not isinstance(arguments, list | tuple):
            break
        inner = next((value for value in arguments if isinstance(value, dict)), {})
        data = inner | {key: value for key, value in data.items() if key not in inner}
    return data


def usual_names() -> tuple[str, ...]:
    """The names of config files, the most usual first."""
    return "config.json", *config_names(), "model_config.json"


def missing_config(files: Files) -> ConfigError:
    """The error of a checkpoint without a config: the number of heads cannot be seen from the weights."""
    return ConfigError(
        f"no config file beside the weights in {files.folder}; expected one of {', '.join(usual_names())}. "
        "Put the published one there, or pass it as config_path"
    )


@contextlib.contextmanager
def naming_config(place: Path | None) -> Iterator[None]:
    """Puts the path of the config file before the message of an error about what it says."""
    try:
        yield
    except ConfigError as error:
        if place is None or place.name in str(error):
            raise
        raise type(error)(f"{place}: {error}") from error
