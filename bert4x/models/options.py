"""Options by name, as users give them to `load` and `build_transformer_model`: what each changes."""

from typing import Any

from bert4x.config import TransformerConfig
from bert4x.errors import UnknownOptionError, nearest
from bert4x.models.builder import TransformerBuilder

# Other names of config fields, from published config files and older scripts.
ALIASES = {
    "max_position_embeddings": "max_position",
    "max_length": "max_position",
    "hidden_dropout_prob": "dropout_rate",
    "attention_probs_dropout_prob": "attention_dropout_rate",
    "type_vocab_size": "segment_vocab_size",
    "keep_words": "keep_tokens",
}
LOADING_OPTIONS = ("keep_tokens", "compound_tokens", "autoresize_weights", "ignore_invalid_weights")
OWNERS = {  # options that only change what another asks for
    "bidirectional_weight": "bidirectional",
    "bidirectional_dropout": "bidirectional",
    "attention_dilation": "attention_window",
    "layer_norm_cond_hidden_size": "layer_norm_cond",
    "layer_norm_cond_hidden_act": "layer_norm_cond_hidden_size",
}


def sort_options(options: dict[str, Any], cls: type[TransformerBuilder]) -> tuple[dict, dict, dict]:
    """User options as (config fields, options of the builder, options of loading).

    Raises: UnknownOptionError naming the nearest valid one.
    """
    changes, build, loading = {}, {}, {}
    fields = cls.config_class.spelled()
    for name, value in options.items():
        name = ALIASES.get(name, name)
        if name in fields:
            if value is not None or name == "pad_token_id":  # None: no id is padding
                changes[name] = value
        elif name in cls.options:
            build[name] = value
        elif name in LOADING_OPTIONS:
            loading[name] = value
        elif name in TransformerBuilder.options:  # of other families
            if value != TransformerBuilder.options[name]:
                raise UnknownOptionError(f"a {cls.model_name} has no {name}; leave it out")
        else:
            raise UnknownOptionError(f"no option {name!r}; {nearest(name, [*fields, *cls.options, *LOADING_OPTIONS])}")
    return changes, build, loading


def check_dependent(options: dict[str, Any]) -> None:
    """Raises: UnknownOptionError for an option that does nothing without another, which was not given."""
    for name, owner in OWNERS.items():
        if options.get(name) is not None and (options.get(owner) is None or options[owner] is False):
            raise UnknownOptionError(f"{name} without {owner}, without which it does nothing")


def follow_on_sizes(config: TransformerConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """Sizes that were derived from one that is changed are derived anew."""
    follow = {}
    if "hidden_size" in changes or "num_attention_heads" in changes:
        if config.attention_head_size * config.num_attention_heads == config.hidden_size:
            follow["attention_head_size"] = follow["attention_key_size"] = None
        if config.embedding_size == config.hidden_size:
            follow["embedding_size"] = follow["embedding_mapping"] = None
    if "embedding_size" in changes:
        follow["embedding_mapping"] = None
    return {name: value for name, value in follow.items() if name not in changes}
