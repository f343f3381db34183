"""GAU-alpha (Su et al. 2022, github.com/ZhuiyiTechnology/GAU-alpha): a RoFormerV2 of gated attention units, which are
attention and feed-forward network in one.
"""

from dataclasses import dataclass
from typing import ClassVar

from bert4x.checkpoints.spec import Rule, Table
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.families import register_family
from bert4x.families.parts import DEFAULTS, EMBEDDINGS, KEYS, SLOTS
from bert4x.families.roformer_v2 import RoformerV2
from bert4x.families.scaling import ROPE_PARAMETERS, RotaryConfig
from bert4x.models.cache import new_cache

UNIT, THEIRS = "Transformer-{i}-GatedAttentionUnit", "GAU_alpha/encoder/layer_{i}/gau"

ZHUIYI = Table(
    "tf1",
    "gau",
    rules=(
        Rule("Embedding-{Token,Segment}/embeddings", "bert/embeddings/{word,token_type}_embeddings"),
        Rule(UNIT + "/{intermediate,output}/kernel", THEIRS + "/{i_dense,o_dense}/kernel"),
        Rule(UNIT + "/{query_scale,key_scale}", THEIRS + "/{q_scaleoffset,k_scaleoffset}/gamma"),
    ),
    backbone=r"bert/|GAU_alpha/",
    ignored=SLOTS,
)


@dataclass(frozen=True, kw_only=True)
class GauConfig(RotaryConfig):
    """GAU-alpha was trained with attention that grows with the logarithm of the length."""

    log_n: int | None = 512


@register_family
class Gau(RoformerV2):
    """Rotary positions; one head of `attention_key_size` features, which looks at values of `intermediate_size`.

    Outputs: those of RoFormerV2.
    """

    model_name = "gau"
    aliases = ("gau_alpha",)
    config_class = GauConfig
    attention_class = "GatedAttentionUnit"
    sizes: ClassVar = {
        "K": lambda c: c.attention_key_size,
        "G": lambda c: 2 * c.intermediate_size + c.attention_key_size,
    }
    variables = (
        *EMBEDDINGS[:2],
        (UNIT + "/intermediate/kernel", "HG", None),
        (UNIT + "/query_scale", "K", None),
        (UNIT + "/key_scale", "K", None),
        (UNIT + "/output/kernel", "IH", None),
    )
    layer_classes = ((r".*-GatedAttentionUnit", "GatedAttentionUnit"), *RoformerV2.layer_classes)
    tables = (ZHUIYI,)
    styles: ClassVar = {
        "tf1": ConfigStyle(
            "gelu_erf",
            KEYS,
            DEFAULTS | {"hidden_act": "silu", "attention_key_size": 128},
            composed=ROPE_PARAMETERS,
        )
    }
    unused: ClassVar = RoformerV2.unused | {
        "num_attention_heads": lambda c: 1,
        "attention_head_size": lambda c: c.hidden_size,
        "residual_attention_scores": lambda c: False,
    }

    def __init__(self, config: TransformerConfig, application: str = "encoder", **options):
        super().__init__(config, application, **options)
        self.check_fields(config, ("num_attention_heads", "attention_head_size"))  # which no table of weights shows

    def attention_options(self):
        c, options = self.config, super().attention_options()
        options |= {"head_size": c.intermediate_size, "activation": c.hidden_act}
        return {name: value for name, value in options.items() if name not in ("heads", "use_bias")}

    def block(self, name, h, context):
        unit = f"{name}-GatedAttentionUnit"
        a = self.dropout(f"{unit}-Dropout", self.attention(unit, h, context))
        return self.norm(f"{unit}-Norm", self.add(f"{unit}-Add", h, a))

    def new_cache(self, batch_size: int, length: int):
        of_values = self.config.replace(attention_head_size=self.config.intermediate_size)
        return new_cache(of_values, batch_size, length, self.policy.compute_dtype)
