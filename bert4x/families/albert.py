"""ALBERT: BERT whose blocks share one set of weights (Lan et al. 2019, arXiv 1909.11942), and its published tensors."""

import re
from typing import ClassVar

from bert4x.checkpoints.spec import Rule, Table
from bert4x.config import ConfigStyle
from bert4x.families import bert, parts, register_family
from bert4x.families.layouts import uer
from bert4x.families.parts import DEFAULTS, EMBEDDINGS, HEADS, KEYS, block, hf_heads, linear

ATTENTION, FFN = "Transformer-MultiHeadSelfAttention", "Transformer-FeedForward"  # of every block
GROUP = "bert/encoder/transformer/group_0/inner_group_0"
LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"
DROPOUT = "classifier_dropout_prob", 0.1

GOOGLE = Table(
    "tf1",
    "albert",
    rules=(
        *(rule for rule in bert.GOOGLE.rules if "{i}" not in rule.ours),  # embeddings and heads are BERT's
        Rule(
            ATTENTION + "/{query,key,value}/{kernel,bias}", GROUP + "/attention_1/self/{query,key,value}/{kernel,bias}"
        ),
        Rule(ATTENTION + "/output/{kernel,bias}", GROUP + "/attention_1/output/dense/{kernel,bias}"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", GROUP + "/LayerNorm/{gamma,beta}"),
        Rule(FFN + "/intermediate/{kernel,bias}", GROUP + "/ffn_1/intermediate/dense/{kernel,bias}"),
        Rule(FFN + "/output/{kernel,bias}", GROUP + "/ffn_1/intermediate/output/dense/{kernel,bias}"),
        Rule(FFN + "-Norm/{gamma,beta}", GROUP + "/LayerNorm_1/{gamma,beta}"),
    ),
    backbone=r"bert/",
    ignored=parts.SLOTS,
    heads=parts.google_heads(DROPOUT),
    foreign=((r"group_[1-9]\d*/|inner_group_[1-9]", "ALBERT with more than one group of layers is not supported"),),
)

HF = Table(
    "hf",
    "albert",
    rules=(
        Rule(
            "Embedding-{Token,Segment,Position}/embeddings",
            "albert.embeddings.{word,token_type,position}_embeddings.weight",
        ),
        Rule("Embedding-Norm/{gamma,beta}", "albert.embeddings.LayerNorm.{weight,bias}"),
        *linear("Embedding-Mapping", "albert.encoder.embedding_hidden_mapping_in"),
        *linear(ATTENTION + "/{query,key,value,output}", LAYER + ".attention.{query,key,value,dense}"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", LAYER + ".attention.LayerNorm.{weight,bias}"),
        *linear(FFN + "/{intermediate,output}", LAYER + ".{ffn,ffn_output}"),
        Rule(FFN + "-Norm/{gamma,beta}", LAYER + ".full_layer_layer_norm.{weight,bias}"),
        *linear("Pooler-Dense", "albert.pooler"),
        *linear("NSP-Proba", "sop_classifier.classifier"),
        *linear("MLM-Dense", "predictions.dense"),
        Rule("MLM-Norm/{gamma,beta}", "predictions.LayerNorm.{weight,bias}"),
        Rule("MLM-Bias/bias", "predictions.bias"),
    ),
    backbone=r"albert\.",
    aliases=(
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"^predictions\.decoder\.bias$", "predictions.bias"),
    ),
    ignored=(r"embeddings\.position_ids$", r"embeddings\.token_type_ids$", parts.TRAINING),
    tied=("predictions.decoder.weight",),
    foreign=(
        (
            r"albert_layer_groups\.[1-9]|albert_layers\.[1-9]",
            "ALBERT with more than one group of layers is not supported",
        ),
    ),
    heads=hf_heads("Albert", DROPOUT),
    architectures=(
        (frozenset({"mlm", "nsp"}), "AlbertForPreTraining"),
        (frozenset({"mlm"}), "AlbertForMaskedLM"),
        (frozenset(), "AlbertModel"),
    ),
)


@register_family
class Albert(bert.Bert):
    """Every block is the same block."""

    model_name = "albert"
    config_files: ClassVar = {"tf1": "albert_config.json"}
    decoder_key = None
    variables = EMBEDDINGS + block("Transformer") + HEADS
    tables = (GOOGLE, HF, uer.ALBERT)
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_tanh", KEYS, DEFAULTS),
        "hf": parts.hf_style(
            "albert",
            "AlbertForPreTraining",
            defaults=DEFAULTS | {"hidden_act": "gelu_tanh", "embedding_size": 128, "embedding_mapping": True},
            required={"position_embedding_type": "absolute", "embedding_mapping": True},
        ),
        "uer": uer.ALBERT_STYLE,
    }

    def block_name(self, i: int) -> str:
        return "Transformer"


@register_family
class AlbertUnshared(bert.Bert):
    """Every block starts as a copy of ALBERT's block and learns on its own (Su, kexue.fm/archives/7187)."""

    model_name = "albert_unshared"
    config_files: ClassVar = {}
    decoder_key = None
    tables = ()
    variables = EMBEDDINGS + block("Transformer-{i}") + HEADS
    written_as = "albert"

    @classmethod
    def as_written(cls, path: str) -> str:
        return re.sub(r"^Transformer-\d+-", "Transformer-", path)
