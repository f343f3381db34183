"""GPT2's tensors in every layout it was published in, CPM-LM's model-parallel one among them."""

from bert4x.checkpoints.spec import Layout, Rule, Table
from bert4x.checkpoints.tables.bert import SLOTS

ATTENTION, FFN = "Transformer-{i}-MultiHeadSelfAttention", "Transformer-{i}-FeedForward"
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
    aliases=((r"^(?:model\.|module\.)", ""), (r"^(?=(?:wte|wpe|h\.\d+|ln_f)\.)", "transformer.")),
    ignored=(r"\.attn\.(?:bias|masked_bias)$",),  # the causal mask, once stored as a buffer
    tied=("lm_head.weight",),
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
