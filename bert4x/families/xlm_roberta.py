"""RoBERTa and XLM-R as fairseq built them: BERT whose positions are counted after the padding id (Liu et al. 2019,
arXiv 1907.11692; Conneau et al. 2019, arXiv 1911.02116). The Chinese models that are called RoBERTa-wwm are BERTs.
"""

from dataclasses import replace
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import Rule
from bert4x.config import ConfigStyle
from bert4x.families import bert, register_family
from bert4x.families.parts import KEYS, hf_heads, linear, options_without

PAD = 1
FIRST = PAD + 1  # the row of the first position: fairseq keeps those up to the padding id's for other uses


def table(family: str, prefix: str):
    """The tensors of a family whose classes begin with a prefix; its head for texts has a pooler of its own name."""
    base = bert.HF.of(family, names=("bert.", "roberta."), classes=("Bert", prefix), without=("MLM-", "NSP-"))
    text, *others = hf_heads(prefix, ("classifier_dropout", None))
    scores = linear("Label-Scores", "classifier.out_proj")
    text = replace(text, rules=scores, pooler=linear("Pooler-Dense", "classifier.dense"))
    return replace(
        base,
        rules=(
            *base.rules,
            *linear("MLM-Dense", "lm_head.dense"),
            Rule("MLM-Norm/{gamma,beta}", "lm_head.layer_norm.{weight,bias}"),
            Rule("MLM-Bias/bias", "lm_head.bias"),
        ),
        aliases=(*bert.HF.aliases[:2], (r"^lm_head\.decoder\.bias$", "lm_head.bias")),
        tied=("lm_head.decoder.weight",),
        heads=(text, *others),
        architectures=((frozenset({"mlm"}), f"{prefix}ForMaskedLM"), (frozenset(), f"{prefix}Model")),
    )


def style(model_type: str, prefix: str) -> ConfigStyle:
    """Config files count the rows of the table of positions; `max_position` is how long texts can be."""
    return ConfigStyle(
        "gelu_erf",
        KEYS | {"pad_token_id": ("pad_token_id",), "max_position": ()},
        {"pad_token_id": PAD, "max_position": 512 - FIRST},
        labels={"model_type": model_type, "architectures": [f"{prefix}ForMaskedLM"]},
        composed={
            "max_position_embeddings": (
                lambda rows: {"max_position": rows - FIRST if type(rows) is int else rows},
                lambda config: config.max_position + FIRST,
            )
        },
        required={"pad_token_id": PAD, "position_embedding_type": "absolute", "add_cross_attention": False},
    )


@register_family
class XlmRoberta(bert.Bert):
    """Texts of a hundred languages: XLM-R, multilingual-e5, bge-m3, bge-reranker. Padding has no position, wherever it
    stands. There is one kind of segment, so that segment ids are 0.

    Outputs: those of BERT, but no next sentence.
    """

    model_name = "xlm_roberta"
    applications = ("encoder", "lm")
    options: ClassVar = options_without(bert.Bert.options, "with_nsp")
    sizes: ClassVar = {"R": lambda c: c.max_position + FIRST}
    variables = tuple(
        (path, "RE" if path == "Embedding-Position/embeddings" else letters, head)
        for path, letters, head in bert.Bert.variables
        if head != "nsp"
    )
    tables = (table("xlm_roberta", "XLMRoberta"),)
    styles: ClassVar = {"hf": style("xlm-roberta", "XLMRoberta")}
    first_position = FIRST
    mlm_activation = "gelu_erf"  # whatever the config says of the blocks

    def position_embedding(self, x, inputs, index=0, cached=False):
        if not cached and "position_ids" not in inputs:
            positions = self.layer(L.RealPositions, "Embedding-Position-Ids")(x, inputs["token_ids"])
            inputs = inputs | {"position_ids": positions}
        return super().position_embedding(x, inputs, index, cached)


@register_family
class FairseqRoberta(XlmRoberta):
    """RoBERTa under its own names, as guwenbert's; `model="roberta"` is a BERT, as in bert4keras."""

    model_name = "fairseq_roberta"
    variables = XlmRoberta.variables
    tables = (table("fairseq_roberta", "Roberta"),)
    styles: ClassVar = {"hf": style("roberta", "Roberta")}
