"""GPT2_ML (imcaspar, github.com/imcaspar/gpt2-ml): the decoder of Grover (Zellers et al. 2019, arXiv 1905.12616), which
is no GPT2: it has a norm after its embeddings, and two around the feed-forward network of each block.
"""

from dataclasses import replace
from typing import ClassVar

from bert4x.checkpoints.spec import Rule, Table
from bert4x.config import ConfigStyle
from bert4x.families import gpt2, register_family
from bert4x.families.parts import ATTENTION, EMBEDDINGS, FFN, KEYS, SLOTS, block

NORMS = tuple((f"{FFN}-Norm-{n}/{part}", "H", None) for n in (0, 1) for part in ("gamma", "beta"))
MATRICES = tuple(row for row in block("Transformer-{i}") if "-Norm" not in row[0])

# The configuration "mega" of the repository, which both checkpoints have; their archives lack it.
MEGA = {
    "hidden_size": 1536,
    "num_hidden_layers": 48,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "max_position_embeddings": 1024,
    "initializer_range": 0.014142135623731,
}

GROVER = Table(
    "tf1",
    "gpt2_ml",
    rules=(
        Rule("Embedding-{Token,Position}/embeddings", "newslm/embeddings/{word,pos}_embed"),
        Rule("Embedding-Norm/{gamma,beta}", "newslm/embeddings/LayerNorm_embed_norm/{gamma,beta}"),
        Rule(
            ATTENTION + "/{query,key,value,output}/{kernel,bias}",
            "newslm/layer{i:02d}/{query_layer,key_layer,value_layer,context_projection_layer}/{kernel,bias}",
        ),
        Rule(FFN + "-Norm-{0,1}/{gamma,beta}", "newslm/layer{i:02d}/LayerNorm_{mlp_ln0,mlp_ln1}/{gamma,beta}"),
        Rule(FFN + "/{intermediate,output}/{kernel,bias}", "newslm/layer{i:02d}/{intermediate,output}/{kernel,bias}"),
    ),
    backbone=r"newslm/",
    ignored=(*SLOTS, r"/adafactor_v[cr]?$"),
)

# As the port of ghosthamlet names it (github.com/ghosthamlet/gpt2-ml-torch): like a GPT2 of transformers.
TORCH = replace(
    gpt2.HF.of(
        "gpt2_ml",
        without=("-Norm",),
        rules=(
            Rule("Embedding-Norm/{gamma,beta}", "transformer.emb_norm.{weight,bias}"),
            Rule(FFN + "-Norm-{0,1}/{gamma,beta}", "transformer.h.{i}.{ln_1,ln_2}.{weight,bias}"),
        ),
    ),
    heads=(),  # the port has no classes of them
)
DEFAULTS = gpt2.DEFAULTS | {"hidden_act": "gelu_erf"}


@register_family
class Gpt2Ml(gpt2.Gpt2):
    """Causal whatever the application, except `unilm`; padding and outputs are those of `Gpt2`."""

    model_name = "gpt2_ml"
    config_files: ClassVar = {}
    start_differs = False
    variables = (EMBEDDINGS[0], *EMBEDDINGS[2:5], *MATRICES[:8], *NORMS[:2], *MATRICES[8:], *NORMS[2:])
    tables = (GROVER, TORCH)
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS),
        "hf": ConfigStyle("gelu_erf", gpt2.KEYS, DEFAULTS, labels={"model_type": "gpt2_ml"}),
    }

    @classmethod
    def config_without_file(cls, tensors):
        """That of the published checkpoints, whose vocabularies differ."""
        table = tensors.get("newslm/embeddings/word_embed")
        is_mega = table is not None and table.shape[1:] == (MEGA["hidden_size"],)
        return MEGA | {"vocab_size": table.shape[0]} if is_mega else None

    def embed(self, h, inputs, index, cached):
        return self.norm("Embedding-Norm", self.position_embedding(h, inputs, index, cached))

    def after_blocks(self, h):
        return h

    def block(self, name, h, context):
        """Attention is added to its input; the feed-forward network sees that normalised, and is added to what it was
        before the norm; another norm follows.
        """
        attention, ffn = f"{name}-MultiHeadSelfAttention", f"{name}-FeedForward"
        a = self.dropout(f"{attention}-Dropout", self.attention(attention, h, context))
        h = self.add(f"{attention}-Add", h, a)
        f = self.feed_forward(ffn, self.norm(f"{ffn}-Norm-0", h))
        h = self.add(f"{ffn}-Add", h, self.dropout(f"{ffn}-Dropout", f))
        return self.norm(f"{ffn}-Norm-1", h)
