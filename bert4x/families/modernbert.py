"""ModernBERT and mmBERT: a pre-norm encoder without biases, with rotary positions, gated feed-forward layers, and
windows in most layers (Warner et al. 2024, arXiv 2412.13663; Marone et al. 2025, arXiv 2509.06888).
"""

from dataclasses import dataclass
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import TRANSPOSED, Head, Rule, Table
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.errors import ConfigError
from bert4x.families import parts, register_family
from bert4x.families.parts import ANSWER_SCORES, ATTENTION, EMBEDDINGS, ENTITY_TAGS, FFN, LABEL_SCORES, TRAINING, linear
from bert4x.json_files import shown
from bert4x.models.builder import TransformerBuilder

LAYER = "model.layers.{i}."
KINDS = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig(TransformerConfig):
    """Every `global_every`-th layer, the first among them, sees all tokens, at angles of `rotary_theta`; the others
    those at most `local_attention` // 2 away, at angles of `local_theta`. `pooling` is "cls" or "mean".
    """

    global_every: int = 3
    local_attention: int = 128
    rotary_theta: float = 160000.0
    local_theta: float = 10000.0
    pooling: str = "cls"

    def __post_init__(self):
        super().__post_init__()
        self.check_integer("global_every", 1)
        self.check_integer("local_attention", 1)
        self.check_positive("rotary_theta", "local_theta")
        if self.pooling not in ("cls", "mean"):
            raise ConfigError(f"config says classifier_pooling = {shown(self.pooling)}; expected 'cls' or 'mean'")

    def is_global(self, layer: int) -> bool:
        return layer % self.global_every == 0

    @property
    def layer_types(self) -> list[str]:
        """As config files list them."""
        return [KINDS[not self.is_global(i)] for i in range(self.num_hidden_layers)]


def read_layer_types(types) -> dict[str, int]:
    """The distance between global layers. Raises: ConfigError for other patterns."""
    rest = types[1:] if isinstance(types, list) else [None]
    every = 1 + next((i for i, kind in enumerate(rest) if kind == KINDS[0]), len(rest))
    if types != [KINDS[i % every != 0] for i in range(len(rest) + 1)]:
        raise ConfigError(
            f"config says layer_types = {shown(types)}; expected a list in which every n-th, from the first on, is "
            f"{KINDS[0]!r}, the others {KINDS[1]!r}"
        )
    return {"global_every": every}


def only_default(kind) -> dict:
    """Nothing. Raises: ConfigError for rotary positions that are scaled."""
    if kind != "default":
        raise ConfigError(f"config says rope_type = {shown(kind)}; only 'default' is supported here")
    return {}


def not_scaled(given) -> dict:
    """Nothing. Raises: ConfigError for the older word of scaled rotary positions."""
    raise ConfigError(f"config says rope_scaling = {shown(given)}; not supported here")


KEYS = {
    "max_position": ("max_position_embeddings", "max_position"),
    "hidden_act": ("hidden_activation", "hidden_act"),
    "layer_norm_eps": ("norm_eps", "layer_norm_eps"),
    "dropout_rate": ("mlp_dropout", "dropout_rate"),
    "attention_dropout_rate": ("attention_dropout", "attention_dropout_rate"),
    "pad_token_id": ("pad_token_id",),
    "global_every": ("global_attn_every_n_layers",),
    "local_attention": ("local_attention",),
    "rotary_theta": ("global_rope_theta",),
    "local_theta": ("local_rope_theta",),
    "pooling": ("classifier_pooling",),
    "segment_vocab_size": (),
}
DEFAULTS = {
    "layer_norm_eps": 1e-5,
    "dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "segment_vocab_size": 0,
    "max_position": 8192,
    "pad_token_id": 50283,
}
BIASES = {
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
}


def head(task: str, variables: tuple, architecture: str, **settings) -> Head:
    """A head on what the dense layer, activation and norm make of the text, or of each token."""
    rules = linear(variables[0][0].partition("/")[0], "classifier")
    labels = {"text-classification": "labels", "token-classification": "tags"}.get(task)
    of_dropout = ("classifier_dropout", 0.0)
    return Head(task, variables, rules, architecture, settings=settings, labels=labels, dropout=of_dropout)


HF = Table(
    "hf",
    "modernbert",
    rules=(
        Rule("Embedding-Token/embeddings", "model.embeddings.tok_embeddings.weight"),
        Rule("Embedding-Norm/gamma", "model.embeddings.norm.weight"),
        Rule(ATTENTION + "-Norm/gamma", LAYER + "attn_norm.weight"),
        Rule(ATTENTION + "/[query,key,value]/kernel", LAYER + "attn.Wqkv.weight", TRANSPOSED),
        Rule(ATTENTION + "/output/kernel", LAYER + "attn.Wo.weight", TRANSPOSED),
        Rule(FFN + "-Norm/gamma", LAYER + "mlp_norm.weight"),
        Rule(FFN + "/[gate,intermediate]/kernel", LAYER + "mlp.Wi.weight", TRANSPOSED),
        Rule(FFN + "/output/kernel", LAYER + "mlp.Wo.weight", TRANSPOSED),
        Rule("Output-Norm/gamma", "model.final_norm.weight"),
        Rule("Pooler-Dense/kernel", "head.dense.weight", TRANSPOSED),
        Rule("Pooler-Norm/gamma", "head.norm.weight"),
        Rule("MLM-Bias/bias", "decoder.bias"),
    ),
    backbone=r"model\.",
    ignored=(TRAINING,),
    tied=("decoder.weight",),
    heads=(
        head("text-classification", LABEL_SCORES, "ModernBertForSequenceClassification", pooler=True),
        head(
            "token-classification",
            ENTITY_TAGS,
            "ModernBertForTokenClassification",
            method="softmax",
            transform=True,
        ),
        head("reading-comprehension", ANSWER_SCORES, "ModernBertForQuestionAnswering", transform=True),
    ),
    architectures=((frozenset({"mlm", "pool"}), "ModernBertForMaskedLM"), (frozenset(), "ModernBertModel")),
)


@register_family
class ModernBert(TransformerBuilder):
    """An encoder of long texts. Nothing is learned for a position: `max_position` can be raised when loading.

    Outputs: hidden states (B, T, D); or of the heads asked for the pooled text (B, D), then the masked language model
    (B, T, V). Both heads use one dense layer with activation and norm: of the pooled text, and of every token. With
    `with_transform` the hidden states are what these make of them, as published heads for tokens and answers read them.
    """

    model_name = "modernbert"
    applications = ("encoder",)
    config_class = ModernBertConfig
    norm_class = "ScaleNorm"
    needs_segments = False
    options: ClassVar = parts.options_without(TransformerBuilder.options, "with_nsp") | {"with_transform": False}
    unused: ClassVar = TransformerBuilder.unused | {
        "segment_vocab_size": lambda c: 0,
        **parts.NO_MAPPING,
        "hierarchical_position": lambda c: False,
    }
    absent: ClassVar = {"Transformer-0-MultiHeadSelfAttention-Norm": lambda c: True}
    layer_classes: ClassVar = ((r".*-Norm", "ScaleNorm"), *TransformerBuilder.layer_classes)
    variables = (
        EMBEDDINGS[0],
        ("Embedding-Norm/gamma", "E", None),
        (ATTENTION + "-Norm/gamma", "H", None),
        (ATTENTION + "/query/kernel", "HQ", None),
        (ATTENTION + "/key/kernel", "HQ", None),
        (ATTENTION + "/value/kernel", "HA", None),
        (ATTENTION + "/output/kernel", "AH", None),
        (FFN + "-Norm/gamma", "H", None),
        (FFN + "/gate/kernel", "HI", None),
        (FFN + "/intermediate/kernel", "HI", None),
        (FFN + "/output/kernel", "IH", None),
        ("Output-Norm/gamma", "H", None),
        ("Pooler-Dense/kernel", "HH", "pool"),
        ("Pooler-Norm/gamma", "H", "pool"),
        ("MLM-Bias/bias", "V", "mlm"),
    )
    tables = (HF,)
    styles: ClassVar = {
        "hf": ConfigStyle(
            "gelu_erf",
            KEYS,
            DEFAULTS,
            labels={"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]},
            composed={
                "layer_types": (read_layer_types, lambda c: c.layer_types),
                "embedding_dropout": (lambda rate: {}, lambda c: c.dropout_rate),
                "rope_scaling": (not_scaled, lambda c: None),
                **{f"rope_parameters.{kind}.rope_type": (only_default, lambda c: None) for kind in KINDS},
                "rope_parameters.full_attention.rope_theta": (lambda v: {"rotary_theta": v}, lambda c: None),
                "rope_parameters.sliding_attention.rope_theta": (lambda v: {"local_theta": v}, lambda c: None),
            },
            required=BIASES | {"classifier_activation": "gelu", "tie_word_embeddings": True},
        )
    }

    def forward(self, inputs, cache=None, index=0, last=False):
        tokens = self.token_embedding(masks_padding=True)
        h = tokens(inputs["token_ids"])
        context = self.attend(h, inputs, self.application, cache, index)
        h = self.dropout("Embedding-Dropout", self.norm("Embedding-Norm", h))
        for i in range(self.config.num_hidden_layers):
            h = self.block(i, h, context)
        return context.result(self.heads(self.norm("Output-Norm", h), tokens, inputs["token_ids"]))

    def block(self, i, h, context):
        """Attention, then the feed-forward network; each sees its input normalised, but the first attention of all."""
        name = f"Transformer-{i}-MultiHeadSelfAttention"
        normed = self.norm(f"{name}-Norm", h) if i else h
        scheme = L.Rotary(theta=self.config.rotary_theta if self.config.is_global(i) else self.config.local_theta)
        window = None if self.config.is_global(i) else self.config.local_attention // 2 + 1
        h = self.add(f"{name}-Add", h, self.attention(name, normed, context, window, positions=scheme))
        name = f"Transformer-{i}-FeedForward"
        f = self.feed_forward(name, self.norm(f"{name}-Norm", h))
        return self.add(f"{name}-Add", h, self.dropout(f"{name}-Dropout", f))

    def heads(self, h, tokens, ids):
        """The pooled text, and the masked language model, as they were asked for."""
        outputs = []
        if self.with_pool:
            mean = self.config.pooling == "mean"
            pooled = self.layer(L.MeanOfTokens, "Pooler")(h, ids) if mean else self.layer(L.FirstToken, "Pooler")(h)
            outputs.append(self.transform(pooled, "gelu_erf" if self.with_pool is True else self.with_pool))
        if self.with_mlm:
            m = self.layer(L.Bias, "MLM-Bias")(tokens(self.transform(h, "gelu_erf"), reverse=True))
            outputs.append(self.scores("MLM-Activation", m))
        if not outputs and self.with_transform:
            return self.transform(h, "gelu_erf")
        return self.simplify(outputs or [h])

    def transform(self, x, activation):
        """The dense layer, activation and norm of both heads."""
        dense = self.layer(L.Dense, "Pooler-Dense", units=self.config.hidden_size, use_bias=False)
        act = self.layer(L.Activation, f"Pooler-{activation}", activation=L.activation(activation))
        return self.norm("Pooler-Norm", act(dense(x)))

    def attention_options(self):
        return super().attention_options() | {"use_bias": False}

    def feed_forward_options(self):
        return super().feed_forward_options() | {"use_bias": False, "gated": True}
