"""GPT2: the pre-norm decoder of Radford et al. 2019, and its tensors in every layout it was published in, the
model-parallel one of CPM-LM (Zhang et al. 2020, arXiv 2012.00413) among them.
"""

from typing import ClassVar

from bert4x.checkpoints.spec import Layout, Rule, Table
from bert4x.config import ConfigStyle
from bert4x.families import register_family
from bert4x.families.layouts import gguf, megatron, uer
from bert4x.families.parts import (
    ATTENTION,
    EMBEDDINGS,
    FFN,
    NO_MAPPING,
    SLOTS,
    TRAINING,
    block,
    decoder_heads,
    options_without,
)
from bert4x.families.parts import KEYS as BERT_KEYS
from bert4x.models.builder import TransformerBuilder

# The original download of CPM-LM has no config file; its sizes are those of the paper (arXiv 2012.00413, table 2).
CPM_LM = {
    "vocab_size": 30000,
    "hidden_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 1024,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}

CONV = Layout(lead=True)  # OpenAI's conv1d of width 1

HF = Table(
    "hf",
    "gpt2",
    rules=(
        Rule("Embedding-{Token,Position}/embeddings", "transformer.{wte,wpe}.weight"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", "transformer.h.{i}.ln_1.{weight,bias}"),
        Rule(ATTENTION + "/[query,key,value]/{kernel,bias}", "transformer.h.{i}.attn.c_attn.{weight,bias}"),
        Rule(ATTENTION + "/output/{kernel,bias}", "transformer.h.{i}.attn.c_proj.{weight,bias}"),
        Rule(FFN + "-Norm/{gamma,beta}", "transformer.h.{i}.ln_2.{weight,bias}"),
        Rule(FFN + "/intermediate/{kernel,bias}", "transformer.h.{i}.mlp.c_fc.{weight,bias}"),
        Rule(FFN + "/output/{kernel,bias}", "transformer.h.{i}.mlp.c_proj.{weight,bias}"),
        Rule("Output-Norm/{gamma,beta}", "transformer.ln_f.{weight,bias}"),
    ),
    backbone=r"transformer\.",
    ignored=(r"\.attn\.(?:bias|masked_bias)$", TRAINING),  # the causal mask, once stored as a buffer
    tied=("lm_head.weight",),
    heads=decoder_heads("GPT2", "classifier"),
)

OPENAI = Table(
    "tf1",
    "gpt2",
    rules=(
        Rule("Embedding-{Token,Position}/embeddings", "model/{wte,wpe}"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", "model/h{i}/ln_1/{g,b}"),
        Rule(ATTENTION + "/[query,key,value]/kernel", "model/h{i}/attn/c_attn/w", CONV),
        Rule(ATTENTION + "/[query,key,value]/bias", "model/h{i}/attn/c_attn/b"),
        Rule(ATTENTION + "/output/kernel", "model/h{i}/attn/c_proj/w", CONV),
        Rule(ATTENTION + "/output/bias", "model/h{i}/attn/c_proj/b"),
        Rule(FFN + "-Norm/{gamma,beta}", "model/h{i}/ln_2/{g,b}"),
        Rule(FFN + "/intermediate/kernel", "model/h{i}/mlp/c_fc/w", CONV),
        Rule(FFN + "/intermediate/bias", "model/h{i}/mlp/c_fc/b"),
        Rule(FFN + "/output/kernel", "model/h{i}/mlp/c_proj/w", CONV),
        Rule(FFN + "/output/bias", "model/h{i}/mlp/c_proj/b"),
        Rule("Output-Norm/{gamma,beta}", "model/ln_f/{g,b}"),
    ),
    backbone=r"model/",
    ignored=SLOTS,
)

BERT4KERAS = Table(
    "tf1",
    "gpt2",
    rules=(
        Rule("Embedding-{Token,Position}/embeddings", "gpt/embeddings/{word,position}_embeddings"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", "gpt/transformer/layer_{i}/attention/input/LayerNorm/{gamma,beta}"),
        Rule(
            ATTENTION + "/{query,key,value}/{kernel,bias}",
            "gpt/transformer/layer_{i}/attention/self/{query,key,value}/{kernel,bias}",
        ),
        Rule(ATTENTION + "/output/{kernel,bias}", "gpt/transformer/layer_{i}/attention/output/dense/{kernel,bias}"),
        Rule(FFN + "-Norm/{gamma,beta}", "gpt/transformer/layer_{i}/input/LayerNorm/{gamma,beta}"),
        Rule(
            FFN + "/{intermediate,output}/{kernel,bias}",
            "gpt/transformer/layer_{i}/{intermediate,output}/dense/{kernel,bias}",
        ),
        Rule("Output-Norm/{gamma,beta}", "gpt/output/LayerNorm/{gamma,beta}"),
    ),
    backbone=r"gpt/",
    ignored=SLOTS,
)

LAYER = "transformer.layers.{i}"
COLUMNS, ROWS = Layout(transpose=True, shard=-1), Layout(transpose=True, shard=0)  # Megatron's parallel linear layers

MEGATRON = Table(
    "megatron",
    "gpt2",
    rules=(
        Rule("Embedding-Token/embeddings", "word_embeddings.weight", Layout(shard=0)),
        Rule("Embedding-Position/embeddings", "position_embeddings.weight"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", LAYER + ".input_layernorm.{weight,bias}"),
        Rule(ATTENTION + "/[query,key,value]/kernel", LAYER + ".attention.query_key_value.weight", COLUMNS),
        Rule(ATTENTION + "/[query,key,value]/bias", LAYER + ".attention.query_key_value.bias", Layout(shard=-1)),
        Rule(ATTENTION + "/output/kernel", LAYER + ".attention.dense.weight", ROWS),
        Rule(ATTENTION + "/output/bias", LAYER + ".attention.dense.bias"),
        Rule(FFN + "-Norm/{gamma,beta}", LAYER + ".post_attention_layernorm.{weight,bias}"),
        Rule(FFN + "/intermediate/kernel", LAYER + ".mlp.dense_h_to_4h.weight", COLUMNS),
        Rule(FFN + "/intermediate/bias", LAYER + ".mlp.dense_h_to_4h.bias", Layout(shard=-1)),
        Rule(FFN + "/output/kernel", LAYER + ".mlp.dense_4h_to_h.weight", ROWS),
        Rule(FFN + "/output/bias", LAYER + ".mlp.dense_4h_to_h.bias"),
        Rule("Output-Norm/{gamma,beta}", "transformer.final_layernorm.{weight,bias}"),
    ),
    backbone="",
    sharded=True,
)

KEYS = {
    "hidden_size": ("n_embd", "hidden_size"),
    "num_hidden_layers": ("n_layer", "num_hidden_layers"),
    "num_attention_heads": ("n_head", "num_attention_heads"),
    "max_position": ("n_positions", "n_ctx", "max_position_embeddings", "max_position"),
    "intermediate_size": ("n_inner", "intermediate_size"),
    "hidden_act": ("activation_function", "hidden_act"),
    "layer_norm_eps": ("layer_norm_epsilon", "layer_norm_eps"),
    "dropout_rate": ("resid_pdrop", "hidden_dropout_prob", "dropout_rate"),
    "attention_dropout_rate": ("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout_rate"),
}
OPENAI_KEYS = KEYS | {"vocab_size": ("n_vocab", "vocab_size")}
MEGATRON_KEYS = {name: keys for name, keys in BERT_KEYS.items() if name != "pad_token_id"}
DEFAULTS = {"layer_norm_eps": 1e-5, "hidden_act": "gelu_tanh", "segment_vocab_size": 0, "max_position": 1024}
PLAIN_ATTENTION = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


@register_family
class Gpt2(TransformerBuilder):
    """Causal whatever the application, except `unilm`, where the source is seen as a whole.

    No id is taken for padding unless the source of a `unilm` must be bounded: a causal model never sees what follows,
    and published models use every id. Pad on the right, or give `padding_mask`.

    Outputs: hidden states (B, T, D), or with `with_mlm` the language model's (B, T, V) over the tied embeddings.
    """

    model_name = "gpt2"
    applications = ("lm", "unilm", "encoder")
    config_files: ClassVar = {"tf1": "hparams.json"}
    causal = True
    bare_prompts = True
    start_differs = True
    pads_by_vocabulary = False
    options: ClassVar = options_without(TransformerBuilder.options, "with_nsp", "with_pool")
    unused: ClassVar = TransformerBuilder.unused | {
        "segment_vocab_size": lambda c: 0,
        **NO_MAPPING,
    }
    variables = (
        EMBEDDINGS[0],
        EMBEDDINGS[2],
        *block("Transformer-{i}", norm_first=True),
        ("Output-Norm/gamma", "H", None),
        ("Output-Norm/beta", "H", None),
    )
    tables = (HF, OPENAI, BERT4KERAS, MEGATRON, uer.GPT2, gguf.GPT2, *megatron.GPT2)
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_tanh", OPENAI_KEYS, DEFAULTS),
        "hf": ConfigStyle(
            "gelu_erf",
            KEYS,
            DEFAULTS,
            labels={"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
            required=PLAIN_ATTENTION,
        ),
        "megatron": ConfigStyle("gelu_tanh", MEGATRON_KEYS, DEFAULTS | {"pad_token_id": 5}),
        "uer": uer.GPT2_STYLE,
        "gguf": gguf.GPT2_STYLE,
    }
    styles["megatron-lm"] = megatron.style(styles["hf"])

    @classmethod
    def config_without_file(cls, tensors):
        """That of CPM-LM, which is published without one."""
        norm = tensors.get("0/transformer.final_layernorm.weight")
        return CPM_LM if norm is not None and norm.shape == (CPM_LM["hidden_size"],) else None

    def begin(self, inputs, cache, index):
        unilm = self.application == "unilm"
        h = self.tokens(inputs["token_ids"])
        context = self.attend(h, inputs, "unilm" if unilm else "lm", cache, index)
        return self.embed(h, inputs, index, cached=cache is not None), context

    @property
    def tokens(self):
        """The table of tokens, which is the output layer, too."""
        return self.token_embedding(masks_padding=self.application == "unilm")

    def heads(self, h, last=False):
        """The hidden states, or what the language model's head makes of them."""
        h = self.after_blocks(h)
        if not self.with_mlm:
            return h
        return self.scores("LM-Activation", self.tokens(h[:, -1:] if last else h, reverse=True))

    def embed(self, h, inputs, index, cached):
        """What the first block reads, from the embeddings of tokens."""
        return self.dropout("Embedding-Dropout", self.position_embedding(h, inputs, index, cached))

    def after_blocks(self, h):
        """The hidden states, from what the last block gives."""
        return self.norm("Output-Norm", h)

    def block(self, name, h, context):
        """Attention, then the feed-forward network; each sees its input normalised and is added to it."""
        attention = f"{name}-MultiHeadSelfAttention"
        a = self.attention(attention, self.norm(f"{attention}-Norm", h), context)
        h = self.add(f"{attention}-Add", h, self.dropout(f"{attention}-Dropout", a))

        ffn = f"{name}-FeedForward"
        f = self.feed_forward(ffn, self.norm(f"{ffn}-Norm", h))
        return self.add(f"{ffn}-Add", h, self.dropout(f"{ffn}-Dropout", f))

    @property
    def needs_segments(self) -> bool:
        return self.application == "unilm"
