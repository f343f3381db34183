"""DeBERTa's second version: BERT whose attention multiplies words with distances, too (He et al. 2020, arXiv
2006.03654). Erlangshen-DeBERTa-v2 is one; DeBERTa-v3 and mDeBERTa have its layout.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from bert4x import layers as L
from bert4x.activation_names import read_activation, write_activation
from bert4x.checkpoints.spec import Rule
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.errors import ConfigError
from bert4x.families import bert, parts, register_family
from bert4x.families.parts import ATTENTION, DEFAULTS, EMBEDDINGS, HEADS, KEYS, block, hf_heads, linear
from bert4x.json_files import shown

LAYER = "deberta.encoder.layer.{i}.attention.self."
TABLE, CONVOLUTION = "Embedding-Relative", "Embedding-Convolution"
MOST = 2**16  # of the distances: a table in memory has the bucket of each


@dataclass(frozen=True, kw_only=True)
class DebertaV2Config(TransformerConfig):
    """`max_relative_positions` below 1 means as many as `max_position`, which does not change with it later.
    `conv_kernel_size` of 0: no convolution. `legacy` says how files are to name the head for masked tokens; both names
    are read.
    """

    position_buckets: int = -1
    max_relative_positions: int = -1
    position_biased_input: bool = False
    conv_kernel_size: int = 0
    conv_act: str = "tanh"
    pooler_hidden_act: str = "gelu_erf"
    legacy: bool = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("position_buckets", "max_relative_positions", "conv_kernel_size"):
            self.check_integer(name, -1, MOST)
        for name in ("conv_act", "pooler_hidden_act"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"config says {name} = {shown(getattr(self, name))}; expected a name such as 'gelu'")
        if self.max_relative_positions < 1:
            object.__setattr__(self, "max_relative_positions", self.max_position)
        buckets, most = self.position_buckets, self.max_relative_positions
        # Distances beyond half of the buckets share some, up to `most`; without room for that, none may be beyond.
        no_room = most - 1 <= buckets // 2 < self.max_position - 1
        if buckets > 0 and (buckets % 2 or buckets < 4 or no_room):
            raise ConfigError(
                f"config says position_buckets = {buckets}, of {most} distances; expected an even number from 4 to "
                f"below {2 * most - 2}, or at least {2 * self.max_position - 2}, one for each distance"
            )
        if self.conv_kernel_size > 0 and self.conv_kernel_size % 2 == 0:
            raise ConfigError(f"config says conv_kernel_size = {self.conv_kernel_size}; expected an odd number")

    @property
    def rows(self) -> int:
        """Of the table of distances."""
        return 2 * (self.position_buckets if self.position_buckets > 0 else self.max_relative_positions)


def only(key: str, *values) -> tuple:
    """A key that files must say one way; the first of these is written."""

    def read(found):
        if found not in values:
            raise ConfigError(f"config says {key} = {shown(found)}; only {values[0]!r} is supported here")
        return {}

    return read, lambda config: values[0]


def activation(name: str) -> tuple:
    """A key that names an activation, as `hidden_act` does."""
    style = ConfigStyle("gelu_erf")
    return (
        lambda found: {name: read_activation(found, style)} if isinstance(found, str) else {name: found},
        lambda config: write_activation(getattr(config, name), style),
    )


text, token, answer, uie = hf_heads("DebertaV2", (None, None))
LEGACY = replace(
    bert.HF.of(
        "deberta_v2",
        names=("bert.", "deberta."),
        classes=("Bert", "DebertaV2"),
        without=("/{query,key,value}/", "Embedding-Mapping", "Pooler", "NSP"),
        rules=(
            *linear(ATTENTION + "/{query,key,value}", LAYER + "{query_proj,key_proj,value_proj}"),
            Rule(TABLE + "/embeddings", "deberta.encoder.rel_embeddings.weight"),
            Rule(TABLE + "/row_norm/{gamma,beta}", "deberta.encoder.LayerNorm.{weight,bias}"),
            *linear(CONVOLUTION, "deberta.encoder.conv.conv"),
            Rule(CONVOLUTION + "/output_norm/{gamma,beta}", "deberta.encoder.conv.LayerNorm.{weight,bias}"),
            *linear("Pooler-Dense", "pooler.dense"),
        ),
    ),
    aliases=(
        *bert.HF.aliases,
        (r"^lm_predictions\.lm_head\.bias$", "cls.predictions.bias"),
        (r"^lm_predictions\.lm_head\.", "cls.predictions.transform."),
    ),
    remnants=(r"^mask_predictions\.",),  # of DeBERTa's training
    heads=(replace(text, dropout=("cls_dropout", None)), token, answer, uie),
    architectures=((frozenset({"mlm"}), "DebertaV2ForMaskedLM"), (frozenset(), "DebertaV2Model")),
    fits=lambda config: config.legacy,
)
HEAD = "lm_predictions.lm_head."
NEW = replace(
    LEGACY,
    rules=(
        *(rule for rule in LEGACY.rules if not rule.ours.startswith("MLM-")),
        *linear("MLM-Dense", HEAD + "dense"),
        Rule("MLM-Norm/{gamma,beta}", HEAD + "LayerNorm.{weight,bias}"),
        Rule("MLM-Bias/bias", HEAD + "bias"),
    ),
    aliases=(
        *bert.HF.aliases[:2],
        (r"^cls\.predictions\.(?:decoder\.)?bias$", HEAD + "bias"),
        (r"^cls\.predictions\.transform\.", HEAD),
    ),
    fits=lambda config: not config.legacy,
)


@register_family
class DebertaV2(bert.Bert):
    """BERT that knows positions by distances; the first layer is followed by a convolution, if the config has one.

    Outputs: those of BERT, but no next sentence.
    """

    model_name = "deberta_v2"
    aliases = ("deberta",)
    decoder_key = None
    applications = ("encoder",)
    config_class = DebertaV2Config
    attention_class = "DisentangledAttention"
    # Its convolution would see into other texts of a row.
    options: ClassVar = parts.options_without(bert.Bert.options, "with_nsp", "packed")
    sizes: ClassVar = {"R": lambda c: c.rows, "K": lambda c: c.conv_kernel_size}
    absent: ClassVar = bert.Bert.absent | {
        "Embedding-Position/": lambda c: not c.position_biased_input,
        CONVOLUTION: lambda c: c.conv_kernel_size < 1,
    }
    layer_classes: ClassVar = (
        (TABLE, "DistanceTable"),
        (CONVOLUTION, "LocalConvolution"),
        (r".*-MultiHeadSelfAttention", "DisentangledAttention"),
        *bert.Bert.layer_classes,
    )
    variables = (
        *EMBEDDINGS[:5],
        (TABLE + "/embeddings", "RH", None),
        (TABLE + "/row_norm/gamma", "H", None),
        (TABLE + "/row_norm/beta", "H", None),
        *block("Transformer-{i}"),
        (CONVOLUTION + "/kernel", "KHH", None),
        (CONVOLUTION + "/bias", "H", None),
        (CONVOLUTION + "/output_norm/gamma", "H", None),
        (CONVOLUTION + "/output_norm/beta", "H", None),
        *(row for row in HEADS if row[2] != "nsp"),
    )
    tables = (LEGACY, NEW)
    styles: ClassVar = {
        "hf": ConfigStyle(
            "gelu_erf",
            KEYS | {"max_relative_positions": ("max_relative_positions",), "conv_act": (), "pooler_hidden_act": ()},
            DEFAULTS | {"layer_norm_eps": 1e-7, "segment_vocab_size": 0, "position_biased_input": True},
            labels={"model_type": "deberta-v2", "architectures": ["DebertaV2ForMaskedLM"]},
            composed={
                "relative_attention": only("relative_attention", True),
                "share_att_key": only("share_att_key", True),
                "norm_rel_ebd": only("norm_rel_ebd", "layer_norm"),
                "conv_groups": only("conv_groups", 1),
                "pos_att_type": only("pos_att_type", "c2p|p2c", "p2c|c2p", ["c2p", "p2c"], ["p2c", "c2p"]),
                "conv_act": activation("conv_act"),
                "pooler_hidden_act": activation("pooler_hidden_act"),
            },
            assumed={"relative_attention": False, "share_att_key": False, "norm_rel_ebd": "none", "pos_att_type": []},
        )
    }
    unused: ClassVar = bert.Bert.unused | {
        **parts.NO_MAPPING,
        "hierarchical_position": lambda c: False,
        "residual_attention_scores": lambda c: False,
    }

    def positions(self):
        return L.Disentangled(self.config.position_buckets, self.config.max_relative_positions)

    def position_embedding(self, x, inputs, index=0, cached=False):
        return super().position_embedding(x, inputs, index, cached) if self.config.position_biased_input else x

    def forward(self, inputs, cache=None, index=0, last=False):
        c = self.config
        h, context = self.begin(inputs, cache, index)
        embedded, shared = h, {"epsilon": c.layer_norm_eps, "stddev": c.initializer_range}
        table = self.layer(L.DistanceTable, TABLE, rows=c.rows, **shared)(h)
        for i in range(c.num_hidden_layers):
            name = self.block_name(i)
            context.bias = self.dropout(f"{name}-Distances-Dropout", table)
            h = self.block(name, h, context)
            if i == 0 and c.conv_kernel_size > 0:
                of_conv = {"width": c.conv_kernel_size, "activation": c.conv_act, "dropout": c.dropout_rate}
                h = self.layer(L.LocalConvolution, CONVOLUTION, **of_conv, **shared)(embedded, h)
        return context.result(self.heads(h, last))

    def pooler_activation(self):
        return self.config.pooler_hidden_act
