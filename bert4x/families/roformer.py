"""RoFormer: BERT whose attention turns queries and keys by their positions (Su et al. 2021, arXiv 2104.09864)."""

from dataclasses import replace
from typing import ClassVar

from bert4x.config import ConfigStyle
from bert4x.families import bert, register_family
from bert4x.families.parts import DEFAULTS, KEYS, hf_heads, hf_style, on_hidden_layer
from bert4x.families.scaling import ROPE_PARAMETERS, Rotated

POSITIONS = ("Embedding-Position",)

text, *others = hf_heads("RoFormer", (None, None))
HF = replace(
    bert.HF.of("roformer", names=("bert.", "roformer."), without=POSITIONS),
    ignored=(*bert.HF.ignored, r"encoder\.embed_positions\.weight$"),  # sines and cosines, which are computed
    heads=(on_hidden_layer(text, lambda config: config.hidden_act), *others),
    architectures=((frozenset({"mlm"}), "RoFormerForMaskedLM"), (frozenset(), "RoFormerModel")),
)


@register_family
class Roformer(Rotated, bert.Bert):
    """BERT with rotary positions. Nothing is learned for a position: `max_position` can be raised when loading.

    Outputs: those of BERT. Published checkpoints have the head of the masked language model, RoFormer-Sim a pooler too.
    """

    model_name = "roformer"
    interleaved = True
    variables = tuple(row for row in bert.Bert.variables if not row[0].startswith(POSITIONS))
    tables = (bert.GOOGLE.of("roformer", without=POSITIONS), HF)
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS, labels={"model_type": "roformer"}, composed=ROPE_PARAMETERS),
        "hf": hf_style(
            "roformer",
            "RoFormerForMaskedLM",
            defaults=DEFAULTS | {"max_position": 1536},
            composed=ROPE_PARAMETERS,
            required={"rotary_value": False, "add_cross_attention": False},
        ),
    }
    unused: ClassVar = bert.Bert.unused | {"hierarchical_position": lambda c: False}

    def position_embedding(self, x, inputs, index=0, cached=False):
        return x  # attention knows positions
