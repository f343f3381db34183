"""NEZHA: BERT whose attention adds vectors of distances to keys and values (Wei et al. 2019, arXiv 1909.00204)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from bert4x import layers as L
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.families import bert, register_family
from bert4x.families.parts import DEFAULTS, KEYS, hf_heads, hf_style

POSITIONS = ("Embedding-Position",)
MOST = 2**16  # of the distances: all have a vector, made in memory

HF = replace(
    bert.HF.of("nezha", names=("bert.", "nezha."), classes=("Bert", "Nezha"), without=POSITIONS),
    ignored=(*bert.HF.ignored, r"\.relative_positions_encoding\."),  # the vectors, which are computed
    heads=hf_heads("Nezha", ("classifier_dropout", 0.1)),
)


@dataclass(frozen=True, kw_only=True)
class NezhaConfig(TransformerConfig):
    """With the distance beyond which all distances are one."""

    max_relative_position: int = 64

    def __post_init__(self):
        super().__post_init__()
        self.check_integer("max_relative_position", 1, MOST)


@register_family
class Nezha(bert.Bert):
    """BERT with relative positions. Nothing is learned for a position: `max_position` can be raised when loading.

    Outputs: those of BERT.
    """

    model_name = "nezha"
    config_class = NezhaConfig
    variables = tuple(row for row in bert.Bert.variables if not row[0].startswith(POSITIONS))
    tables = (bert.GOOGLE.of("nezha", without=POSITIONS), HF)
    computed = ("^Embedding-Relative-Position",)
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS, labels={"use_relative_position": True}),
        "hf": hf_style(
            "nezha", "NezhaForPreTraining", required={"use_relative_position": True, "add_cross_attention": False}
        ),
    }
    unused: ClassVar = bert.Bert.unused | {"hierarchical_position": lambda c: False}

    def positions(self):
        return L.RelativeVectors(self.config.max_relative_position)

    def position_embedding(self, x, inputs, index=0, cached=False):
        return x  # attention knows positions
