"""The checkpoint families: one file each, one table per published layout, and how its config file is spelled."""

from bert4x.checkpoints.spec import Rule, Table
from bert4x.checkpoints.tables import albert, bert, gpt2
from bert4x.checkpoints.variables import variables
from bert4x.config import FIELDS, ConfigStyle, TransformerConfig
from bert4x.errors import ConversionError

# Of several tables for one format and family, the first is the one that is written.
PUBLISHED = (
    bert.GOOGLE,
    bert.HF,
    albert.GOOGLE,
    albert.HF,
    gpt2.HF,
    gpt2.OPENAI,
    gpt2.BERT4KERAS,
    gpt2.MEGATRON,
)

BERT_KEYS = {
    "max_position": ("max_position_embeddings", "max_position"),
    "segment_vocab_size": ("type_vocab_size", "segment_vocab_size"),
    "dropout_rate": ("hidden_dropout_prob", "dropout_rate"),
    "attention_dropout_rate": ("attention_probs_dropout_prob", "attention_dropout_rate"),
}
GPT2_KEYS = {
    "hidden_size": ("n_embd", "hidden_size"),
    "num_hidden_layers": ("n_layer", "num_hidden_layers"),
    "num_attention_heads": ("n_head", "num_attention_heads"),
    "max_position": ("n_positions", "n_ctx", "max_position_embeddings", "max_position"),
    "intermediate_size": ("n_inner", "intermediate_size"),
    "hidden_act": ("activation_function", "hidden_act"),
    "layer_norm_eps": ("layer_norm_epsilon", "layer_norm_eps"),
    "dropout_rate": ("resid_pdrop", "hidden_dropout_prob", "dropout_rate"),
    "attention_dropout_rate": ("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout_rate"),
}
# A padding id other than 0 in a BERT's config is a mistake of its (hfl's RoBERTa-wwm says 1): the vocabulary decides.
_BERT = BERT_KEYS | {"pad_token_id": ()}
_ZERO = {"pad_token_id": 0}
_GPT2 = {"layer_norm_eps": 1e-5, "hidden_act": "gelu_tanh", "segment_vocab_size": 0, "max_position": 1024}

STYLES: dict[tuple[str, str], ConfigStyle] = {
    ("tf1", "bert"): ConfigStyle("gelu_erf", _BERT, _ZERO),
    ("tf1", "albert"): ConfigStyle("gelu_tanh", _BERT, _ZERO),
    ("tf1", "gpt2"): ConfigStyle("gelu_tanh", GPT2_KEYS | {"vocab_size": ("n_vocab", "vocab_size")}, _GPT2),
    ("hf", "bert"): ConfigStyle(
        "gelu_erf", _BERT, _ZERO, {"model_type": "bert", "architectures": ["BertForPreTraining"]}
    ),
    ("hf", "albert"): ConfigStyle(
        "gelu_erf",
        _BERT,
        _ZERO | {"hidden_act": "gelu_tanh", "embedding_size": 128, "embedding_mapping": True},
        {"model_type": "albert", "architectures": ["AlbertForPreTraining"]},
    ),
    ("hf", "gpt2"): ConfigStyle(
        "gelu_erf", GPT2_KEYS, _GPT2, {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    ),
    ("megatron", "gpt2"): ConfigStyle("gelu_tanh", BERT_KEYS, _GPT2 | {"pad_token_id": 5}),
}
OWN_FORMATS = ("bert4x", "keras")  # keyed by variable path, config spelled as here
FORMATS = ("hf", "tf1", "megatron", *OWN_FORMATS)


def own_table(format: str, config: TransformerConfig) -> Table:
    """The table of a format that is keyed by our variable paths."""
    return Table(
        format, config.model, tuple(Rule(path, path) for path in variables(config)), r"Transformer-|Embedding-"
    )


def table_for(format: str, config: TransformerConfig) -> Table:
    """The table by which a config's checkpoints are written in a format.

    Raises: ConversionError when that family was never published in that format.
    """
    if format in OWN_FORMATS:
        return own_table(format, config)
    family = "albert" if config.model == "albert_unshared" else config.model
    for table in PUBLISHED:
        if (table.format, table.family) == (format, family):
            return table
    possible = sorted({table.format for table in PUBLISHED if table.family == family}) + list(OWN_FORMATS)
    raise ConversionError(f"there is no {format} layout of {family}; it can be written as {', '.join(possible)}")


def style_for(format: str, family: str) -> ConfigStyle:
    """How a config file of a format and family is spelled."""
    if format in OWN_FORMATS:
        return ConfigStyle("gelu_erf", {name: (name,) for name in FIELDS}, labels={"library": "bert4x"})
    return STYLES[format, family]
