"""Megatron-LM's BERT: norms come before what they are of, and one after the last block (Shoeybi et al. 2019, arXiv
1909.08053). Erlangshen-MegatronBert is one.
"""

from typing import ClassVar

from bert4x.checkpoints.spec import Rule
from bert4x.families import bert, register_family
from bert4x.families.gpt2 import Gpt2
from bert4x.families.layouts import megatron
from bert4x.families.parts import ATTENTION, EMBEDDINGS, FFN, HEADS, NO_MAPPING, block, hf_style

LAYER = "bert.encoder.layer.{i}."
HF = bert.HF.of(
    "megatron_bert",
    classes=("Bert", "MegatronBert"),
    without=("Embedding-Norm", "Embedding-Mapping", "Attention-Norm", "FeedForward-Norm"),
    rules=(
        Rule(ATTENTION + "-Norm/{gamma,beta}", LAYER + "attention.ln.{weight,bias}"),
        Rule(FFN + "-Norm/{gamma,beta}", LAYER + "ln.{weight,bias}"),
        Rule("Output-Norm/{gamma,beta}", "bert.encoder.ln.{weight,bias}"),
    ),
)


@register_family
class MegatronBert(bert.Bert):
    """BERT with norms first, and none of the embeddings.

    Outputs: those of BERT.
    """

    model_name = "megatron_bert"
    variables = (
        *EMBEDDINGS[:3],
        *block("Transformer-{i}", norm_first=True),
        ("Output-Norm/gamma", "H", None),
        ("Output-Norm/beta", "H", None),
        *HEADS,
    )
    tables = (HF, *megatron.BERT)
    styles: ClassVar = {"hf": hf_style("megatron-bert", "MegatronBertForPreTraining")}
    styles["megatron-lm"] = megatron.style(styles["hf"])
    unused: ClassVar = bert.Bert.unused | NO_MAPPING
    block = Gpt2.block  # norms first

    def norm_embeddings(self, h):
        return self.dropout("Embedding-Dropout", h)

    def heads(self, h, last=False):
        return super().heads(self.norm("Output-Norm", h), last)
