"""RoFormerV2 (Su et al. 2022, github.com/ZhuiyiTechnology/roformer-v2): a RoFormer without biases, whose norms learn
nothing.
"""

from dataclasses import replace
from typing import Any, ClassVar

from bert4x.checkpoints.spec import Rule
from bert4x.config import ConfigStyle
from bert4x.errors import ConfigError
from bert4x.families import bert, register_family, roformer
from bert4x.families.parts import DEFAULTS, KEYS, NO_MAPPING, options_without
from bert4x.families.scaling import ROPE_PARAMETERS
from bert4x.json_files import shown

ABSENT = ("Embedding-Position", "Mapping", "Norm", "Pooler", "NSP", "MLM", "/bias")
OPTIONS = ("with_nsp", "with_pool", "layer_norm_cond", "layer_norm_cond_hidden_size", "layer_norm_cond_hidden_act")

GOOGLE = bert.GOOGLE.of("roformer_v2", without=ABSENT[:-1])


def kernels_of(rule: Rule) -> Rule:
    """A rule of kernels and biases as one of kernels only."""
    ours, theirs = (text.replace("{kernel,bias}", "kernel") for text in (rule.ours, rule.theirs))
    return replace(rule, ours=ours, theirs=theirs)


def read_norm(kind: Any) -> dict[str, Any]:
    """Raises: ConfigError for norms with weights."""
    if kind == "layer_norm":
        raise ConfigError(f"config says norm_type = {shown(kind)}; expected that of a RoFormerV2, 'rms_norm'")
    return {}


@register_family
class RoformerV2(roformer.Roformer):
    """BERT with rotary positions and next to nothing but matrices. `max_position` can be raised when loading.

    Outputs: the hidden states (B, T, D), or with `with_mlm` the language model's (B, T, V) over the tied embeddings.
    """

    model_name = "roformer_v2"
    norm_class = "RMSNorm"
    variables = tuple(row for row in bert.Bert.variables if not any(part in row[0] for part in ABSENT))
    tables = (
        replace(GOOGLE, rules=tuple(kernels_of(rule) for rule in GOOGLE.rules)),
        replace(roformer.HF.of("roformer_v2", without=ABSENT), heads=tuple(roformer.others)),
    )
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS, labels={"model_type": "roformer_v2"}, composed=ROPE_PARAMETERS),
        "hf": ConfigStyle(
            "gelu_erf",
            KEYS,
            DEFAULTS | {"max_position": 1536},
            labels={"model_type": "roformer", "architectures": ["RoFormerForMaskedLM"], "use_bias": False},
            composed=ROPE_PARAMETERS | {"norm_type": (read_norm, lambda config: "rms_norm")},
            required={"rotary_value": False, "add_cross_attention": False},
        ),
    }
    options: ClassVar = options_without(bert.Bert.options, *OPTIONS)
    unused: ClassVar = roformer.Roformer.unused | NO_MAPPING

    def norm_options(self, name):
        return super().norm_options(name) | {"scale": False}

    def attention_options(self):
        return super().attention_options() | {"use_bias": False}

    def feed_forward_options(self):
        return super().feed_forward_options() | {"use_bias": False}

    def norm_embeddings(self, h):
        return self.norm("Embedding-Norm", self.dropout("Embedding-Dropout", h))

    def masked_language_model(self, h, last=False):
        m = self.dropout("Output-MLM-Dropout", h[:, -1:] if last else h)
        return self.scores("Output-MLM-Activation", self.token_embedding(masks_padding=True)(m, reverse=True))
