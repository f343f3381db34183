"""Tiny random models of odd sizes: no two dimensions are equal, so that a swapped or transposed axis cannot pass."""

import numpy as np

DECODER = {"hidden_act": "gelu_tanh", "layer_norm_eps": 1e-5, "segment_vocab_size": 0, "pad_token_id": None}
DEFAULTS = {
    "gpt2": DECODER,
    "gpt": DECODER,
    "gpt2_ml": DECODER | {"hidden_act": "gelu_erf"},
    "ernie": {"use_task_id": True, "task_vocab_size": 5, "segment_vocab_size": 4},
    "xlm_roberta": {"segment_vocab_size": 1, "pad_token_id": 1},
    "deberta_v2": {"position_buckets": 8, "max_relative_positions": 11, "conv_kernel_size": 3, "conv_act": "tanh"}
    | {"position_biased_input": False, "pooler_hidden_act": "gelu_erf", "segment_vocab_size": 0},
    "albert_zh": {"hidden_act": "gelu_tanh"},
    "modernbert": {"attention_head_size": 6, "segment_vocab_size": 0, "layer_norm_eps": 1e-5, "pooling": "mean"}
    | {"global_every": 2, "local_attention": 6, "rotary_theta": 100.0, "local_theta": 10.0},
    "roformer": {"attention_head_size": 6},
    "roformer_v2": {"attention_head_size": 6, "hidden_act": "relu"},
    "gau": {"num_attention_heads": 1, "hidden_size": 14, "attention_key_size": 6, "hidden_act": "silu"},
    "nezha": {"attention_head_size": 6, "max_relative_position": 4},
    "qwen3": {"hidden_act": "silu", "layer_norm_eps": 1e-5, "segment_vocab_size": 0, "pad_token_id": None}
    | {"num_attention_heads": 6, "num_key_value_heads": 2, "attention_head_size": 8, "rope_theta": 100.0}
    | {"dropout_rate": 0.0, "attention_dropout_rate": 0.0},
    "transformer": {"hidden_act": "relu", "layer_norm_eps": 1e-6, "segment_vocab_size": 0, "num_decoder_layers": 2},
    "t5": {
        "hidden_act": "gelu_tanh",
        "layer_norm_eps": 1e-6,
        "segment_vocab_size": 0,
        "num_decoder_layers": 2,
        "attention_head_size": 6,
        "gated": True,
        "tied_output": False,
        "relative_buckets": 8,
        "relative_max_distance": 11,
    },
}


def tiny_config(model="bert", **overrides):
    """TransformerConfig's fields as a dict; overriding a size changes those derived from it."""
    config = {
        "model": model,
        "vocab_size": 97,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "intermediate_size": 53,
        "max_position": 29,
        "segment_vocab_size": 2,
        "hidden_act": "gelu_erf",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    config |= DEFAULTS.get(model, {}) | overrides
    config.setdefault("hidden_size", 7 * config["num_attention_heads"])
    config.setdefault("attention_head_size", config["hidden_size"] // config["num_attention_heads"])
    config.setdefault("attention_key_size", config["attention_head_size"])
    config.setdefault("embedding_size", 11 if model.startswith("albert") else config["hidden_size"])
    return config


def weight_shapes(config, heads=True, condition_size=None, condition_hidden_size=None):
    """Canonical path -> shape of every variable; heads adds pooler, NSP and MLM; condition_size conditional norms."""
    c, shapes = config, {}
    hidden, embedding = c["hidden_size"], c["embedding_size"]
    keys, values = (c["num_attention_heads"] * c[f"attention_{size}_size"] for size in ("key", "head"))

    def dense(path, inputs, outputs):
        shapes[f"{path}/kernel"], shapes[f"{path}/bias"] = (inputs, outputs), (outputs,)

    def norm(path, size):
        shapes[f"{path}/gamma"], shapes[f"{path}/beta"] = (size,), (size,)
        if condition_size:
            if condition_hidden_size:
                shapes[f"{path}/hidden_dense/kernel"] = (condition_size, condition_hidden_size)
            for name in ("gamma_dense", "beta_dense"):
                shapes[f"{path}/{name}/kernel"] = (condition_hidden_size or condition_size, size)

    def block(prefix, attentions=("Self",)):
        feed_forward = f"{prefix}-FeedForward"
        for attention in (f"{prefix}-MultiHead{kind}Attention" for kind in attentions):
            for name, width in (("query", keys), ("key", keys), ("value", values)):
                dense(f"{attention}/{name}", hidden, width)
            dense(f"{attention}/output", values, hidden)
            if c["model"] != "gpt2_ml":
                norm(f"{attention}-Norm", hidden)
        dense(f"{feed_forward}/intermediate", hidden, c["intermediate_size"])
        dense(f"{feed_forward}/output", c["intermediate_size"], hidden)
        if c["model"] == "gpt2_ml":
            norm(f"{feed_forward}-Norm-0", hidden)
            norm(f"{feed_forward}-Norm-1", hidden)
        else:
            norm(f"{feed_forward}-Norm", hidden)

    shapes["Embedding-Token/embeddings"] = (c["vocab_size"], embedding)
    if c["model"] == "albert_zh":  # all else is as large as hidden states
        shapes["Embedding-Mapping/kernel"] = (embedding, hidden)
        embedding = hidden
    if c["model"] == "modernbert":
        return shapes | modernbert_shapes(c)
    if c["model"] == "qwen3":
        return shapes | qwen3_shapes(c)
    if c["model"] == "t5":
        return shapes | t5_shapes(c, condition_size, condition_hidden_size)
    if c["model"] == "transformer":
        for i in range(c["num_hidden_layers"]):
            block(f"Encoder-Transformer-{i}")
        for i in range(c["num_decoder_layers"] or c["num_hidden_layers"]):
            block(f"Decoder-Transformer-{i}", ("Self", "Cross"))
        return shapes
    if c["model"] == "deberta_v2":
        span = c["position_buckets"] if c["position_buckets"] > 0 else c["max_relative_positions"]
        shapes["Embedding-Relative/embeddings"] = (2 * span, hidden)
        norm("Embedding-Relative/row_norm", hidden)
        if c["conv_kernel_size"] > 0:
            shapes["Embedding-Convolution/kernel"] = (c["conv_kernel_size"], hidden, hidden)
            shapes["Embedding-Convolution/bias"] = (hidden,)
            norm("Embedding-Convolution/output_norm", hidden)
    if c["model"] not in ("roformer", "roformer_v2", "gau", "nezha") and c.get("position_biased_input", True):
        unused = 2 if c["model"] == "xlm_roberta" else 0
        shapes["Embedding-Position/embeddings"] = (c["max_position"] + unused, embedding)
    if c["segment_vocab_size"] and not c.get("shared_segment_embeddings"):
        shapes["Embedding-Segment/embeddings"] = (c["segment_vocab_size"], embedding)
    if c.get("use_task_id"):
        shapes["Embedding-Task/embeddings"] = (c["task_vocab_size"], embedding)
    if c["model"] not in ("gpt", "gpt2", "megatron_bert"):
        norm("Embedding-Norm", embedding)
    if embedding != hidden or c["model"] in ("albert", "albert_unshared"):
        dense("Embedding-Mapping", embedding, hidden)
    for i in range(c["num_hidden_layers"]):
        block("Transformer" if c["model"] in ("albert", "albert_zh") else f"Transformer-{i}")
    if c["model"] in ("gpt2", "megatron_bert"):
        norm("Output-Norm", hidden)
    if c["model"] == "gau":
        shapes = {path: shape for path, shape in shapes.items() if path.endswith("/embeddings")}
        for name in (f"Transformer-{i}-GatedAttentionUnit" for i in range(c["num_hidden_layers"])):
            shapes[f"{name}/intermediate/kernel"] = (hidden, 2 * c["intermediate_size"] + c["attention_key_size"])
            shapes[f"{name}/query_scale"] = shapes[f"{name}/key_scale"] = (c["attention_key_size"],)
            shapes[f"{name}/output/kernel"] = (c["intermediate_size"], hidden)
    elif c["model"] == "roformer_v2":
        return {path: shape for path, shape in shapes.items() if path.endswith(("/kernel", "/embeddings"))}
    elif c["model"] == "electra":
        dense("MLM-Dense", hidden, embedding)
        norm("MLM-Norm", embedding)
        shapes["MLM-Bias/bias"] = (c["vocab_size"],)
        dense("Discriminator-Dense", hidden, hidden)
        dense("Discriminator-Prediction", hidden, 1)
    elif heads and not c["model"].startswith("gpt"):
        dense("Pooler-Dense", hidden, hidden)
        if c["model"] not in ("xlm_roberta", "deberta_v2"):
            dense("NSP-Proba", hidden, 2)
        dense("MLM-Dense", hidden, embedding)
        norm("MLM-Norm", embedding)
        shapes["MLM-Bias/bias"] = (c["vocab_size"],)
    return shapes


def modernbert_shapes(c):
    """All but the embeddings: no biases but that of the output, norms have a scale alone."""
    hidden, size = c["hidden_size"], c["num_attention_heads"] * c["attention_head_size"]
    shapes = {f"{name}/gamma": (hidden,) for name in ("Embedding-Norm", "Output-Norm", "Pooler-Norm")}
    shapes |= {"Pooler-Dense/kernel": (hidden, hidden), "MLM-Bias/bias": (c["vocab_size"],)}
    for i in range(c["num_hidden_layers"]):
        attention, ffn = f"Transformer-{i}-MultiHeadSelfAttention", f"Transformer-{i}-FeedForward"
        shapes |= {f"{name}-Norm/gamma": (hidden,) for name in ((attention, ffn) if i else (ffn,))}
        shapes |= {f"{attention}/{name}/kernel": (hidden, size) for name in ("query", "key", "value")}
        shapes |= {f"{ffn}/{name}/kernel": (hidden, c["intermediate_size"]) for name in ("gate", "intermediate")}
        shapes |= {
            f"{attention}/output/kernel": (size, hidden),
            f"{ffn}/output/kernel": (c["intermediate_size"], hidden),
        }
    return shapes


def qwen3_shapes(c):
    """All but the embeddings."""
    hidden, size = c["hidden_size"], c["attention_head_size"]
    queries, keys = (c[f"num_{kind}_heads"] * size for kind in ("attention", "key_value"))
    shapes = {"Output-Norm/gamma": (hidden,)}
    if not c.get("tie_word_embeddings"):
        shapes["LM-Head/embeddings"] = (c["vocab_size"], hidden)
    for i in range(c["num_hidden_layers"]):
        attention, ffn = f"Transformer-{i}-MultiHeadSelfAttention", f"Transformer-{i}-FeedForward"
        shapes |= {f"{name}-Norm/gamma": (hidden,) for name in (attention, ffn)}
        shapes |= {f"{attention}/{name}_norm/gamma": (size,) for name in ("query", "key")}
        outputs = {"query": queries, "key": keys, "value": keys}
        shapes |= {f"{attention}/{name}/kernel": (hidden, size) for name, size in outputs.items()}
        shapes |= {f"{ffn}/{name}/kernel": (hidden, c["intermediate_size"]) for name in ("gate", "intermediate")}
        shapes |= {
            f"{attention}/output/kernel": (queries, hidden),
            f"{ffn}/output/kernel": shapes[f"{ffn}/gate/kernel"][::-1],
        }
    return shapes


def t5_shapes(c, condition_size=None, condition_hidden_size=None):
    """Those of both sides of a T5 and of its output layer: no biases, norms have a scale alone."""
    hidden, inner, shapes = c["hidden_size"], (c["hidden_size"], c["intermediate_size"]), {}
    keys, values = (c["num_attention_heads"] * c[f"attention_{size}_size"] for size in ("key", "head"))
    attention = {"query": (hidden, keys), "key": (hidden, keys), "value": (hidden, values), "output": (values, hidden)}
    feed_forward = {"gate": inner} if c["gated"] else {}
    feed_forward |= {"intermediate": inner, "output": inner[::-1]}

    def sublayer(path, matrices):
        shapes[f"{path}-Norm/gamma"] = (hidden,)
        if condition_size:
            shapes[f"{path}-Norm/hidden_dense/kernel"] = (condition_size, condition_hidden_size)
            shapes[f"{path}-Norm/gamma_dense/kernel"] = (condition_hidden_size, hidden)
        shapes.update({f"{path}/{name}/kernel": shape for name, shape in matrices.items()})

    for side, depth in (("Encoder", c["num_hidden_layers"]), ("Decoder", c["num_decoder_layers"])):
        table = c["relative_buckets"], c["num_attention_heads"]
        shapes[f"{side}-Embedding-Relative-Position/embeddings"] = table
        for i in range(depth):
            sublayer(f"{side}-Transformer-{i}-MultiHeadSelfAttention", attention)
            if side == "Decoder":
                sublayer(f"{side}-Transformer-{i}-MultiHeadCrossAttention", attention)
            sublayer(f"{side}-Transformer-{i}-FeedForward", feed_forward)
        sublayer(f"{side}-Output", {})
    if not c["tied_output"]:
        shapes["Decoder-Output-LM/kernel"] = (hidden, c["vocab_size"])
    return shapes


def random_weights(config, heads=True, seed=0, **conditions):
    """Canonical path -> float32 array; no bias is zero and no gamma one, so that none can be forgotten unnoticed."""
    generator = np.random.default_rng(seed)

    def draw(path, shape):
        x = generator.standard_normal(shape)
        if path.endswith("/kernel"):
            divided = config["model"] == "t5" and path.endswith("/query/kernel")  # T5 does so here, not in the scores
            return x / np.sqrt(shape[0] * (config["attention_key_size"] if divided else 1))
        if path.endswith(("/gamma", "_scale")):
            return 1 + 0.2 * x
        return (0.4 if path.endswith("/embeddings") else 0.2) * x

    shapes = weight_shapes(config, heads, **conditions)
    return {path: draw(path, shape).astype(np.float32) for path, shape in shapes.items()}


def random_inputs(config, batch=3, length=13, seed=1):
    """token_ids and segment_ids (0..0 1..1), int32 (batch, length), and padding_mask, bool.

    Every row but the first is padded on the right with the pad id (0 where there is none), each by another length.
    """
    generator = np.random.default_rng(seed)
    pad = config["pad_token_id"] or 0
    choices = np.setdiff1d(np.arange(config["vocab_size"]), [pad])
    token_ids = generator.choice(choices, (batch, length))
    lengths = np.array([max(length - 2 * row - (row > 0), 2) for row in range(batch)])
    padding_mask = np.arange(length) < lengths[:, None]
    sources = generator.integers(1, lengths)
    segment_ids = (np.arange(length) >= sources[:, None]) & padding_mask
    token_ids[~padding_mask] = pad
    return {
        "token_ids": token_ids.astype(np.int32),
        "segment_ids": segment_ids.astype(np.int32),
        "padding_mask": padding_mask,
    }


def random_pairs(config, batch=3, length=13, target_length=9, seed=1):
    """token_ids (batch, length), target_ids (batch, target_length), both padded like `random_inputs`, and the masks:
    padding_mask of the source, target_mask."""
    source, target = (random_inputs(config, batch, size, seed + i) for i, size in enumerate((length, target_length)))
    return {
        "token_ids": source["token_ids"],
        "padding_mask": source["padding_mask"],
        "target_ids": target["token_ids"],
        "target_mask": target["padding_mask"],
    }


def random_model(model, config=None, **options):
    """A built model of an architecture with large weights, and inputs in the order that it takes them."""
    from bert4x import build_transformer_model

    config = tiny_config(model, **(config or {}))
    built = build_transformer_model(config, model=model, **options)
    draw = np.random.default_rng(0)
    for variable in built.trainable_variables:
        variable.assign(draw.normal(0, 0.3, variable.shape))
    inputs = random_pairs(config) if model == "transformer" else random_inputs(config, batch=4)
    names = {f"Input-{key.removesuffix('_ids').capitalize()}": key for key in inputs}
    return built, [inputs[names[tensor.name]] for tensor in built.inputs]
