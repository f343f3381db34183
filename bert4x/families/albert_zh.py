"""brightmart's ALBERT (github.com/brightmart/albert_zh), which came out before Google's code did: only words are mapped
to the hidden size, and the same matrix maps back to their size before the output layer.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import Rule
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.errors import ConfigError
from bert4x.families import albert, bert, register_family
from bert4x.families.gpt2 import Gpt2
from bert4x.families.parts import DEFAULTS, HEADS, KEYS, block, google_heads
from bert4x.json_files import shown

MAPPING = "Embedding-Mapping"


@dataclass(frozen=True, kw_only=True)
class AlbertZhConfig(TransformerConfig):
    """With where norms are: "postln" as in BERT, or "preln", before what they are of, and none after the last block."""

    ln_type: str = "postln"

    def __post_init__(self):
        super().__post_init__()
        if self.ln_type not in ("postln", "preln"):
            raise ConfigError(f"config says ln_type = {shown(self.ln_type)}; expected 'postln' or 'preln'")


def shared(rule: Rule) -> Rule:
    """A rule of BERT's for the block that all layers are."""
    ours, theirs = rule.ours.replace("-{i}-", "-"), rule.theirs.replace("layer_{i}", "layer_shared")
    return replace(rule, ours=ours, theirs=theirs)


TF1 = replace(
    bert.GOOGLE.of(
        "albert_zh", without=(MAPPING,), rules=(Rule(MAPPING + "/kernel", "bert/embeddings/word_embeddings_2"),)
    ),
    heads=google_heads(albert.DROPOUT),
    remnants=(),
)
TF1 = replace(TF1, rules=tuple(map(shared, TF1.rules)))


@register_family
class AlbertZh(albert.Albert):
    """ALBERT whose segments and positions are as large as hidden states.

    Outputs: those of BERT.
    """

    model_name = "albert_zh"
    config_class = AlbertZhConfig
    absent: ClassVar = {"Embedding-Segment/": lambda c: not c.segment_vocab_size}
    layer_classes: ClassVar = ((MAPPING, "TiedProjection"), *bert.Bert.layer_classes)
    variables = (
        ("Embedding-Token/embeddings", "VE", None),
        (MAPPING + "/kernel", "EH", None),
        ("Embedding-Segment/embeddings", "SH", None),
        ("Embedding-Position/embeddings", "PH", None),
        ("Embedding-Norm/gamma", "H", None),
        ("Embedding-Norm/beta", "H", None),
        *block("Transformer"),
        *((path, letters.replace("E", "H"), head) for path, letters, head in HEADS),
    )
    tables = (TF1,)
    styles: ClassVar = {"tf1": ConfigStyle("gelu_tanh", KEYS, DEFAULTS | {"embedding_size": 128})}
    unused: ClassVar = albert.Albert.unused | {"embedding_mapping": lambda c: c.embedding_size != c.hidden_size}

    def embed(self, inputs, cache, index):
        tokens = self.token_embedding(masks_padding=True)(inputs["token_ids"])
        h = self.mapping()(tokens)
        if self.config.segment_vocab_size:
            h = self.add("Embedding-Token-Segment", h, self.segment_embedding()(inputs["segment_ids"]))
        h = self.norm_embeddings(self.position_embedding(h, inputs, index, cached=cache is not None))
        return h, self.attend(tokens, inputs, self.application, cache, index)

    def mapping(self):
        """The matrix between the size of words and the hidden size."""
        c = self.config
        return self.layer(L.TiedProjection, MAPPING, units=c.hidden_size, stddev=c.initializer_range)

    def segment_embedding(self):
        c = self.config
        start = L.initializer(c.initializer_range)
        sizes = {"input_dim": c.segment_vocab_size, "output_dim": c.hidden_size}
        return self.layer(L.Embedding, "Embedding-Segment", embeddings_initializer=start, **sizes)

    def block(self, name, h, context):
        return Gpt2.block(self, name, h, context) if self.config.ln_type == "preln" else super().block(name, h, context)

    def before_output(self, h):
        m = self.norm("MLM-Norm", self.dense("MLM-Dense", self.config.hidden_size, self.config.hidden_act)(h))
        return self.mapping()(m, reverse=True)
