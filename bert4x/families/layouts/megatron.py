"""GPT2 and BERT as Megatron-LM itself keeps them: `iter_0000001/mp_rank_00/model_optim_rng.pt`, one file a rank. Names
of its later models, Megatron Core's, are aliases here.

Query, key and value are one tensor, in which they follow each other as the version of the checkpoint has it: each whole
(0), the three numbers of every feature together (1), or the three vectors of every head (2 and 3). `ranks.py` puts a
word for that before the names.
"""

from bert4x.checkpoints.spec import Layout, Rule, Table
from bert4x.config import ConfigStyle
from bert4x.families.parts import ATTENTION, FFN, linear

LAYER = "language_model.encoder.layers.{i}."
WIDE, LONG = Layout(transpose=True, shard=-1), Layout(transpose=True, shard=0)
ORDERS = {"by_projection.": (), "by_feature.": (1, 2, 0), "by_head.": (1, 0, 2)}
CORE = (  # names of Megatron Core; of Transformer Engine's layers, which have the norm before them in them
    (r"(by_\w+\.)embedding\.", r"\1language_model.embedding."),
    (r"(by_\w+\.)(?:de|en)coder\.(layers|final_layernorm)\.", r"\1language_model.encoder.\2."),
    (r"\.(?:self_attention\.linear_qkv\.layer_norm_)(weight|bias)$", r".input_layernorm.\1"),
    (r"\.(?:mlp\.linear_fc1\.layer_norm_|pre_mlp_layernorm\.)(weight|bias)$", r".post_attention_layernorm.\1"),
    (r"\.linear_qkv\.", ".query_key_value."),
    (r"\.linear_proj\.", ".dense."),
    (r"\.linear_fc1\.", ".dense_h_to_4h."),
    (r"\.linear_fc2\.", ".dense_4h_to_h."),
)
GATHERED = ATTENTION + "/[query,key,value]/"


def gathered(transpose: bool, order: tuple[int, ...]) -> Layout:
    """Query, key and value in one tensor of every rank."""
    axes = (3, -1, "attention_head_size") if order else ()
    return Layout(transpose=transpose, shard=-1, axes=axes, order=order)


def tables(family: str, *rules: Rule) -> tuple[Table, ...]:
    """The tables of a family, one for each order; `rules` are its own."""
    return tuple(table(family, word, order, rules) for word, order in ORDERS.items())


def table(family: str, word: str, order: tuple[int, ...], own: tuple[Rule, ...]) -> Table:
    """The table of a family in one order."""
    rules = (
        Rule("Embedding-Token/embeddings", "language_model.embedding.word_embeddings.weight", Layout(shard=0)),
        Rule("Embedding-Position/embeddings", "language_model.embedding.position_embeddings.weight"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", LAYER + "input_layernorm.{weight,bias}"),
        Rule(GATHERED + "kernel", LAYER + "self_attention.query_key_value.weight", gathered(True, order)),
        Rule(GATHERED + "bias", LAYER + "self_attention.query_key_value.bias", gathered(False, order)),
        Rule(ATTENTION + "/output/kernel", LAYER + "self_attention.dense.weight", LONG),
        Rule(ATTENTION + "/output/bias", LAYER + "self_attention.dense.bias"),
        Rule(FFN + "-Norm/{gamma,beta}", LAYER + "post_attention_layernorm.{weight,bias}"),
        Rule(FFN + "/intermediate/kernel", LAYER + "mlp.dense_h_to_4h.weight", WIDE),
        Rule(FFN + "/intermediate/bias", LAYER + "mlp.dense_h_to_4h.bias", Layout(shard=-1)),
        Rule(FFN + "/output/kernel", LAYER + "mlp.dense_4h_to_h.weight", LONG),
        Rule(FFN + "/output/bias", LAYER + "mlp.dense_4h_to_h.bias"),
        Rule("Output-Norm/{gamma,beta}", "language_model.encoder.final_layernorm.{weight,bias}"),
        *own,
    )
    return Table(
        "megatron-lm",
        family,
        rules=tuple(Rule(rule.ours, word + rule.theirs, rule.layout) for rule in rules),
        backbone=rf"{word}language_model\.",
        aliases=(
            (r"language_model\.transformer\.", "language_model.encoder."),
            (r"\.attention\.", ".self_attention."),
            *CORE,
        ),
        ignored=(r"\._extra_state$",),
        foreign=((r"output_layer\.weight$", "its output layer is not its embedding table, as in GPT2 and BERT it is"),),
        sharded=True,
    )


GPT2 = tables("gpt2")
BERT = tables(
    "megatron_bert",
    Rule("Embedding-Segment/embeddings", "language_model.embedding.tokentype_embeddings.weight"),
    *linear("Pooler-Dense", "language_model.pooler.dense"),
    *linear("NSP-Proba", "binary_head"),
    *linear("MLM-Dense", "lm_head.dense"),
    Rule("MLM-Norm/{gamma,beta}", "lm_head.layernorm.{weight,bias}"),
    Rule("MLM-Bias/bias", "lm_head.bias", Layout(shard=0)),
)


def style(hf: ConfigStyle) -> ConfigStyle:
    """A config file beside such a checkpoint, which has none of its own: as transformers spells it. Where it is silent,
    it means what Megatron-LM does: gelu by tanh, an epsilon of 1e-5.
    """
    usual = {"layer_norm_eps": 1e-5, "hidden_act": "gelu_tanh"}
    return ConfigStyle(hf.gelu, hf.keys, hf.defaults | usual, hf.labels, required=hf.required)
