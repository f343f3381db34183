"""Layers by name, and the parts of models that architectures share."""

from typing import TYPE_CHECKING, Any, ClassVar

from bert4x import layers as L
from bert4x.models.builder_options import Options

if TYPE_CHECKING:
    from bert4x.config import TransformerConfig


class Parts(Options):
    """Makes the layers of a model: each when it is first asked for by its name, with the sizes of the config."""

    config: "TransformerConfig"
    first_position: ClassVar[int] = 0  # the row of position 0 in the table of positions
    norm_class: ClassVar[str] = "LayerNorm"  # the class of norms in `bert4x.layers`

    def __post_init__(self):
        super().__post_init__()
        self.new_layers: set[str] = set()  # that no checkpoint holds

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
        conditional = self.layer_norm_cond is not None and "-Norm" in layer and "/" in rest
        return layer in self.new_layers or conditional or rest.rpartition("/")[2].startswith(("lora_", "seed_"))

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
        """Normalisation, conditional if the model is."""
        condition = self.layer_norm_cond
        if isinstance(condition, list | tuple):
            condition = condition[0]
        layer = self.layer(
            getattr(L, self.norm_class),
            name,
            conditional=condition is not None,
            hidden_units=self.layer_norm_cond_hidden_size,
            hidden_activation=self.layer_norm_cond_hidden_act,
            **self.norm_options(name),
        )
        return layer(x) if condition is None else layer(x, condition)

    def norm_options(self, name: str) -> dict[str, Any]:
        """What the norm of a name is made with (see `norm_class`). A family may add to it."""
        return {"epsilon": self.config.layer_norm_eps}

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

    def segment_embedding(self):
        """The embedding table of segments."""
        return self.layer(
            L.Embedding,
            "Embedding-Segment",
            input_dim=self.config.segment_vocab_size,
            output_dim=self.config.embedding_size,
            embeddings_initializer=L.initializer(self.config.initializer_range),
        )

    def position_embedding(self, x, inputs, index=0, cached=False):
        """Adds the position embedding; with a cache, the first token is at position `index`."""
        layer = self.position_table("Embedding-Position", self.first_position)
        if self.custom_position_ids or "position_ids" in inputs:
            return layer(x, inputs["position_ids"])
        return layer(x, index + L.ops.arange(L.ops.shape(x)[1])) if cached else layer(x)

    def position_table(self, name: str, first: int):
        """A table of positions, in which row `first` is of position 0."""
        return self.layer(
            L.PositionEmbedding,
            name,
            max_position=self.config.max_position,
            stddev=self.config.initializer_range,
            hierarchical=self.config.hierarchical_position,
            first=first,
        )

    def scores(self, name: str, logits):
        """What the language model's head gives of its logits: probabilities, or what `with_mlm` says."""
        activation = L.activation("softmax" if self.with_mlm is True else self.with_mlm)
        return self.layer(L.Activation, name, activation=activation)(logits)

    def feed_forward(self, name: str, x):
        """The feed-forward network."""
        return self.layer(L.FeedForward, name, **self.feed_forward_options())(x)

    def feed_forward_options(self) -> dict[str, Any]:
        """What feed-forward layers are made with (see `FeedForward`). A family may add to it."""
        return {
            "units": self.config.intermediate_size,
            "activation": self.config.hidden_act,
            "stddev": self.config.initializer_range,
            "recompute": self.recompute,
        }
