"""What bert4keras' scripts use of a builder, the object that `return_keras_model=False` gives, and override in it."""

from typing import TYPE_CHECKING, Any

from bert4x import layers as L
from bert4x.errors import ConfigError
from bert4x.models.attention import Attention

if TYPE_CHECKING:
    import keras

    from bert4x.models.cache import AttentionContext

GRAPH = (
    *("get_inputs", "apply_embeddings", "apply_main_layers", "apply_final_layers", "call", "apply"),
    *("compute_attention_bias", "compute_position_bias"),
)
MAPPING = ("variable_mapping", "load_variable", "load_embeddings")


class Hooks(Attention):
    """A builder as bert4keras' scripts know it.

    Its attributes: `inputs` and `outputs`, lists of symbolic tensors, `input` and `output`, the same or the only one;
    `initializer`; and all fields of the config, as `hidden_size`.

    Its parts can be called on symbolic tensors: `apply_embeddings(inputs)`, `apply_main_layers(x, index)`,
    `apply_final_layers(x)`. A subclass may override them, and `get_inputs`, `call`, `compute_attention_bias` and
    `apply`; the model is then made through these (`GRAPH`), and not by `forward`. Such a model decodes from no cache:
    `AutoRegressiveDecoder` runs it whole. Where a family computes in one `forward` of its own, overriding or calling
    them is an error.
    """

    model: "keras.Model | None"
    model_inputs: "list[keras.KerasTensor]"
    context: "AttentionContext | None" = None  # of the last embeddings
    attention_bias: Any = None
    position_bias: Any = None
    keys: tuple[str, ...] = ("token_ids", "segment_ids", "position_ids")  # of the inputs

    def __getattr__(self, name: str) -> Any:
        if name != "config" and name in self.config.names():  # before there is a config, this asks for it
            return L.activation(self.config.hidden_act) if name == "hidden_act" else getattr(self.config, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def inputs(self) -> list:
        """The symbolic inputs of the model, conditions and other additional ones last."""
        return list(self.model_inputs)

    @property
    def input(self):
        """The inputs, or the only one."""
        return self.inputs if len(self.inputs) > 1 else self.inputs[0]

    @property
    def outputs(self) -> list:
        """The symbolic outputs of the model."""
        return list(self.model.outputs)

    @property
    def output(self):
        """The outputs, or the only one."""
        return self.outputs if len(self.outputs) > 1 else self.outputs[0]

    @property
    def initializer(self):
        """A new initializer each time: one for several layers would give all of them the same numbers."""
        return L.initializer(self.config.initializer_range)

    @classmethod
    def overrides(cls, *names: str) -> bool:
        """Whether a subclass has any of these methods in its own words."""
        return any(getattr(cls, name) is not getattr(Hooks, name) for name in names)

    def prefixed(self, name: str | None) -> str | None:
        """A layer's name with the prefix of this model."""
        return None if name is None else self.prefix + name

    def simplify(self, inputs: list):
        """A list without those that are None, or the only one left."""
        inputs = [one for one in inputs if one is not None]
        return inputs[0] if len(inputs) == 1 else inputs

    def get_inputs(self) -> list:
        """New symbolic inputs: ids of tokens, of segments where there are any, and positions if they are given."""
        inputs = self.new_inputs()
        self.keys = tuple(inputs)
        return list(inputs.values())

    def call(self, inputs):
        """All of the model, from its inputs to its outputs."""
        x = self.apply_embeddings(inputs)
        for index in range(self.config.num_hidden_layers):
            x = self.apply_main_layers(x, index)
        x = self.apply_final_layers(x)
        return x if self.context is None else self.context.result(x)

    def apply_embeddings(self, inputs):
        """What the first block reads. Shape: [(B, T), ...] -> (B, T, D)"""
        self.check_parts()
        inputs = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        h, self.context = self.begin(dict(zip(self.keys, inputs, strict=False)), None, 0)
        return h

    def apply_main_layers(self, inputs, index: int):
        """Block `index`. What it sees was computed with the embeddings, which come first.

        Shape: (B, T, D) -> (B, T, D)
        Raises: ConfigError before the embeddings.
        """
        self.check_parts()
        if self.context is None:
            raise ConfigError(
                "apply_main_layers before apply_embeddings, which tells it what is padding; call that first"
            )
        if self.overrides("compute_attention_bias"):
            self.context.limit(self.compute_attention_bias(index))
        return self.block(self.block_name(index), inputs, self.context)

    def apply_final_layers(self, inputs):
        """The heads that were asked for, or the hidden states. Shape: (B, T, D) -> the outputs"""
        self.check_parts()
        return self.heads(inputs)

    def compute_attention_bias(self, inputs=None):
        """What is visible, to be given to an attention layer as its `a_bias`: None where all but padding is.

        A subclass may give another mask, or floats to be added to the scores, (T, T), (B, T, T) or (B, A, T, T).
        """
        causal = self.application != "encoder" or self.causal
        return self.context.masks()[0] if causal and self.context is not None else self.attention_bias

    def compute_position_bias(self, inputs=None):
        """None: attention layers know positions by themselves (`positions`). Overriding it is an error."""
        return self.position_bias

    def check_parts(self) -> None:
        """Raises: ConfigError where these parts do not make the model, or an override would be ignored."""
        name = type(self).__name__
        if not self.in_parts():
            raise ConfigError(
                f"{name} computes in one piece, `forward`: it has no apply_embeddings, apply_main_layers or "
                "apply_final_layers to call or to override; override forward"
            )
        if self.overrides("compute_position_bias"):
            raise ConfigError(
                f"{name} overrides compute_position_bias; here attention holds its positions: override `positions()`, "
                "and give one of bert4x.layers.positions"
            )
        if self.overrides("compute_attention_bias") and (self.application != "encoder" or self.causal):
            raise ConfigError(
                f"{name} overrides compute_attention_bias, and application={self.application!r} has a mask of its own; "
                "expected application='encoder'"
            )

    def variable_mapping(self) -> dict[str, list[str]]:
        """Layer -> names of its variables in bert4keras' layout of TensorFlow checkpoints, in the order of its weights,
        of a norm the offset first.

        A subclass may override it, `load_variable` and `create_variable`: `build_transformer_model` then loads by it,
        and by nothing else. What it does not name starts at random, with a warning.
        """
        from bert4x.models.mapping import default_mapping

        return default_mapping(self)

    def load_variable(self, checkpoint, name: str):
        """The values of a variable, of a TensorFlow checkpoint or a dict of arrays, as our layers have them.

        Raises: TensorMismatchError
        """
        from bert4x.models.mapping import read_variable

        return read_variable(self, checkpoint, name)

    def load_embeddings(self, embeddings):
        """The rows of a table or a bias of the vocabulary that `keep_tokens` keeps, then those of `compound_tokens`.

        Shape: (V, ...) -> (V of the model, ...)
        """
        from bert4x.checkpoints.weights import vocabulary_rows

        return vocabulary_rows(embeddings, *map(self.loading.get, ("keep_tokens", "compound_tokens")))

    def create_variable(self, name: str, value, dtype=None) -> tuple:
        """The name and the values under which a variable is saved. Shape: as in our layers -> as in the checkpoint"""
        from bert4x.models.mapping import entries_of

        entry = entries_of(self).get(name)
        value = value.T if entry is not None and entry.layout.transpose else value
        return name, value if dtype is None else value.astype(dtype)

    def layer(self, cls, name: str, new: bool = False, **kwargs):
        if not self.overrides("apply"):
            return super().layer(cls, name, new, **kwargs)
        if new:
            self.new_layers.add(name)
        return Applied(self, L.LayerNormalization if cls is L.LayerNorm else cls, name, kwargs)

    def apply(self, inputs=None, layer=None, arguments: dict | None = None, **kwargs):
        """Calls the layer of a name, which is made on first use, with the `arguments` of its call; without inputs it
        gives the layer. `layer` is its class, and further keywords, among them `name`, are those it is made with.

        A subclass may override it, change what it is given or what it gives: every layer of the model then comes by.
        """
        from bert4x.models.applying import applied

        return applied(self, super().layer, inputs, layer, dict(arguments or {}), kwargs)


class Applied:
    """A layer of a builder whose subclass overrides `apply`: to call it is to call that."""

    def __init__(self, builder: Hooks, cls, name: str, options: dict):
        self.builder, self.cls, self.name, self.options = builder, cls, name, options

    def __call__(self, *tensors, **arguments):
        from bert4x.models.applying import Several

        if arguments.pop("reverse", False):
            arguments["mode"] = "dense"  # as bert4keras' embeddings are told
        inputs = tensors[0] if len(tensors) == 1 else Several(tensors)
        if self.cls is L.LayerNormalization:
            inputs = list(tensors) if len(tensors) > 1 else inputs
        return self.builder.apply(inputs, self.cls, arguments, name=self.name, **self.options)


class LM_Mask:
    """Mix-in of bert4keras for a subclass of an encoder: no token sees what follows it."""

    def compute_attention_bias(self, inputs=None):
        ids = self.model_inputs[0]
        return self.layer(L.Visibility, "Attention-LM-Mask", application="lm")(ids, ids)


class UniLM_Mask:
    """Mix-in of bert4keras for a subclass of an encoder: a token sees the tokens of its segment and of those before it
    if it is of the source, and else what comes before it (Dong et al. 2019, arXiv 1905.03197).
    """

    def compute_attention_bias(self, inputs=None):
        ids, segments = self.model_inputs[:2]
        return self.layer(L.Visibility, "Attention-UniLM-Mask", application="unilm")(ids, segments)


def extend_with_language_model(cls):
    """A subclass of an encoder that sees no token that follows, with the head; `application="lm"` decodes faster."""
    return with_mask(LM_Mask, cls)


def extend_with_unified_language_model(cls):
    """A subclass of an encoder with a UniLM's mask, and the head; `application="unilm"` decodes faster."""
    return with_mask(UniLM_Mask, cls)


def with_mask(mask, cls):
    """A subclass with a mix-in of its mask, and the language model's head."""

    def start(self, *args, **options):
        cls.__init__(self, *args, **options | {"with_mlm": options.get("with_mlm") or True})

    return type(f"{mask.__name__}_{cls.__name__}", (mask, cls), {"__init__": start})
