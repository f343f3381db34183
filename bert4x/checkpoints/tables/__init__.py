"""The checkpoint families. One file each: its variables, a table for every published layout, its config spellings.

A new family is a file here with a tuple `FAMILIES`, and a model of that name in `bert4x.models`.
"""

import importlib
import itertools
import pkgutil

from bert4x.checkpoints.spec import Family, Rule, Table
from bert4x.config import FIELDS, ConfigStyle, TransformerConfig
from bert4x.errors import ConversionError, UnknownArchitectureError

FAMILIES: dict[str, Family] = {
    family.name: family
    for module in pkgutil.iter_modules(__path__)
    for family in importlib.import_module(f"{__name__}.{module.name}").FAMILIES
}
PUBLISHED: tuple[Table, ...] = tuple(table for family in FAMILIES.values() for table in family.tables)
OWN_FORMATS = ("bert4x", "keras")  # keyed by variable path, config spelled as here
FORMATS = ("hf", "tf1", "megatron", *OWN_FORMATS)
OWN_STYLE = ConfigStyle("gelu_erf", {name: (name,) for name in FIELDS}, labels={"library": "bert4x"})

# The letters of a variable's shape.
SIZES = {
    "V": lambda c: c.vocab_size,
    "E": lambda c: c.embedding_size,
    "H": lambda c: c.hidden_size,
    "I": lambda c: c.intermediate_size,
    "S": lambda c: c.segment_vocab_size,
    "P": lambda c: c.max_position,
    "Q": lambda c: c.num_attention_heads * c.attention_key_size,
    "A": lambda c: c.num_attention_heads * c.attention_head_size,
    "2": lambda c: 2,
}


def family_of(model: str) -> Family:
    """The family of a model's name.

    Raises: UnknownArchitectureError for a model whose checkpoints are not known here.
    """
    if model not in FAMILIES:
        raise UnknownArchitectureError(f"no checkpoints of family {model!r}; known: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[model]


def variables(config: TransformerConfig) -> dict[str, tuple[tuple[int, ...], str | None]]:
    """Path -> (shape, head or None) of all variables a model of this config can have, in order, without building it.

    Raises: UnknownArchitectureError
    """
    family, found = family_of(config.model), {}
    absent = {
        "Embedding-Segment": not config.segment_vocab_size,
        "Embedding-Mapping": not config.embedding_mapping,
    }
    depths = {"Encoder-": config.num_hidden_layers, "Decoder-": config.decoder_layers}
    layered = itertools.groupby(family.variables, key=lambda row: ("{i}" in row[0], row[0][: len("Encoder-")]))
    for (numbered, side), rows in layered:
        rows = list(rows)
        for i in range(depths.get(side, config.num_hidden_layers) if numbered else 1):
            for path, shape, head in rows:
                if not absent.get(path.split("/")[0]):
                    found[path.replace("{i}", str(i))] = tuple(SIZES[letter](config) for letter in shape), head
    return found


def own_table(format: str, config: TransformerConfig) -> Table:
    """The table of a format that is keyed by our variable paths."""
    rules = tuple(Rule(path, path) for path in variables(config))
    return Table(format, config.model, rules, backbone=r"(Encoder-|Decoder-)?Transformer-|Embedding-")


def table_for(format: str, config: TransformerConfig) -> Table:
    """The table by which a config's checkpoints are written in a format.

    Raises: ConversionError when that family was never published in that format.
    """
    if format in OWN_FORMATS:
        return own_table(format, config)
    family = family_of(config.model)
    family = FAMILIES[family.written_as] if family.written_as else family
    for table in family.tables:
        if table.format == format:
            return table
    possible = sorted({table.format for table in family.tables}) + list(OWN_FORMATS)
    raise ConversionError(f"there is no {format} layout of {family.name}; it can be written as {', '.join(possible)}")


def style_for(format: str, model: str) -> ConfigStyle:
    """How the config file of a model is spelled in a format."""
    if format in OWN_FORMATS:
        return OWN_STYLE
    family = family_of(model)
    return (FAMILIES[family.written_as] if family.written_as else family).styles[format]
