"""Explicit renaming of published checkpoints' tensors to canonical paths, independent of bert4x's tables."""

import numpy as np

PROJECTIONS = ("query", "key", "value")


class Mapping:
    """Collects canonical tensors out of foreign ones."""

    def __init__(self, theirs):
        self.theirs, self.ours = theirs, {}

    def table(self, ours, theirs):
        self.ours[f"{ours}/embeddings"] = self.theirs[f"{theirs}.weight"]

    def linear(self, ours, theirs):
        self.ours[f"{ours}/kernel"] = self.theirs[f"{theirs}.weight"].T
        self.ours[f"{ours}/bias"] = self.theirs[f"{theirs}.bias"]

    def norm(self, ours, theirs):
        self.ours[f"{ours}/gamma"] = self.theirs[f"{theirs}.weight"]
        self.ours[f"{ours}/beta"] = self.theirs[f"{theirs}.bias"]

    def embeddings(self, prefix):
        self.table("Embedding-Token", f"{prefix}.word_embeddings")
        self.table("Embedding-Position", f"{prefix}.position_embeddings")
        self.table("Embedding-Segment", f"{prefix}.token_type_embeddings")
        self.norm("Embedding-Norm", f"{prefix}.LayerNorm")


def from_hf_bert(state, layers):
    m = Mapping(state)
    m.embeddings("bert.embeddings")
    for i in range(layers):
        ours, theirs = f"Transformer-{i}", f"bert.encoder.layer.{i}"
        for name in PROJECTIONS:
            m.linear(f"{ours}-MultiHeadSelfAttention/{name}", f"{theirs}.attention.self.{name}")
        m.linear(f"{ours}-MultiHeadSelfAttention/output", f"{theirs}.attention.output.dense")
        m.norm(f"{ours}-MultiHeadSelfAttention-Norm", f"{theirs}.attention.output.LayerNorm")
        m.linear(f"{ours}-FeedForward/intermediate", f"{theirs}.intermediate.dense")
        m.linear(f"{ours}-FeedForward/output", f"{theirs}.output.dense")
        m.norm(f"{ours}-FeedForward-Norm", f"{theirs}.output.LayerNorm")
    m.linear("Pooler-Dense", "bert.pooler.dense")
    m.linear("NSP-Proba", "cls.seq_relationship")
    m.linear("MLM-Dense", "cls.predictions.transform.dense")
    m.norm("MLM-Norm", "cls.predictions.transform.LayerNorm")
    m.ours["MLM-Bias/bias"] = state["cls.predictions.bias"]
    return m.ours


def from_hf_albert(state):
    m = Mapping(state)
    m.embeddings("albert.embeddings")
    m.linear("Embedding-Mapping", "albert.encoder.embedding_hidden_mapping_in")
    theirs = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    for name in PROJECTIONS:
        m.linear(f"Transformer-MultiHeadSelfAttention/{name}", f"{theirs}.attention.{name}")
    m.linear("Transformer-MultiHeadSelfAttention/output", f"{theirs}.attention.dense")
    m.norm("Transformer-MultiHeadSelfAttention-Norm", f"{theirs}.attention.LayerNorm")
    m.linear("Transformer-FeedForward/intermediate", f"{theirs}.ffn")
    m.linear("Transformer-FeedForward/output", f"{theirs}.ffn_output")
    m.norm("Transformer-FeedForward-Norm", f"{theirs}.full_layer_layer_norm")
    m.linear("Pooler-Dense", "albert.pooler")
    m.linear("NSP-Proba", "sop_classifier.classifier")
    m.linear("MLM-Dense", "predictions.dense")
    m.norm("MLM-Norm", "predictions.LayerNorm")
    m.ours["MLM-Bias/bias"] = state["predictions.bias"]
    return m.ours


def from_hf_gpt2(state, layers):
    m = Mapping(state)
    m.table("Embedding-Token", "transformer.wte")
    m.table("Embedding-Position", "transformer.wpe")
    for i in range(layers):
        ours, theirs = f"Transformer-{i}", f"transformer.h.{i}"
        m.norm(f"{ours}-MultiHeadSelfAttention-Norm", f"{theirs}.ln_1")
        kernels = np.split(state[f"{theirs}.attn.c_attn.weight"], 3, axis=1)
        biases = np.split(state[f"{theirs}.attn.c_attn.bias"], 3)
        for name, kernel, bias in zip(PROJECTIONS, kernels, biases, strict=True):
            m.ours[f"{ours}-MultiHeadSelfAttention/{name}/kernel"] = kernel
            m.ours[f"{ours}-MultiHeadSelfAttention/{name}/bias"] = bias
        m.norm(f"{ours}-FeedForward-Norm", f"{theirs}.ln_2")
        for sublayer, conv in (
            ("MultiHeadSelfAttention/output", "attn.c_proj"),
            ("FeedForward/intermediate", "mlp.c_fc"),
            ("FeedForward/output", "mlp.c_proj"),
        ):
            m.ours[f"{ours}-{sublayer}/kernel"] = state[f"{theirs}.{conv}.weight"]
            m.ours[f"{ours}-{sublayer}/bias"] = state[f"{theirs}.{conv}.bias"]
    m.norm("Output-Norm", "transformer.ln_f")
    return m.ours


def read_tf1_bert(path, layers):
    from tensorflow.train import load_checkpoint

    read = load_checkpoint(str(path)).get_tensor
    weights = {}

    def take(ours, theirs, names=("kernel", "bias")):
        weights.update({f"{ours}/{name}": read(f"{theirs}/{name}") for name in names})

    def norm(ours, theirs):
        take(ours, theirs, ("gamma", "beta"))

    for ours, theirs in (("Token", "word"), ("Position", "position"), ("Segment", "token_type")):
        weights[f"Embedding-{ours}/embeddings"] = read(f"bert/embeddings/{theirs}_embeddings")
    norm("Embedding-Norm", "bert/embeddings/LayerNorm")
    for i in range(layers):
        ours, theirs = f"Transformer-{i}", f"bert/encoder/layer_{i}"
        for name in PROJECTIONS:
            take(f"{ours}-MultiHeadSelfAttention/{name}", f"{theirs}/attention/self/{name}")
        take(f"{ours}-MultiHeadSelfAttention/output", f"{theirs}/attention/output/dense")
        norm(f"{ours}-MultiHeadSelfAttention-Norm", f"{theirs}/attention/output/LayerNorm")
        take(f"{ours}-FeedForward/intermediate", f"{theirs}/intermediate/dense")
        take(f"{ours}-FeedForward/output", f"{theirs}/output/dense")
        norm(f"{ours}-FeedForward-Norm", f"{theirs}/output/LayerNorm")
    take("Pooler-Dense", "bert/pooler/dense")
    weights["NSP-Proba/kernel"] = read("cls/seq_relationship/output_weights").T
    weights["NSP-Proba/bias"] = read("cls/seq_relationship/output_bias")
    take("MLM-Dense", "cls/predictions/transform/dense")
    norm("MLM-Norm", "cls/predictions/transform/LayerNorm")
    weights["MLM-Bias/bias"] = read("cls/predictions/output_bias")
    return weights


def read_megatron(shards, layers):
    """Column-parallel tensors are cut along outputs, row-parallel ones along inputs; each shard holds its own q|k|v."""

    def read(name, axis=None):
        arrays = [shard[name].float().numpy() for shard in shards]
        return arrays[0] if axis is None else np.concatenate(arrays, axis)

    m = Mapping(
        {"words.weight": read("word_embeddings.weight", 0), "places.weight": read("position_embeddings.weight")}
    )
    m.table("Embedding-Token", "words")
    m.table("Embedding-Position", "places")
    for i in range(layers):
        ours, theirs = f"Transformer-{i}", f"transformer.layers.{i}"
        for part in ("weight", "bias"):
            fused = [shard[f"{theirs}.attention.query_key_value.{part}"].float().numpy() for shard in shards]
            for j, name in enumerate(PROJECTIONS):
                m.theirs[f"{i}.{name}.{part}"] = np.concatenate([np.split(shard, 3)[j] for shard in fused])
        for name, axes in (
            ("attention.dense", (1, None)),
            ("mlp.dense_h_to_4h", (0, 0)),
            ("mlp.dense_4h_to_h", (1, None)),
        ):
            for part, axis in zip(("weight", "bias"), axes, strict=True):
                m.theirs[f"{i}.{name}.{part}"] = read(f"{theirs}.{name}.{part}", axis)
        for name in ("input_layernorm", "post_attention_layernorm"):
            for part in ("weight", "bias"):
                m.theirs[f"{i}.{name}.{part}"] = read(f"{theirs}.{name}.{part}")
        for name in PROJECTIONS:
            m.linear(f"{ours}-MultiHeadSelfAttention/{name}", f"{i}.{name}")
        m.linear(f"{ours}-MultiHeadSelfAttention/output", f"{i}.attention.dense")
        m.linear(f"{ours}-FeedForward/intermediate", f"{i}.mlp.dense_h_to_4h")
        m.linear(f"{ours}-FeedForward/output", f"{i}.mlp.dense_4h_to_h")
        m.norm(f"{ours}-MultiHeadSelfAttention-Norm", f"{i}.input_layernorm")
        m.norm(f"{ours}-FeedForward-Norm", f"{i}.post_attention_layernorm")
    m.theirs |= {f"last.{part}": read(f"transformer.final_layernorm.{part}") for part in ("weight", "bias")}
    m.norm("Output-Norm", "last")
    return m.ours
