"""The builder: one forward function over named layers, and the Functional model made by calling it on inputs.

Its bases are its parts: `Options`, then `Parts`, the layers by name, then `Attention`, then `Hooks`, for bert4keras'
scripts.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from bert4x import layers as L
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.errors import ConfigError, UnknownArchitectureError, UnknownOptionError, nearest
from bert4x.models.builder_options import OPTIONS
from bert4x.models.cache import Cache
from bert4x.models.hooks import GRAPH, MAPPING, Hooks

if TYPE_CHECKING:
    from bert4x.checkpoints.spec import Table
    from bert4x.checkpoints.tensors import Tensors

APPLICATIONS = ("encoder", "lm", "unilm")  # of a single sequence; an encoder-decoder is "seq2seq"


class TransformerBuilder(Hooks):
    """Base of all architectures: a builder of models, of which the Keras model that users hold is `.model`.

    A subclass writes `forward`, one function from inputs to outputs that gets its layers by name from `layer`. Calling
    it on `keras.Input`s gives `.model`, an ordinary Keras model; calling it on tensors, with a cache, decodes.

    Class attributes are read where nothing is computed, too: no family imports Keras before a layer is made.

    Raises: UnknownArchitectureError for an application, UnknownOptionError for an option.
    """

    model_name: ClassVar[str]  # what a config says
    aliases: ClassVar[tuple[str, ...]] = ()  # other names that users may give; not inherited
    # (path, letters of `bert4x.checkpoints.tables.SIZES` for the shape, the head that published files may lack or None)
    variables: ClassVar[tuple[tuple[str, str, str | None], ...]]
    # Patterns with which the paths of some of them begin -> whether a model of a config has these not.
    absent: ClassVar[dict[str, Callable[[Any], bool]]] = {
        "Embedding-Segment/": lambda c: not c.segment_vocab_size,
        "Embedding-Mapping/": lambda c: not c.embedding_mapping,
    }
    tables: ClassVar[tuple["Table", ...]] = ()  # published layouts; of several in one format the first is written
    styles: ClassVar[dict[str, ConfigStyle]] = {}  # how the config file of each format is spelled
    misnamed: ClassVar[tuple[str, ...]] = ()  # model_type of config files that mean this family; not inherited
    # Patterns of layers' names -> their classes, by which Keras numbers layers in its files; the first that fits. Names
    # of variables that Keras numbers are in `variables`, those of a layer in the order in which it creates them.
    layer_classes: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"Embedding-(Token|Segment)", "Embedding"),
        (r"Embedding-Position", "PositionEmbedding"),
        (r".*-Norm(-[01])?", "LayerNorm"),
        (r".*-MultiHeadSelfAttention", "MultiHeadAttention"),
        (r".*-MultiHeadCrossAttention", "CrossAttention"),
        (r".*-FeedForward", "FeedForward"),
        (r"MLM-Bias", "Bias"),
        (r".*", "Dense"),
    )
    written_as: ClassVar[str | None] = None  # the family in whose layouts this one is published; see `as_written`
    sizes: ClassVar[dict[str, Callable[[Any], int]]] = {}  # letters of its own for the shapes of variables
    config_class: ClassVar[type[TransformerConfig]] = TransformerConfig  # one with the family's own fields
    config_files: ClassVar[dict[str, str]] = {}  # format -> name of its config file, where it is not config.json
    computed: ClassVar[tuple[str, ...]] = ()  # names of bert4keras' layers whose numbers are computed here
    weights_file: ClassVar[str] = "model.ckpt"  # prefix of TensorFlow's files
    decoder_key: ClassVar[str | None] = None  # the key of config files by which it reads from left to right only
    causal: ClassVar[bool] = False  # no token sees what follows it, whatever the application, but in a source
    bare_prompts: ClassVar[bool] = False  # trained on running text: prompts have no start and end tokens
    start_differs: ClassVar[bool] = False  # some published models of it were trained on texts that have a start token
    pads_by_vocabulary: ClassVar[bool] = True  # the padding id is that of the vocabulary, not of the config
    applications: ClassVar[tuple[str, ...]] = APPLICATIONS  # the first is what `load` makes of it unless told otherwise
    options: ClassVar[dict[str, Any]] = OPTIONS  # those of `bert4x.models.builder_options` that it takes -> defaults

    # Fields of the config that no file says, as bert4keras has them: what `build_transformer_model` takes.
    in_bert4keras: ClassVar[dict[str, Any]] = {}

    # Fields of the config that the family has no use for -> the value that they are left at.
    unused: ClassVar[dict[str, Callable[[TransformerConfig], Any]]] = {"num_decoder_layers": lambda c: None}

    def __init__(self, config: TransformerConfig, application: str = "encoder", **options):
        if application not in self.applications:
            hint = nearest(str(application), self.applications)
            raise UnknownArchitectureError(f"no application {application!r}; {hint}")
        for option in options:
            if option not in self.options:
                raise UnknownOptionError(f"no option {option!r}; {nearest(option, self.options)}")
        self.config = config.as_class(self.config_class)
        self.application = application
        given = self.options | options  # a family may have options of its own, and other defaults
        super().__init__(**{name: given.pop(name) for name in OPTIONS if name in given})
        vars(self).update(given)
        self.check_bidirectional()
        self.check_packed()
        self.check_window()
        self.loading: dict[str, Any] = {}  # options of loading: keep_tokens ...
        self.model = None

    @classmethod
    def config_without_file(cls, tensors: "Tensors") -> dict[str, Any] | None:
        """What a config file would say of tensors that were published without one; None where that cannot be known."""
        return None

    @classmethod
    def config_by_tensors(cls, config: TransformerConfig, table, held: dict[str, Any]) -> TransformerConfig:
        """The config with what tensors say of a model, and its file does not. `held` are our layers that are there, and
        of each a tensor, or None where no tensor was read yet; `table` is that of a published layout, or None.
        """
        return config

    @classmethod
    def head_of(cls, path: str, head: str | None, config: TransformerConfig) -> str | None:
        """The head to which a variable of a model of a config belongs: that of `variables`, unless a family differs."""
        return head

    @classmethod
    def check_fields(cls, config: TransformerConfig, names: Iterable[str]) -> None:
        """Raises: UnknownOptionError for one of these fields of the config that would be ignored."""
        for name in cls.unused.keys() & set(names):
            value, only = getattr(config, name), cls.unused[name](config)
            if value != only:
                raise UnknownOptionError(
                    f"{name} = {value!r} means nothing to a {cls.model_name}, which always has {only!r}; leave it out"
                )

    @classmethod
    def is_decoder(cls, config: TransformerConfig) -> bool:
        """Whether the config file says that this model reads from left to right only."""
        return cls.decoder_key is not None and config.extra.get(cls.decoder_key) is True

    @classmethod
    def as_written(cls, path: str) -> str:
        """The variable of the family `written_as` for one of this family's."""
        return path

    def in_both_directions(self) -> "TransformerBuilder":
        """This builder with `bidirectional=True`, over the same layers.

        Raises: ConfigError where there is no target.
        """
        if self.bidirectional:
            return self
        return self.over_the_same_layers(bidirectional=True)

    def in_one_direction(self) -> "TransformerBuilder":
        """This builder with `bidirectional=False`, over the same layers."""
        return self.over_the_same_layers(bidirectional=False) if self.bidirectional else self

    def over_the_same_layers(self, application: str | None = None, **changes) -> "TransformerBuilder":
        """This builder with other options, or of another application."""
        options = {name: getattr(self, name) for name in self.options} | changes
        return type(self)(self.config, application or self.application, **options)

    def build(self) -> "TransformerBuilder":
        """Makes `.model`. Raises: ConfigError where its sizes cannot be divided over the devices."""
        from bert4x import devices
        from bert4x.models.functional import TransformerModel

        devices.check(self.config, self.quantize)
        inputs = self.get_inputs()
        extra = as_list(self.additional_input_layers)
        extra += [tensor for condition in as_list(self.layer_norm_cond) for tensor in inputs_of(condition)]
        self.model_inputs = [*inputs, *{id(tensor): tensor for tensor in extra}.values()]
        if self.overrides(*GRAPH):
            outputs = self.call(inputs)
        else:
            named = dict(zip(self.keys, inputs, strict=True))
            if self.packed:
                named["position_ids"] = self.layer(L.PlacesInTexts, "Places-In-Texts")(named["text_ids"])
            outputs = self.forward(named)
        self.model = TransformerModel(self.model_inputs, outputs, name=self.name)
        self.model.config, self.model.builder = self.config, self
        return self

    def load_weights_from_checkpoint(self, checkpoint, mapping: dict | None = None, strict: bool = True) -> None:
        """Gives a built model the values of a checkpoint in any readable layout, whether its layers are frozen or not.

        With a mapping, as `variable_mapping` gives it, or where a subclass overrides that, those that it names of a
        TensorFlow checkpoint or a dict of arrays.

        Raises: the errors of `bert4x.load`.
        """
        if mapping is not None or isinstance(checkpoint, dict) or self.overrides(*MAPPING):
            from bert4x.models.mapping import load_by_mapping

            load_by_mapping(self, checkpoint, mapping or self.variable_mapping())
            return
        from bert4x.checkpoints.opening import open_checkpoint
        from bert4x.hub.names import local
        from bert4x.models.loading import fill

        fill(self, open_checkpoint(local(checkpoint)), strict)

    def save_weights_as_checkpoint(self, folder, format: str = "tf1", mapping: dict | None = None, dtype=None) -> None:
        """Writes the model's weights into a folder as a checkpoint: TensorFlow's by default, as bert4keras does.

        With a mapping, or where a subclass overrides `variable_mapping`, `folder` is the prefix of a TensorFlow
        checkpoint of what that names.
        """
        if isinstance(format, dict):  # bert4keras' second argument
            format, mapping = "tf1", format
        if mapping is not None or self.overrides(*MAPPING, "create_variable"):
            from bert4x.models.mapping import save_by_mapping

            save_by_mapping(self, folder, mapping or self.variable_mapping(), dtype)
            return
        from bert4x.checkpoints.convert import save

        save(self.model, folder, format, **({} if dtype is None else {"dtype": dtype}))

    def check_name(self) -> None:
        """Raises: ConfigError for a subclass without a name of its own: what is saved of it would be opened as its
        parent, which may lack weights that it needs, or compute something else.
        """
        if "model_name" not in vars(type(self)) or self.model_name != self.config.builder:
            kind = type(self).__name__
            raise ConfigError(
                f"{kind} has no name of its own and cannot be saved: it would be opened as a {self.model_name!r}; put "
                f'@bert4x.register_family above the class, and model_name = "{kind.lower()}" in it'
            )

    def new_inputs(self) -> dict[str, Any]:
        """New symbolic inputs, by the names users give them."""
        names = {"token_ids": "Input-Token"}
        if self.needs_segments:
            names["segment_ids"] = "Input-Segment"
        if self.custom_position_ids:
            names["position_ids"] = "Input-Position"
        if self.packed:
            names["text_ids"] = "Input-Text"
        return {
            key: L.Input((self.sequence_length,), dtype="int32", name=self.prefix + name) for key, name in names.items()
        }

    @property
    def needs_segments(self) -> bool:
        """Whether the model has a segment input."""
        return self.config.segment_vocab_size > 0 or self.application == "unilm"

    def output_table(self):
        """The layer of a table that also projects onto the vocabulary: the output's own, or the tied one; None where
        the output is no table.
        """
        return self.layers.get(f"{self.prefix}LM-Head", self.layers[f"{self.prefix}Embedding-Token"])

    def target_start(self, tokenizer) -> int | None:
        """The token with which targets of an encoder-decoder begin, by default; None where it is not known."""
        return getattr(tokenizer, "start_id", None)

    def forced_ids(self, length: int) -> dict[int, int]:
        """The tokens that the config wants in a text of so many new ones, as `GenerationOptions.forced_ids`."""
        return {}

    @property
    def has_conditions(self) -> bool:
        """Whether outputs depend on more than ids, or are not those of `forward`: a cache alone cannot decode then."""
        others = self.layer_norm_cond is not None or self.additional_input_layers is not None
        return others or self.overrides(*GRAPH)

    def description(self) -> dict[str, Any]:
        """The application and the plain options: with the config and the layers, all it takes to make this anew."""
        options = {name: getattr(self, name) for name in self.options if name not in ("dtype", "name", "layers")}
        plain = {name: value for name, value in options.items() if isinstance(value, bool | int | float | str)}
        return {"application": self.application, "options": plain}

    def forward(self, inputs: dict[str, Any], cache: Cache | None = None, index=0, last: bool = False):
        """The outputs for these inputs; see the subclass. This one is for families of embeddings, `embed`, blocks,
        `block`, and `heads`, one after the other; others write their own.

        With a cache, the inputs are the tokens for the slots from `index` on (at positions index, index + 1 ... unless
        `position_ids` says otherwise), and it returns (outputs, the cache with them). With `last=True` a language
        model's head sees only the last of the tokens: V numbers instead of T * V.
        """
        h, context = self.begin(inputs, cache, index)
        for i in range(self.config.num_hidden_layers):
            h = self.block(self.block_name(i), h, context)
        return context.result(self.heads(h, last))

    def begin(self, inputs, cache, index):
        """What the first block reads, and what attention shares."""
        return self.embed(inputs, cache, index)

    def block_name(self, i: int) -> str:
        """Prefix of the names of block i's layers."""
        return f"Transformer-{i}"

    def in_parts(self) -> bool:
        """Whether the model is its embeddings, its blocks and its heads, one after the other."""
        return type(self).forward is TransformerBuilder.forward and hasattr(self, "block") and hasattr(self, "heads")


def as_list(given) -> list:
    """One tensor, several or None, as a list."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def inputs_of(tensor) -> list:
    """The `keras.Input`s that a symbolic tensor is computed from; it may be one itself."""
    operation, node, _ = tensor._keras_history
    given = operation._inbound_nodes[node].input_tensors
    return [one for tensor in given for one in inputs_of(tensor)] if given else [tensor]
