"""The one description of a model, and how each published config file spells it."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bert4x.activation_names import UNLIKE_KERAS, read_activation, write_activation
from bert4x.errors import (
    ConfigError,
    ConversionError,
    UnknownArchitectureError,
    UnknownOptionError,
    nearest,
)
from bert4x.json_files import ABSENT, looked_up, put, read_json, shown, without

LARGEST = 2**31 - 1


@dataclass(frozen=True)
class TransformerConfig:
    """Everything that shapes a model, whatever the file it came from called it. A family may have fields of its own, in
    a subclass that is a dataclass, too (frozen, kw_only).

    Sizes left at None take the value the papers give them: the heads share the hidden size, embeddings have it, the
    feed-forward network is four times as wide.

    Raises: ConfigError when a value cannot be, UnknownOptionError (from `replace`) when a field does not exist.
    """

    model: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int | None = None
    attention_head_size: int | None = None
    attention_key_size: int | None = None
    embedding_size: int | None = None
    embedding_mapping: bool | None = None  # a dense layer from embedding to hidden size; default: if they differ
    max_position: int = 512
    segment_vocab_size: int = 2  # 0: no segment embedding
    hidden_act: str = "gelu_erf"
    layer_norm_eps: float = 1e-12
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int | None = None
    residual_attention_scores: bool = False
    hierarchical_position: bool | float = False
    num_decoder_layers: int | None = None  # of an encoder-decoder; default: as many as num_hidden_layers
    extra: dict[str, Any] = field(default_factory=dict)  # keys of the file that mean nothing to the model
    token_ids: ClassVar[tuple[str, ...]] = ("pad_token_id",)  # the fields that are ids of tokens
    nullable: ClassVar[tuple[str, ...]] = ("pad_token_id",)  # of which files say null for none; else null says nothing

    def __post_init__(self):
        for name in SIZES:
            optional = name in (*DERIVED, "num_decoder_layers")
            self.check_integer(name, 1, MAX_LAYERS if name.endswith("layers") else LARGEST, optional)
        for name in ("layer_norm_eps", "dropout_rate", "attention_dropout_rate", "initializer_range"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"config says {name} = {shown(value)}; expected a number from 0 to 1")
        for name in ("segment_vocab_size", *self.token_ids):
            self.check_integer(name, 0, optional=name in self.token_ids)
        for name, kind in ((f.name, f.type) for f in dataclasses.fields(self) if f.type in (bool, bool | None)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"config says {name} = {shown(getattr(self, name))}; expected true or false")
        alpha = self.hierarchical_position
        if not isinstance(alpha, bool) and not (isinstance(alpha, int | float) and 0 <= alpha < 1):
            raise ConfigError(
                f"config says hierarchical_position = {shown(alpha)}; expected true, or a number from 0 to 1"
            )
        if not isinstance(self.hidden_act, str):
            raise ConfigError(f"config says hidden_act = {shown(self.hidden_act)}; expected a name such as 'gelu'")
        if self.attention_head_size is None and self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}; "
                "correct the config or give attention_head_size"
            )
        for name, value_of in DERIVED.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value_of(self))

    def check_integer(self, name: str, least: int, most: int = LARGEST, optional: bool = False) -> None:
        """Raises: ConfigError for a field that is no integer between two, nor None if it is optional."""
        value = getattr(self, name)
        if not (optional and value is None) and (type(value) is not int or not least <= value <= most):
            numbers = "a positive integer up to" if least == 1 else f"an integer from {least} to"
            raise ConfigError(f"config says {name} = {shown(value)}; expected {numbers} {most}")

    def check_positive(self, *names: str) -> None:
        """Raises: ConfigError for a field that is no positive number."""
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST:
                raise ConfigError(f"config says {name} = {shown(value)}; expected a positive number")

    @property
    def segment_rows(self) -> int:
        """How many segment ids there are."""
        return self.segment_vocab_size

    @property
    def decoder_layers(self) -> int:
        """How many layers read what is decoded: those of the decoder, if there is one."""
        return self.num_decoder_layers or self.num_hidden_layers

    @property
    def builder(self) -> str:
        """The name of the class that builds it: the family's, or that of a subclass of a user's (`of_builder`)."""
        return self.extra.get(BUILDER) or self.model

    def of_builder(self, name: str) -> "TransformerConfig":
        """This config, which says which class of its family builds the model; files keep it."""
        others = {key: value for key, value in self.extra.items() if key != BUILDER}
        return self.replace(extra=others if name == self.model else others | {BUILDER: name})

    def replace(self, **changes) -> "TransformerConfig":
        """A copy with some fields changed.

        Raises: UnknownOptionError for a field that does not exist.
        """
        for name in changes:
            if name not in self.names():
                raise UnknownOptionError(f"no config field {name!r}; {nearest(name, self.names())}")
        return dataclasses.replace(self, **changes)

    def as_class(self, cls: type["TransformerConfig"]) -> "TransformerConfig":
        """This config with the fields of a family's own class, at their defaults where it lacks them."""
        if isinstance(self, cls):
            return self
        return cls(**{name: getattr(self, name) for name in self.names() if name in cls.names()})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(f.name for f in dataclasses.fields(cls))

    @classmethod
    def spelled(cls) -> tuple[str, ...]:
        """The names of those fields that config files spell."""
        return tuple(name for name in cls.names() if name not in ("model", "extra"))

    def to_dict(self) -> dict[str, Any]:
        """All fields, as plain JSON values."""
        return dataclasses.asdict(self)


DERIVED = {
    "intermediate_size": lambda c: 4 * c.hidden_size,
    "attention_head_size": lambda c: c.hidden_size // c.num_attention_heads,
    "attention_key_size": lambda c: c.attention_head_size,
    "embedding_size": lambda c: c.hidden_size,
    "embedding_mapping": lambda c: c.embedding_size != c.hidden_size,
}
SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position"),
    *("intermediate_size", "attention_head_size", "attention_key_size", "embedding_size", "num_decoder_layers"),
)
BUILDER = "bert4x_backbone"  # the key of files for a subclass of the user's
MAX_CONFIG_BYTES = 10_000_000
MAX_LAYERS = 4096  # far above any model; what a damaged config says must not keep us busy
# Keys that label the file rather than describe the model; each format writes its own.
LABELS = {"model_type", "architectures", "torch_dtype", "library", "model"}
REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class ConfigStyle:
    """How one kind of config file is read and written.

    `keys` lists the spellings of a field, the one to write first; a field that is not listed is spelled as here, and
    one that has none is neither read nor written. A dot leads into an object: "rope_parameters.rope_theta". `composed`
    is for keys that say several fields at once, such as "gated-gelu": how to read one (value -> fields), and how to
    write it (config -> value, None for no such key); those fields have no spellings.
    `gelu` is what the plain word "gelu" means there; the original code decides: everything that serves BERT computes
    erf (the published outputs of Google's Chinese BERT among them), Google's ALBERT and all GPT2 code compute tanh.
    """

    gelu: str
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)  # written always, ignored when read: model_type ...
    composed: dict[str, tuple[Callable, Callable]] = field(default_factory=dict)
    assumed: dict[str, Any] = field(default_factory=dict)  # what a key of `composed` means where a file lacks it
    required: dict[str, Any] = field(default_factory=dict)  # what such files can ask for, but we only do this way
    tanh: str = "gelu_new"  # the word for gelu by tanh, where the plain one means erf
    measured: tuple[str, ...] = ()  # fields that such files do not say: the rows of tables in the weights

    def spellings(self, name: str) -> tuple[str, ...]:
        """All keys under which a field may stand in such a file."""
        return self.keys.get(name, (name,))

    def of(self, model_type: str) -> "ConfigStyle":
        """This style for the files of another family, which say so."""
        return dataclasses.replace(self, labels={"model_type": model_type})


def from_json(
    data: dict[str, Any], model: str, style: ConfigStyle, cls: type[TransformerConfig] = TransformerConfig
) -> TransformerConfig:
    """The config, of a family's class, that a published JSON object means.

    Raises: ConfigError naming what is missing or cannot be, UnknownArchitectureError.
    """
    values = dict(style.defaults)
    for name in cls.spelled():
        for key in style.spellings(name):
            value = looked_up(data, key)
            if value not in (None, ABSENT) or (value is None and name in cls.nullable):
                values[name] = value
                break
    for key, (read, _) in style.composed.items():
        value = looked_up(data, key)
        if (value := style.assumed.get(key) if value in (None, ABSENT) else value) is not None:
            values |= read(value)
    if isinstance(act := values.get("hidden_act"), str):
        if act in UNLIKE_KERAS and "model_type" in data:
            raise ConfigError(f"config says {act}, which in PyTorch is another function than in Keras; not supported")
        values["hidden_act"] = read_activation(act, style)
    kind = style.labels.get("model_type")
    if kind and data.get("model_type", kind) != kind:
        raise UnknownArchitectureError(
            f"config says model_type = {shown(data['model_type'])}, but the tensors are named like those of {kind!r}; "
            "that is another architecture, which would give wrong outputs here"
        )
    if missing := ["/".join(style.spellings(name)) for name in REQUIRED if name not in values]:
        raise ConfigError(f"config lacks {', '.join(missing)}; found only {shown(sorted(data))}")
    for key, only in style.required.items():
        if data.get(key, only) != only:
            raise ConfigError(f"config says {key} = {shown(data[key])}; only {only!r} is supported here")
    known = {key for name in cls.spelled() for key in style.spellings(name)}.union(LABELS, style.composed, style.labels)
    known |= {"pad_token_id"} if data.get("pad_token_id") == values.get("pad_token_id") else set()  # nothing is lost
    return cls(model=model, **values, extra=without(data, known))


def to_json(config: TransformerConfig, style: ConfigStyle) -> dict[str, Any]:
    """The JSON object of a style: every field that differs from what its readers assume, and the extra keys.

    Raises: ConversionError when such files cannot say what this config does.
    """
    for key, only in style.required.items():
        if getattr(config, key, only) != only:
            raise ConversionError(f"this layout always has {key} = {only!r}; the model has {getattr(config, key)!r}")
    divided = config.hidden_size % config.num_attention_heads == 0  # else the size of a head must be given
    sizes = {} if divided else {"attention_head_size": config.attention_head_size + 1}
    required = (getattr(config, name) for name in REQUIRED)
    plain = type(config)(config.model, *required, **(style.defaults | sizes))
    data = config.extra | style.labels
    for name in config.spelled():
        value, spellings = getattr(config, name), style.spellings(name)
        if value is None and name not in config.nullable:
            continue
        usual = name in (*REQUIRED, *style.keys, "intermediate_size", "hidden_act", "initializer_range")
        follows = name in DERIVED and name not in style.defaults  # where readers find nothing, from other fields
        derived = follows and value == DERIVED[name](config)
        other = value != getattr(plain, name) or (follows and not derived)
        if spellings and (usual or other) and (not derived or name == "intermediate_size"):
            put(data, spellings[0], write_activation(value, style) if name == "hidden_act" else value)
    for key, (_, write) in style.composed.items():
        if (value := write(config)) is not None:
            put(data, key, value)
    for name in ("layer_norm_eps", "pad_token_id") if "model_type" in style.labels else ():  # transformers always says
        if style.spellings(name) in ((), (name,)) and getattr(config, name) is not None:
            data.setdefault(name, getattr(config, name))
    return data


def read_config_file(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON object of a config file.

    Raises: ConfigError when there is none, CorruptFileError when it is not one.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"found {path!r:.60} as the config; expected the path of a file, or a dict")
    if os.path.isfile(path := Path(path).expanduser()):
        return read_json(path, limit=MAX_CONFIG_BYTES)
    raise ConfigError(f"config file {path} does not exist")
