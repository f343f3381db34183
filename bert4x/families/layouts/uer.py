"""BERT, ALBERT and GPT2 as UER-py and TencentPretrain (Zhao et al. 2019, arXiv 1909.05658) keep them: `.bin` files of
PyTorch with names of their own, and a config file with words of its own.
"""

from bert4x.checkpoints.spec import Head, Layout, Rule, Table
from bert4x.config import ConfigStyle
from bert4x.families.parts import ENTITY_TAGS, LABEL_SCORES, TRAINING, linear

SELF, FFN = "MultiHeadSelfAttention", "FeedForward"


def block(ours: str, theirs: str) -> tuple[Rule, ...]:
    """The rules of one block, of which these are the names here and there."""
    attention, parts = f"{theirs}.self_attn.", "{query,key,value}"
    return (
        *linear(f"{ours}-{SELF}/{parts}", attention + "linear_layers.{0,1,2}"),
        *linear(f"{ours}-{SELF}/output", attention + "final_linear"),
        Rule(f"{ours}-{SELF}-Norm/{{gamma,beta}}", f"{theirs}.layer_norm_1.{{gamma,beta}}"),
        *linear(f"{ours}-{FFN}/{{intermediate,output}}", f"{theirs}.feed_forward.linear_{{1,2}}"),
        Rule(f"{ours}-{FFN}-Norm/{{gamma,beta}}", f"{theirs}.layer_norm_2.{{gamma,beta}}"),
    )


# Names that changed: in 2023 those of embeddings and heads, in 2022 that of the next-sentence head.
RENAMED = (
    (r"(^|\.)embedding\.word_embedding\.weight$", r"\1embedding.word.embedding.weight"),
    (r"(^|\.)embedding\.position_embedding\.weight$", r"\1embedding.pos.embedding.weight"),
    (r"(^|\.)embedding\.segment_embedding\.weight$", r"\1embedding.seg.embedding.weight"),
    (r"(^|\.)target\.(mlm|sp)_(linear_[12]|layer_norm)\.", r"\1target.\2.\3."),
    (r"(^|\.)target\.nsp_(linear_[12])\.", r"\1target.sp.\2."),
    (r"(^|\.)target\.output_layer\.", r"\1target.lm.output_layer."),
)
BACKBONE = r"(?:embedding|encoder)\."
HEADS = (  # of its scripts run_classifier.py and run_ner.py
    Head(
        "text-classification",
        LABEL_SCORES,
        linear("Label-Scores", "output_layer_2"),
        settings={"pooler": True},
        labels="labels",
        pooler=linear("Pooler-Dense", "output_layer_1"),
    ),
    Head(
        "token-classification",
        ENTITY_TAGS,
        linear("Entity-Tags", "output_layer"),
        settings={"method": "softmax"},
        labels="tags",
    ),
)


def encoder(family: str, blocks: tuple[Rule, ...]) -> Table:
    """The table of an encoder with BERT's embeddings and heads. Of segments, number 0 is that of padding."""
    return Table(
        "uer",
        family,
        rules=(
            Rule("Embedding-{Token,Position}/embeddings", "embedding.{word,pos}.embedding.weight"),
            Rule("Embedding-Segment/embeddings", "embedding.seg.embedding.weight", Layout(ahead=1)),
            Rule("Embedding-Norm/{gamma,beta}", "embedding.layer_norm.{gamma,beta}"),
            *linear("Embedding-Mapping", "encoder.linear"),
            *blocks,
            *linear("Pooler-Dense", "target.sp.linear_1"),
            *linear("NSP-Proba", "target.sp.linear_2"),
            *linear("MLM-Dense", "target.mlm.linear_1"),
            Rule("MLM-Norm/{gamma,beta}", "target.mlm.layer_norm.{gamma,beta}"),
            Rule("MLM-Bias/bias", "target.mlm.linear_2.bias"),
        ),
        backbone=BACKBONE,
        aliases=RENAMED,
        ignored=(TRAINING,),
        tied=("target.mlm.linear_2.weight",),
        heads=HEADS,
    )


BERT = encoder("bert", block("Transformer-{i}", "encoder.transformer.{i}"))
ALBERT = encoder("albert", block("Transformer", "encoder.transformer"))
GPT2 = Table(
    "uer",
    "gpt2",
    rules=(
        Rule("Embedding-{Token,Position}/embeddings", "embedding.{word,pos}.embedding.weight"),
        *block("Transformer-{i}", "encoder.transformer.{i}"),
        Rule("Output-Norm/{gamma,beta}", "encoder.layer_norm.{gamma,beta}"),
    ),
    backbone=BACKBONE,
    aliases=RENAMED,
    ignored=(TRAINING,),
    tied=("target.lm.output_layer.weight",),
)

KEYS = {
    "embedding_size": ("emb_size", "embedding_size"),
    "intermediate_size": ("feedforward_size", "intermediate_size"),
    "num_hidden_layers": ("layers_num", "num_hidden_layers"),
    "num_attention_heads": ("heads_num", "num_attention_heads"),
    "max_position": ("max_seq_length", "max_position_embeddings"),
    "dropout_rate": ("dropout", "hidden_dropout_prob"),
    "attention_dropout_rate": ("attention_probs_dropout_prob", "dropout"),
    "segment_vocab_size": ("type_vocab_size",),
    "pad_token_id": (),
}


LABELS = {"encoder": "transformer", "tie_weights": True}
POST_NORM = LABELS | {"embedding": ["word", "pos", "seg"], "mask": "fully_visible"}
PRE_NORM = {"remove_embedding_layernorm": True, "layernorm_positioning": "pre"}


def style(defaults: dict, labels: dict, keys: dict = KEYS) -> ConfigStyle:
    """How the config files of a family are spelled; of the vocabulary they say nothing."""
    positioning = labels.get("layernorm_positioning", "post")
    required = {"mask": labels["mask"], "layernorm_positioning": positioning, "has_residual_attention": False}
    named = {"tanh": "gelu_fast", "measured": ("vocab_size", "max_position")}
    return ConfigStyle("gelu_erf", keys, defaults, labels, required=required, **named)


BERT_STYLE = style({"pad_token_id": 0}, POST_NORM | {"target": ["mlm", "sp"]})
ALBERT_STYLE = style(
    {"pad_token_id": 0, "embedding_mapping": True},
    POST_NORM | {"target": ["mlm", "sp"], "parameter_sharing": True, "factorized_embedding_parameterization": True},
)
GPT2_STYLE = style(
    {"layer_norm_eps": 1e-5, "segment_vocab_size": 0},
    LABELS | PRE_NORM | {"embedding": ["word", "pos"], "mask": "causal", "target": ["lm"]},
    {field: keys for field, keys in KEYS.items() if field != "pad_token_id"},
)
