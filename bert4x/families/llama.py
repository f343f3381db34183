"""Decoders of LLaMA's kind (Touvron et al. 2023, arXiv 2302.13971): RMS norms before each part, rotary positions, gated
feed-forward networks, keys and values that several heads share. Here Llama and Mistral; `qwen.py` has the Qwens.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import TRANSPOSED, Rule, Table, alternatives
from bert4x.config import ConfigStyle
from bert4x.errors import ConfigError
from bert4x.families import register_family
from bert4x.families.layouts import gguf
from bert4x.families.parts import ATTENTION, EMBEDDINGS, FFN, NO_MAPPING, TRAINING, decoder_heads, options_without
from bert4x.families.scaling import RotaryConfig, Rotated
from bert4x.models.builder import TransformerBuilder


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(RotaryConfig):
    """The fields of Llama's config files beside those of all."""

    max_position: int = 2048
    segment_vocab_size: int = 0
    hidden_act: str = "silu"
    layer_norm_eps: float = 1e-6
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    num_key_value_heads: int | None = None  # default: as many as heads of queries
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False  # whether the embedding table is the output layer, too

    def __post_init__(self):
        super().__post_init__()
        if self.num_key_value_heads is None:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        self.check_integer("num_key_value_heads", 1)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"config says num_key_value_heads = {self.num_key_value_heads}, which {self.num_attention_heads} "
                "attention heads cannot share; expected a divisor"
            )

    def window(self, layer: int) -> int | None:
        """How many tokens a layer sees, the token itself included; None for all."""
        return None


@dataclass(frozen=True, kw_only=True)
class MistralConfig(LlamaConfig):
    """The window is the same in all layers."""

    sliding_window: int | None = None
    nullable: ClassVar = (*LlamaConfig.nullable, "sliding_window")

    def __post_init__(self):
        super().__post_init__()
        self.check_integer("sliding_window", 1, optional=True)

    def window(self, layer: int) -> int | None:
        return self.sliding_window


def table(family: str, *rules: Rule, reader: str = "transformer.") -> Table:
    """The tensors of a family in transformers, of which some are its own; `reader` is how the names of the model itself
    begin where it answers questions.
    """
    block = "model.layers.{i}."
    return Table(
        "hf",
        family,
        rules=(
            Rule("Embedding-Token/embeddings", "model.embed_tokens.weight"),
            Rule(ATTENTION + "-Norm/gamma", block + "input_layernorm.weight"),
            Rule(ATTENTION + "/{query,key,value,output}/kernel", block + "self_attn.{q,k,v,o}_proj.weight", TRANSPOSED),
            Rule(FFN + "-Norm/gamma", block + "post_attention_layernorm.weight"),
            Rule(FFN + "/{gate,intermediate,output}/kernel", block + "mlp.{gate,up,down}_proj.weight", TRANSPOSED),
            Rule("Output-Norm/gamma", "model.norm.weight"),
            Rule("LM-Head/embeddings", "lm_head.weight"),
            *rules,
        ),
        backbone=r"model\.",
        ignored=(r"rotary_emb\.inv_freq$", TRAINING),
        tied=("lm_head.weight",),
        heads=decoder_heads(family.capitalize(), reader=("model.", reader)),
    )


BIASES = Rule(ATTENTION + "/{query,key,value}/bias", "model.layers.{i}.self_attn.{q,k,v}_proj.bias")
OUTPUT_BIAS = Rule(ATTENTION + "/output/bias", "model.layers.{i}.self_attn.o_proj.bias")
FFN_BIASES = Rule(FFN + "/{gate,intermediate,output}/bias", "model.layers.{i}.mlp.{gate,up,down}_proj.bias")
HEAD_NORMS = Rule(ATTENTION + "/{query_norm,key_norm}/gamma", "model.layers.{i}.self_attn.{q,k}_norm.weight")


def without(*rules: Rule) -> tuple:
    """The variables of a decoder of this kind, but those of some rules."""
    rows = (
        EMBEDDINGS[0],
        (ATTENTION + "-Norm/gamma", "H", None),
        (ATTENTION + "/query/kernel", "HA", None),
        (ATTENTION + "/query/bias", "A", None),
        (ATTENTION + "/key/kernel", "HK", None),
        (ATTENTION + "/key/bias", "K", None),
        (ATTENTION + "/value/kernel", "HK", None),
        (ATTENTION + "/value/bias", "K", None),
        (ATTENTION + "/output/kernel", "AH", None),
        (ATTENTION + "/output/bias", "H", None),
        (ATTENTION + "/query_norm/gamma", "D", None),
        (ATTENTION + "/key_norm/gamma", "D", None),
        (FFN + "-Norm/gamma", "H", None),
        (FFN + "/gate/kernel", "HI", None),
        (FFN + "/gate/bias", "I", None),
        (FFN + "/intermediate/kernel", "HI", None),
        (FFN + "/intermediate/bias", "I", None),
        (FFN + "/output/kernel", "IH", None),
        (FFN + "/output/bias", "H", None),
        ("Output-Norm/gamma", "H", None),
        ("LM-Head/embeddings", "VH", "mlm"),
    )
    pairs = [alternatives(*(side.replace("{i}", "#") for side in (rule.ours, rule.theirs))) for rule in rules]
    left = {ours.replace("#", "{i}") for of_rule in pairs for ours, _ in of_rule}
    return tuple(row for row in rows if row[0] not in left)


KEYS = {
    "attention_head_size": ("head_dim", "attention_head_size"),
    "max_position": ("max_position_embeddings", "max_position"),
    "layer_norm_eps": ("rms_norm_eps", "layer_norm_eps"),
    "attention_dropout_rate": ("attention_dropout", "attention_dropout_rate"),
    "rope_theta": ("rope_theta", "rope_parameters.rope_theta"),
    "rope_scaling": ("rope_scaling", "rope_parameters"),
    "num_key_value_heads": ("num_key_value_heads",),
    "tie_word_embeddings": ("tie_word_embeddings",),
    "pad_token_id": (),  # every id is a real token
}
NOT_SPELLED = {"attention_bias": (), "mlp_bias": ()}
WINDOW = {"sliding_window": 4096}  # where a file of transformers' does not say it; null is none
# The base may stand among the scaling, where it goes before one that stands alone.
BASE = lambda theta: {"rope_theta": theta}, lambda config: None
NESTED_BASE = {f"{place}.rope_theta": BASE for place in ("rope_parameters", "rope_scaling")}


def styles(model: str, keys: dict[str, tuple[str, ...]], assumed: dict | None = None, **defaults) -> dict:
    """How the config files of a family are spelled, and what those of transformers mean where they are silent."""
    labels = {"model_type": model, "architectures": [f"{model.capitalize()}ForCausalLM"]}
    style = ConfigStyle("gelu_erf", KEYS | keys, defaults, labels, NESTED_BASE)
    # The latter is for bert4keras' builder, which takes any config.
    return {"hf": replace(style, defaults=defaults | (assumed or {})), "tf1": style}


@register_family
class Llama(Rotated, TransformerBuilder):
    """Causal whatever the application, except `unilm`, where the source is seen as a whole.

    No id is taken for padding unless the source of a `unilm` must be bounded, as of GPT2. Nothing is learned for a
    position: `max_position` can be raised when loading.

    Outputs: hidden states (B, T, D), or with `with_mlm` the language model's (B, T, V).
    """

    model_name = "llama"
    config_class = LlamaConfig
    applications = ("lm", "unilm", "encoder")
    causal = True
    norm_class = "RMSNorm"
    pads_by_vocabulary = False
    options: ClassVar = options_without(TransformerBuilder.options, "with_nsp", "with_pool")
    unused: ClassVar = TransformerBuilder.unused | {
        "segment_vocab_size": lambda c: 0,
        **NO_MAPPING,
        "attention_key_size": lambda c: c.attention_head_size,
        "dropout_rate": lambda c: 0.0,
        "hierarchical_position": lambda c: False,
    }
    sizes: ClassVar = {
        "K": lambda c: c.num_key_value_heads * c.attention_head_size,
        "D": lambda c: c.attention_head_size,
    }
    variables = without(HEAD_NORMS)
    absent: ClassVar = {
        ".*-MultiHeadSelfAttention/.*/bias": lambda c: not c.attention_bias,
        ".*-FeedForward/.*/bias": lambda c: not c.mlp_bias,
        "LM-Head/": lambda c: c.tie_word_embeddings,
    }
    layer_classes: ClassVar = ((r"LM-Head", "Embedding"), (r".*-Norm", "RMSNorm"), *TransformerBuilder.layer_classes)
    tables = (table("llama", BIASES, OUTPUT_BIAS, FFN_BIASES), gguf.LLAMA)
    styles: ClassVar = styles("llama", {}) | {"gguf": gguf.LLAMA_STYLE}

    @classmethod
    def config_by_tensors(cls, config, table, held):
        if table is not None and not cls.styles[table.format].spellings("tie_word_embeddings"):
            return config.replace(tie_word_embeddings="LM-Head" not in held)
        return config

    def forward(self, inputs, cache=None, index=0, last=False):
        application = "unilm" if self.application == "unilm" else "lm"
        tokens = self.token_embedding(masks_padding=application == "unilm")
        h = tokens(inputs["token_ids"])
        context = self.attend(h, inputs, application, cache, index)
        for i in range(self.config.num_hidden_layers):
            name = f"Transformer-{i}-MultiHeadSelfAttention"
            a = self.attention(name, self.norm(f"{name}-Norm", h), context, self.config.window(i))
            h = self.add(f"{name}-Add", h, a)
            name = f"Transformer-{i}-FeedForward"
            h = self.add(f"{name}-Add", h, self.feed_forward(name, self.norm(f"{name}-Norm", h)))
        h = self.norm("Output-Norm", h)
        if self.with_mlm:
            output = tokens if self.config.tie_word_embeddings else self.output_layer()
            h = self.scores("LM-Activation", output(h[:, -1:] if last else h, reverse=True))
        return context.result(h)

    def output_layer(self):
        """The table of an output layer of its own."""
        sizes = {"input_dim": self.config.vocab_size, "output_dim": self.config.hidden_size}
        start = L.initializer(self.config.initializer_range)
        return self.layer(L.Embedding, "LM-Head", embeddings_initializer=start, **sizes)

    def attention_options(self):
        own = {"key_value_heads": self.config.num_key_value_heads, "use_bias": self.config.attention_bias}
        return super().attention_options() | own

    def feed_forward_options(self):
        return super().feed_forward_options() | {"gated": True, "use_bias": self.config.mlp_bias}

    @property
    def needs_segments(self) -> bool:
        return self.application == "unilm"


@register_family
class Mistral(Llama):
    """A Llama whose layers see the last tokens only (Jiang et al. 2023, arXiv 2310.06825)."""

    model_name = "mistral"
    config_class = MistralConfig
    unused: ClassVar = Llama.unused | {"attention_bias": lambda c: False, "mlp_bias": lambda c: False}
    variables = without(BIASES, OUTPUT_BIAS, FFN_BIASES, HEAD_NORMS)
    tables = (table("mistral", reader="model."),)
    styles: ClassVar = styles("mistral", NOT_SPELLED | {"sliding_window": ("sliding_window",)}, WINDOW)
