"""The builder: named layers, one forward function, and the Functional model made by calling it on inputs."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from bert4x import layers as L
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.errors import ConfigError, UnknownArchitectureError, UnknownOptionError, nearest
from bert4x.models.cache import AttentionContext, Cache, new_cache

if TYPE_CHECKING:
    import keras

    from bert4x.checkpoints.spec import Table
    from bert4x.checkpoints.tensors import Tensors

APPLICATIONS = ("encoder", "lm", "unilm")  # of a single sequence; an encoder-decoder is "seq2seq"
MASK_NAMES = {"encoder": "", "lm": "LM-", "unilm": "UniLM-", "source": "Source-"}


class Backbone:
    """Base of all architectures.

    A subclass writes `forward`, one function from inputs to outputs that gets its layers by name from `layer`. Calling
    it on `keras.Input`s gives `.model`, an ordinary Keras model; calling it on tensors, with a cache, decodes.

    What a subclass says of itself in class attributes is read where nothing is computed, too; so neither this module
    nor those of the families import Keras before a layer is made.

    Options that are not part of a config: `with_mlm`, `with_nsp`, `with_pool` (True, or an activation), the conditions
    of conditional layer normalisation, `additional_input_layers`, `layers` (take layers of these names instead of
    making new ones), `prefix` (of all layer names), `sequence_length`, `custom_position_ids`, `dtype`, `quantize`,
    `recompute` (what attention and feed-forward layers compute in training is computed again in the backward pass
    instead of kept for it, under the same dropout: a fraction of the memory), `flash_attention` (see
    `MultiHeadAttention`).

    `return_attentions=True` makes `.model` give a pair: what it gives without, and the attention weights, in float32: a
    list with those of each layer, (B, A, T, T). They are the same as without; decoding does not compute them.

    `bidirectional=True` makes the self-attention over targets synchronous in two directions (`bert4x.masks`; Zhou et
    al. 2019, arXiv 1905.04847), for the application "unilm" and the encoder-decoder. It has no variables of its own,
    so any checkpoint loads. A batch is then R / 2 rows from left to right, and the same R / 2 from right to left. What
    comes from the other direction is weighted by `bidirectional_weight`, after dropout of `bidirectional_dropout`.
    """

    model_name: ClassVar[str]  # what a config says
    aliases: ClassVar[tuple[str, ...]] = ()  # other names that users may give
    # (path, letters of `bert4x.checkpoints.tables.SIZES` for the shape, the head that published files may lack or None)
    variables: ClassVar[tuple[tuple[str, str, str | None], ...]]
    tables: ClassVar[tuple["Table", ...]] = ()  # published layouts; of several in one format the first is written
    styles: ClassVar[dict[str, ConfigStyle]] = {}  # how the config file of each format is spelled
    written_as: ClassVar[str | None] = None  # the family in whose layouts this one is published
    misnamed: ClassVar[tuple[str, ...]] = ()  # of config files beside tensors of this family, by their names
    # Patterns of layers' names -> their classes, by which Keras numbers layers in its files; the first that fits. Names
    # of variables that Keras numbers are in `variables`, those of a layer in the order in which it creates them.
    layer_classes: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"Embedding-(Token|Segment)", "Embedding"),
        (r"Embedding-Position", "PositionEmbedding"),
        (r".*-Norm", "LayerNorm"),
        (r".*-MultiHeadSelfAttention", "MultiHeadAttention"),
        (r".*-MultiHeadCrossAttention", "CrossAttention"),
        (r".*-FeedForward", "FeedForward"),
        (r"MLM-Bias", "Bias"),
        (r".*", "Dense"),
    )
    applications: ClassVar[tuple[str, ...]] = APPLICATIONS  # the first is what `load` makes of it unless told otherwise
    options: ClassVar[dict[str, Any]] = {
        "with_mlm": False,
        "with_nsp": False,
        "with_pool": False,
        "return_attentions": False,
        "custom_position_ids": False,
        "layer_norm_cond": None,
        "layer_norm_cond_hidden_size": None,
        "layer_norm_cond_hidden_act": "linear",
        "additional_input_layers": None,
        "layers": None,
        "prefix": "",
        "name": None,
        "sequence_length": None,
        "bidirectional": False,
        "bidirectional_weight": 0.1,
        "bidirectional_dropout": 0.3,
        "recompute": False,
        "flash_attention": None,
        "dtype": None,
        "quantize": None,
    }

    # Fields of the config that the family has no use for -> the value that they are left at.
    unused: ClassVar[dict[str, Callable[[TransformerConfig], Any]]] = {"num_decoder_layers": lambda c: None}

    def __init__(self, config: TransformerConfig, application: str = "encoder", **options):
        if application not in self.applications:
            hint = nearest(str(application), self.applications)
            raise UnknownArchitectureError(f"no application {application!r}; {hint}")
        for option in options:
            if option not in self.options:
                raise UnknownOptionError(f"no option {option!r}; {nearest(option, self.options)}")
        self.config = config
        self.application = application
        for option, default in self.options.items():
            setattr(self, option, options.get(option, default))
        self.layers = self.layers if self.layers is not None else {}  # shared with the caller, as in bert4keras
        self.prefix = self.prefix or ""
        self.policy = dtype_policy(self.dtype, self.quantize)
        self.check_bidirectional()
        self.loading: dict[str, Any] = {}  # options of loading: keep_tokens ...
        self.new_layers: set[str] = set()  # that no checkpoint holds
        self.model = None

    @classmethod
    def config_without_file(cls, tensors: "Tensors") -> dict[str, Any] | None:
        """What a config file would say of tensors that were published without one; None where nobody knows."""
        return None

    @classmethod
    def check_fields(cls, config: TransformerConfig, names: Iterable[str]) -> None:
        """Raises: UnknownOptionError for one of these fields of the config that would be ignored."""
        for name in cls.unused.keys() & set(names):
            value, only = getattr(config, name), cls.unused[name](config)
            if value != only:
                raise UnknownOptionError(
                    f"{name} = {value!r} means nothing to a {cls.model_name}, which always has {only!r}; leave it out"
                )

    def check_bidirectional(self):
        """Raises: ConfigError where there is no target, or for a weight or rate that cannot be."""
        if self.bidirectional and self.application not in ("unilm", "seq2seq"):
            raise ConfigError(
                f"bidirectional=True is for targets, and the application {self.application!r} has none; expected "
                "'unilm', or the encoder-decoder model='transformer'"
            )
        if self.bidirectional and self.return_attentions:
            raise ConfigError("return_attentions=True does not go with bidirectional=True; expected one of the two")
        if not 0 < self.bidirectional_weight < float("inf") or not 0 <= self.bidirectional_dropout < 1:
            raise ConfigError(
                f"bidirectional_weight = {self.bidirectional_weight!r}, bidirectional_dropout = "
                f"{self.bidirectional_dropout!r}; expected a positive number, and one from 0 to below 1"
            )

    def in_both_directions(self) -> "Backbone":
        """This builder with `bidirectional=True`, over the same layers.

        Raises: ConfigError where there is no target.
        """
        if self.bidirectional:
            return self
        return self.over_the_same_layers(bidirectional=True)

    def in_one_direction(self) -> "Backbone":
        """This builder with `bidirectional=False`, over the same layers."""
        return self.over_the_same_layers(bidirectional=False) if self.bidirectional else self

    def over_the_same_layers(self, **changes) -> "Backbone":
        """This builder with other options."""
        options = {name: getattr(self, name) for name in self.options} | changes
        return type(self)(self.config, self.application, **options)

    def layer(self, cls, name: str, new: bool = False, **kwargs):
        """The layer of this name: made on first use, the same one ever after. `new` says that no checkpoint of the
        family holds it, so that loading leaves it as it starts.
        """
        if new:
            self.new_layers.add(name)
        name = self.prefix + name
        if name not in self.layers:
            dtype = self.policy if issubclass(cls, L.LoadsWeights) else self.policy.compute_dtype
            self.layers[name] = cls(name=name, dtype=dtype, **kwargs)
        return self.layers[name]

    def is_new(self, path: str) -> bool:
        """Whether a variable, by its path without the prefix, is one that no checkpoint holds: of a layer made with
        `new=True`, of conditions, of adapters, or the state of dropout.
        """
        layer, _, rest = path.partition("/")
        conditional = self.layer_norm_cond is not None and layer.endswith("-Norm") and "/" in rest
        return layer in self.new_layers or conditional or rest.rpartition("/")[2].startswith(("lora_", "seed_"))

    def build(self) -> "Backbone":
        """Makes `.model`. Raises: ConfigError where its sizes cannot be divided over the devices."""
        from bert4x import devices
        from bert4x.models.functional import TransformerModel

        devices.check(self.config, self.quantize)
        inputs = self.inputs()
        extra = self.additional_input_layers if self.additional_input_layers is not None else []
        extra = [extra] if not isinstance(extra, list | tuple) else list(extra)
        conditions = self.layer_norm_cond if self.layer_norm_cond is not None else []
        extra += [conditions] if not isinstance(conditions, list | tuple) else list(conditions)
        self.model = TransformerModel([*inputs.values(), *unique(extra)], self.forward(inputs), name=self.name)
        self.model.config, self.model.backbone = self.config, self
        return self

    def load_weights_from_checkpoint(self, checkpoint, strict: bool = True) -> None:
        """Gives a built model the values of a checkpoint in any readable layout, whether its layers are frozen or not.

        Raises: the errors of `bert4x.load`.
        """
        from bert4x.checkpoints.opening import open_checkpoint
        from bert4x.hub.names import local
        from bert4x.models.loading import fill

        fill(self, open_checkpoint(local(checkpoint)), strict)

    def save_weights_as_checkpoint(self, folder, format: str = "tf1") -> None:
        """Writes the model's weights into a folder as a checkpoint: TensorFlow's by default, as bert4keras does."""
        from bert4x.checkpoints.convert import save

        save(self.model, folder, format)

    def check_name(self) -> None:
        """Raises: ConfigError for a subclass without a name of its own: what is saved of it would be opened as its
        parent, which may lack weights that it needs, or compute something else.
        """
        if "model_name" not in vars(type(self)) or self.model_name != self.config.backbone:
            kind = type(self).__name__
            raise ConfigError(
                f"{kind} has no name of its own and cannot be saved: it would be opened as a {self.model_name!r}; put "
                f'@bert4x.register_family above the class, and model_name = "{kind.lower()}" in it'
            )

    def inputs(self) -> dict[str, Any]:
        """The symbolic inputs, by the names users give them."""
        names = {"token_ids": "Input-Token"}
        if self.needs_segments:
            names["segment_ids"] = "Input-Segment"
        if self.custom_position_ids:
            names["position_ids"] = "Input-Position"
        return {
            key: L.Input((self.sequence_length,), dtype="int32", name=self.prefix + name) for key, name in names.items()
        }

    @property
    def needs_segments(self) -> bool:
        """Whether the model has a segment input."""
        return self.config.segment_vocab_size > 0 or self.application == "unilm"

    @property
    def has_conditions(self) -> bool:
        """Whether the outputs depend on more than ids, so that decoding from a cache alone cannot compute them."""
        return self.layer_norm_cond is not None or self.additional_input_layers is not None

    def description(self) -> dict[str, Any]:
        """The application and the plain options: with the config and the layers, all it takes to make this anew."""
        options = {name: getattr(self, name) for name in self.options if name not in ("dtype", "name", "layers")}
        plain = {name: value for name, value in options.items() if isinstance(value, bool | int | float | str)}
        return {"application": self.application, "options": plain}

    def forward(self, inputs: dict[str, Any], cache: Cache | None = None, index=0, last: bool = False):
        """The outputs for these inputs; see the subclass.

        With a cache, the inputs are the tokens for the slots from `index` on (at positions index, index + 1 ... unless
        `position_ids` says otherwise), and it returns (outputs, the cache with them). With `last=True` a language
        model's head sees only the last of the tokens: V numbers instead of T * V.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute")

    # The parts below are shared by the architectures.

    def dense(self, name: str, units: int, activation="linear"):
        """A dense layer with BERT's initializer."""
        return self.layer(
            L.Dense,
            name,
            units=units,
            activation=L.activation(activation),
            kernel_initializer=L.initializer(self.config.initializer_range),
        )

    def norm(self, name: str, x):
        """Layer normalisation, conditional if the model is."""
        condition = self.layer_norm_cond
        if isinstance(condition, list | tuple):
            condition = condition[0]
        layer = self.layer(
            L.LayerNorm,
            name,
            epsilon=self.config.layer_norm_eps,
            conditional=condition is not None,
            hidden_units=self.layer_norm_cond_hidden_size,
            hidden_activation=self.layer_norm_cond_hidden_act,
        )
        return layer(x) if condition is None else layer(x, condition)

    def dropout(self, name: str, x):
        """Dropout at the config's rate."""
        return self.layer(L.Dropout, name, rate=self.config.dropout_rate)(x)

    def add(self, name: str, *tensors):
        """A residual sum."""
        return self.layer(L.Add, name)(list(tensors))

    def token_embedding(self, masks_padding: bool):
        """The embedding table, also the tied output layer."""
        return self.layer(
            L.Embedding,
            "Embedding-Token",
            input_dim=self.config.vocab_size,
            output_dim=self.config.embedding_size,
            pad_id=self.config.pad_token_id if masks_padding else None,
            embeddings_initializer=L.initializer(self.config.initializer_range),
        )

    def position_embedding(self, x, inputs, index=0, cached=False):
        """Adds the position embedding; with a cache, the first token is at position `index`."""
        layer = self.layer(
            L.PositionEmbedding,
            "Embedding-Position",
            max_position=self.config.max_position,
            stddev=self.config.initializer_range,
            hierarchical=self.config.hierarchical_position,
        )
        if self.custom_position_ids or "position_ids" in inputs:
            return layer(x, inputs["position_ids"])
        return layer(x, index + L.ops.arange(L.ops.shape(x)[1])) if cached else layer(x)

    def attend(self, tokens, inputs, application: str, cache: Cache | None, index) -> AttentionContext:
        """What the attention layers of this pass share."""
        if cache is None:

            def visibility(window):
                seen = tokens, inputs, application, window
                of_partner = self.visibility(*seen, of_partner=True) if self.bidirectional else None
                return self.visibility(*seen), of_partner

            return AttentionContext(visibility, (inputs.get("position_ids"), None), weights=self.return_attentions)
        from bert4x import masks

        ids = inputs["token_ids"]
        rank = masks.token_rank(application, ids, inputs.get("segment_ids"))
        if application == "lm":
            rank = rank + index
        elif application == "unilm":  # ranks go on from the last token that was read
            last = L.ops.take(cache.rank, L.ops.maximum(index - 1, 0), axis=1)
            rank = rank + L.ops.where(L.ops.greater(index, 0), last, 0)[:, None]
        positions = inputs.get("position_ids")
        if positions is None:
            positions = index + L.ops.arange(L.ops.shape(ids)[1], dtype="int32")
        positions = L.ops.broadcast_to(L.ops.cast(positions, "int32"), L.ops.shape(ids))
        valid = self.real(ids, inputs.get("padding_mask"))
        cache = cache.with_tokens(index, rank=rank, valid=valid, positions=positions)

        def visible(window):
            seen = rank, cache.rank, cache.valid, window
            return masks.visible(*seen), masks.visible_to_partner(application, *seen) if self.bidirectional else None

        return AttentionContext(visible, (positions, cache.positions), cache, index)

    def real(self, ids, padding_mask=None):
        """Which tokens are no padding: as the mask says, or those that are not the padding id.

        Shape: (B, T)[, (B, T)] -> (B, T) bool
        """
        if padding_mask is None:
            padding_mask = self.layers[self.prefix + "Embedding-Token"].compute_mask(ids)
        return L.ops.ones_like(ids, dtype="bool") if padding_mask is None else L.ops.cast(padding_mask, "bool")

    def visibility(self, x, inputs, application: str, window: int | None = None, of_partner: bool = False):
        """The attention mask of an application within a window, or that of what the other direction sees."""
        name = f"Attention-{MASK_NAMES[application]}{'Partner-' if of_partner else ''}Mask"
        name += "" if window is None else f"-{window}"
        layer = self.layer(L.Visibility, name, application=application, of_partner=of_partner, window=window)
        return layer(x, inputs["segment_ids" if application == "unilm" else "token_ids"])

    def positions(self) -> "L.Positions | None":
        """How self-attention knows the positions of tokens: a scheme of `bert4x.layers.positions`, or None where they
        are added to the embeddings, or where nothing knows them. A family may override it.
        """

    def attention(self, name: str, x, context: AttentionContext, window: int | None = None, **options):
        """Self-attention over this pass's tokens and the cached ones, within a window of ranks if one is given. The
        options are the layer's own, where they differ from `attention_options`.
        """
        residual = self.config.residual_attention_scores
        visible, visible_to_partner = context.masks(window)
        given = {"bias": context.bias if context.scores is None else context.scores}
        if visible_to_partner is not None:
            options["partner_dropout"] = self.bidirectional_dropout
            given |= {"visible_to_partner": visible_to_partner, "partner_weight": self.bidirectional_weight}
        options = {"positions": self.positions(), "return_scores": residual} | options
        layer = self.attention_layer(L.MultiHeadAttention, name, **options)
        if layer.positions is not None:
            given |= {"positions": context.query_positions, "key_positions": context.key_positions}
        if context.cache is not None:
            given |= {"past": context.past, "index": context.index}
        if context.weights is not None:
            given["return_weights"] = True
        outputs = layer(x, visible, **{key: value for key, value in given.items() if value is not None})
        outputs, *rest = outputs if isinstance(outputs, list | tuple) else [outputs]
        if residual:
            context.scores = rest.pop(0)
        if context.weights is not None:
            context.weights.append(rest.pop(0))
        context.written += rest
        return outputs

    def attention_layer(self, cls, name: str, **kwargs):
        """An attention layer of the model's sizes."""
        return self.layer(cls, name, **self.attention_options() | kwargs)

    def attention_options(self) -> dict[str, Any]:
        """What all attention layers are made with (see `MultiHeadAttention`). A family may add to it."""
        c = self.config
        return {
            "heads": c.num_attention_heads,
            "head_size": c.attention_head_size,
            "key_size": c.attention_key_size,
            "dropout": c.attention_dropout_rate,
            "stddev": c.initializer_range,
            "recompute": self.recompute,
            "flash_attention": self.flash_attention,
        }

    def new_cache(self, batch_size: int, length: int) -> Cache:
        """An empty cache for decoding `length` tokens with this model."""
        heads = self.attention_options().get("key_value_heads")
        return new_cache(self.config, batch_size, length, self.policy.compute_dtype, heads)

    def feed_forward(self, name: str, x):
        """The feed-forward network."""
        c = self.config
        layer = self.layer(
            L.FeedForward,
            name,
            units=c.intermediate_size,
            activation=c.hidden_act,
            stddev=c.initializer_range,
            recompute=self.recompute,
        )
        return layer(x)


def dtype_policy(name, quantize: str | None = None) -> "keras.DTypePolicy":
    """A Keras policy by name; None is the global one. With `quantize="int8"`, matrices are int8.

    Raises: ConfigError
    """
    import keras

    try:
        policy = keras.dtype_policies.get(name) if name else keras.config.dtype_policy()
    except ValueError as error:
        raise ConfigError(
            f"no dtype {name!r}; expected float32, bfloat16, mixed_bfloat16, mixed_float16 ..."
        ) from error
    if quantize is None:
        return policy
    if quantize != "int8" or policy.quantization_mode or policy.compute_dtype not in ("float32", "bfloat16"):
        raise ConfigError(
            f"quantize={quantize!r} with dtype {policy.name!r}; expected quantize='int8' with float32 or bfloat16"
        )
    return keras.dtype_policies.QuantizedDTypePolicy(quantize, policy.name)


def unique(tensors):
    """The tensors without repetitions, in order."""
    return list({id(t): t for t in tensors}.values())
