"""What the families say about checkpoints, for one config or one format."""

import re
from collections.abc import Iterator, Sequence

from bert4x.checkpoints.config_spelling import remembered
from bert4x.checkpoints.spec import Rule, Table
from bert4x.config import ConfigStyle, TransformerConfig, from_json
from bert4x.errors import ConversionError
from bert4x.families import families, family_of

OWN_FORMATS = ("bert4x", "keras")  # keyed by variable path, config spelled as here
FORMATS = ("hf", "tf1", "megatron", "uer", "gguf", *OWN_FORMATS)  # that are written

# The letters of a variable's shape; a family may have more (`sizes`).
SIZES = {
    "V": lambda c: c.vocab_size,
    "E": lambda c: c.embedding_size,
    "H": lambda c: c.hidden_size,
    "I": lambda c: c.intermediate_size,
    "S": lambda c: c.segment_vocab_size,
    "P": lambda c: c.max_position,
    "Q": lambda c: c.num_attention_heads * c.attention_key_size,
    "A": lambda c: c.num_attention_heads * c.attention_head_size,
    "1": lambda c: 1,
    "2": lambda c: 2,
}

OWN_NAMES = r"(Encoder-|Decoder-)?Transformer-|Embedding-"  # of layers that only models have, not their heads


def published() -> tuple[Table, ...]:
    """The tables of all families, those of users among them."""
    return tuple(table for family in families().values() for table in family.tables)


def variables(config: TransformerConfig) -> dict[str, tuple[tuple[int, ...], str | None]]:
    """Path -> (shape, head or None) of all variables a model of this config can have, in order, without building it.

    Raises: UnknownArchitectureError
    """
    family, found = family_of(config.model), {}
    sizes, config = SIZES | family.sizes, config.as_class(family.config_class)
    absent = [pattern for pattern, is_absent in family.absent.items() if is_absent(config)]
    depths = {"Encoder-": config.num_hidden_layers, "Decoder-": config.decoder_layers}
    for prefix, rows in blocks(family.variables):
        for i in range(depths.get(prefix[: len("Encoder-")], config.num_hidden_layers) if prefix else 1):
            for path, shape, head in rows:
                path = path.replace("{i}", str(i))
                if not any(re.match(pattern, path) for pattern in absent):
                    size = tuple(sizes[letter](config) for letter in shape)
                    found.setdefault(path, (size, family.head_of(path, head, config)))
    return found


def blocks(rows: Sequence[tuple]) -> Iterator[tuple[str, Sequence[tuple]]]:
    """What stands before the number, and the rows of one block; "" and a row for one that is in none. A row without a
    number amid those of a block stands where it is in the first of them.
    """
    prefixes = [path.partition("{i}")[0] if "{i}" in path else "" for path, *_ in rows]
    last, start = {prefix: place for place, prefix in enumerate(prefixes)}, 0
    while start < len(rows):
        stop = 1 + (last[prefixes[start]] if prefixes[start] else start)
        yield prefixes[start], rows[start:stop]
        start = stop


def most_layers(config: TransformerConfig) -> int:
    """How many layers the deepest part of a model has."""
    return max(config.num_hidden_layers, config.decoder_layers)


def own_table(format: str, config: TransformerConfig) -> Table:
    """The table of a format that is keyed by our variable paths."""
    rules = tuple(Rule(path, path) for path in variables(config))
    return Table(format, config.model, rules, backbone=OWN_NAMES, ignored=family_of(config.model).computed)


def table_for(format: str, config: TransformerConfig) -> Table:
    """The table by which a config's checkpoints are written in a format.

    Raises: ConversionError when that family was never published in that format.
    """
    if format in OWN_FORMATS:
        return own_table(format, config)
    if format in FORMATS and (table := fitting(format, config)):
        return table
    family = writer(config.model)
    possible = sorted({table.format for table in family.tables} & set(FORMATS)) + list(OWN_FORMATS)
    name = family.model_name
    raise ConversionError(f"there is no {format} layout of {name}; it can be written as {', '.join(possible)}")


def fitting(format: str, config: TransformerConfig) -> Table | None:
    """The table of a format, of those that a config's family has, that is for such a config."""
    tables = (table for table in writer(config.model).tables if table.format == format)
    return next((table for table in tables if table.fits is None or table.fits(config)), None)


def style_for(format: str, model: str) -> ConfigStyle:
    """How the config file of a model is spelled in a format."""
    if format in OWN_FORMATS:
        names = family_of(model).config_class.names()
        return ConfigStyle("gelu_erf", {name: (name,) for name in names}, labels={"library": "bert4x"})
    return writer(model).styles.get(format, ConfigStyle("gelu_erf"))


def writer(model: str):
    """The family in whose layouts a model is published."""
    family = family_of(model)
    return family_of(family.written_as) if family.written_as else family


def config_from(data: dict, model: str, format: str) -> TransformerConfig:
    """The config of a family that a config file of a format means.

    Raises: ConfigError, UnknownArchitectureError.
    """
    style = style_for(format, model)
    config = from_json(data, model, style, family_of(model).config_class)
    return remembered(config, data, style) if format == "hf" else config


def config_names(format: str | None = None) -> tuple[str, ...]:
    """Names of config files, those of families in a format (or all) first."""
    found = (name for cls in families().values() for of, name in cls.config_files.items() if format in (None, of))
    return tuple(dict.fromkeys(found))


def written_keys(format: str, model_type: str) -> set[str]:
    """All keys by which config files of a format, for models that they call so, say something that is read."""
    found = set()
    for cls in families().values():
        style = cls.styles.get(format)
        if style is not None and style.labels.get("model_type") == model_type:
            found |= {key for field in cls.config_class.spelled() for key in style.spellings(field) if "." in key}
            found |= style.composed.keys()
    return found


def spelled_keys(field: str) -> set[str]:
    """All keys under which config files of any family say a field."""
    return {key for cls in families().values() for style in cls.styles.values() for key in style.spellings(field)}
