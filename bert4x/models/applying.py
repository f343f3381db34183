"""`apply` of a builder: layers as subclasses and scripts of bert4keras' make and call them, made to those here."""

import keras

from bert4x import layers as L
from bert4x.errors import ConfigError
from bert4x.models.cache import limited


class Several(list):
    """The tensors of a call that takes them as several arguments, and not as one list."""


def applied(builder, make, inputs, cls, arguments: dict, kwargs: dict):
    """See `Hooks.apply`; `make(class, name, **options)` gives the layer of a name."""
    if cls in (L.Input, keras.layers.Input):
        return L.Input(**kwargs | {"name": builder.prefixed(kwargs.get("name"))})
    name = kwargs.pop("name", None) or unused_name(builder, cls)
    if cls is keras.layers.Lambda:
        kwargs["arguments"], arguments = arguments, {}
    layer = make(*checked(builder, cls, name), new=True, **options_of(builder, cls, kwargs))
    if inputs is None:
        return layer
    if isinstance(inputs, Several):
        return layer(*inputs, **arguments)
    if isinstance(layer, L.MultiHeadAttention):
        return attended(builder, layer, inputs, arguments)
    return layer(inputs, **arguments)


def unused_name(builder, cls) -> str:
    """A name for a layer that was given none."""
    number = sum(isinstance(layer, cls) for layer in builder.layers.values())
    return f"{cls.__name__}-{number}"


def checked(builder, cls, name: str):
    """The class of a layer, of ours for Keras' own, which do not load weights, and its name.

    Raises: ConfigError for a layer that takes the place of one with weights, and would start at random.
    """
    cls = {keras.layers.Dense: L.Dense, keras.layers.Embedding: L.Embedding, keras.layers.Dropout: L.Dropout}.get(
        cls, cls
    )
    held = {path.replace("{i}", "0").split("/")[0] for path, *_ in builder.variables}
    if not issubclass(cls, L.LoadsWeights) and "".join(name.split("-")) in {"".join(one.split("-")) for one in held}:
        raise ConfigError(
            f"{cls.__name__} as the layer {name} would not load its weights; derive it from a layer of bert4x.layers"
        )
    if hasattr(cls, "pay_attention_to"):
        raise ConfigError(
            f"{cls.__name__} has pay_attention_to, which nothing calls here; override `scores`, `weights_of` or `mix` "
            "of bert4x.layers.MultiHeadAttention"
        )
    return cls, name


def options_of(builder, cls, kwargs: dict) -> dict:
    """What a layer of ours is made with, from what one of bert4keras is. Raises: ConfigError"""
    kwargs = dict(kwargs)
    if issubclass(cls, L.Embedding | keras.layers.Embedding) and kwargs.pop("mask_zero", False):
        kwargs.setdefault("pad_id", builder.config.pad_token_id)
    if issubclass(cls, L.FeedForward | L.MultiHeadAttention) and "kernel_initializer" in kwargs:
        kwargs["stddev"] = stddev_of(builder, kwargs.pop("kernel_initializer"))
    if issubclass(cls, L.GatedAttentionUnit) and "units" in kwargs:
        kwargs = unit_options(builder, kwargs)
    elif issubclass(cls, L.MultiHeadAttention) and "attention_dropout" in kwargs:
        kwargs = attention_options(builder, kwargs)
    return kwargs


def attention_options(builder, kwargs: dict) -> dict:
    """Those of bert4keras' attention. Raises: ConfigError for what it cannot do here."""
    normalization, size = kwargs.pop("normalization", "softmax"), kwargs.pop("out_dim", builder.config.hidden_size)
    if normalization != "softmax" or size != builder.config.hidden_size:
        raise ConfigError(
            f"attention with normalization={normalization!r}, out_dim={size}; expected 'softmax' and the hidden size "
            f"{builder.config.hidden_size}, or a layer of your own"
        )
    kwargs["dropout"] = kwargs.pop("attention_dropout") or 0.0
    kwargs["return_scores"] = kwargs.pop("return_attention_scores", False)
    if not kwargs.pop("attention_scale", True):
        kwargs["scale"] = 1.0
    return builder.attention_options() | {"positions": builder.positions()} | kwargs


def unit_options(builder, kwargs: dict) -> dict:
    """Those of bert4keras' gated attention unit. Raises: ConfigError for what it cannot do here."""
    normalization, use_bias = kwargs.pop("normalization", "squared_relu"), kwargs.pop("use_bias", True)
    if normalization != "softmax_plus" or use_bias:
        raise ConfigError(
            f"a gated attention unit with normalization={normalization!r}, use_bias={use_bias}; expected "
            "'softmax_plus' and False, or a layer of your own"
        )
    kwargs |= {"head_size": kwargs.pop("units"), "dropout": kwargs.pop("attention_dropout", None) or 0.0}
    options = builder.attention_options() | {"positions": builder.positions()} | kwargs
    return {name: value for name, value in options.items() if name not in ("heads", "use_bias")}


def stddev_of(builder, initializer) -> float:
    """The deviation of the builder's initializer, also of a subclass that has a method of this name. Raises:
    ConfigError for another kind.
    """
    if getattr(initializer, "__self__", None) is builder:
        return builder.config.initializer_range
    if not isinstance(initializer, keras.initializers.TruncatedNormal):
        raise ConfigError(f"kernel_initializer={initializer!r}; expected the builder's `initializer`")
    return initializer.stddev


def attended(builder, layer, inputs, arguments: dict):
    """Self-attention on bert4keras' list: query, key, value, then `a_bias` and what `p_bias` names.

    Raises: ConfigError for attention of one sequence to another, and for positions that the layer does not have.
    """
    query, key, value, *rest = [inputs[0]] * 2 + inputs if isinstance(layer, L.GatedAttentionUnit) else inputs
    if key is not query or value is not query:
        raise ConfigError(
            "query, key and value are not the same tensor; expected bert4x.layers.CrossAttention for that"
        )
    bias = rest.pop(0) if arguments.pop("a_bias", None) else None
    positions = arguments.pop("p_bias", None)
    if positions and layer.positions is None:
        raise ConfigError(
            f"p_bias={positions!r}, but a {builder.model_name}'s attention has no positions; see `positions()`"
        )
    visible = builder.visibility(query, {"token_ids": builder.model_inputs[0]}, "encoder")
    visible, added = limited(visible, bias)
    return layer(query, visible, **({} if added is None else {"bias": added}), **arguments)
