"""ModernBERT (Warner et al. 2024, arXiv 2412.13663), one row and one head at a time."""

import numpy as np

from .llama import turned
from .parts import ACTIVATIONS, Weights, padding, softmax


def forward(weights, config, token_ids, padding_mask=None, position_ids=None, application="encoder"):
    """Outputs: "hidden" (B, T, D) after the last norm, "pooled" (B, D), "mlm_logits" (B, T, V)."""
    w, token_ids = Weights(weights), np.asarray(token_ids)
    batch, length = token_ids.shape
    valid = padding(config, token_ids, padding_mask)
    places = np.tile(np.arange(length), (batch, 1)) if position_ids is None else np.asarray(position_ids)

    def norm(path, x):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_eps"]) * w[f"{path}/gamma"]

    def row(b):
        x = norm("Embedding-Norm", w["Embedding-Token/embeddings"][token_ids[b]])
        for i in range(config["num_hidden_layers"]):
            everything = i % config["global_every"] == 0
            mha, ffn = f"Transformer-{i}-MultiHeadSelfAttention", f"Transformer-{i}-FeedForward"
            away = length if everything else config["local_attention"] // 2
            seen = [[k for k in range(length) if valid[b, k] and abs(q - k) <= away] for q in range(length)]
            theta = config["rotary_theta" if everything else "local_theta"]
            y = norm(f"{mha}-Norm", x) if i else x  # the embeddings are normalised already
            x = x + attention(w, mha, y, config, seen, places[b], theta)
            y = norm(f"{ffn}-Norm", x)
            gate = ACTIVATIONS[config["hidden_act"]](w.dense(f"{ffn}/gate", y))
            x = x + w.dense(f"{ffn}/output", gate * w.dense(f"{ffn}/intermediate", y))
        return norm("Output-Norm", x)

    def transform(x):
        return norm("Pooler-Norm", ACTIVATIONS["gelu_erf"](w.dense("Pooler-Dense", x)))

    hidden = np.array([row(b) for b in range(batch)])
    texts = hidden[:, 0]
    if config["pooling"] == "mean":
        texts = np.array([h[real].mean(0) for h, real in zip(hidden, valid, strict=True)])
    logits = transform(hidden) @ w["Embedding-Token/embeddings"].T + w["MLM-Bias/bias"]
    return {"hidden": hidden, "transformed": transform(hidden), "pooled": transform(texts), "mlm_logits": logits}


def attention(w, path, x, config, seen, places, theta):
    """Of one row, x (T, D)."""
    size, heads = config["attention_head_size"], config["num_attention_heads"]
    query, key, value = (
        w.dense(f"{path}/{name}", x).reshape(len(x), heads, size) for name in ("query", "key", "value")
    )
    mixed = np.zeros_like(query)
    for a in range(heads):
        q_head, k_head = (turned(y[:, a], places, {"rope_theta": theta}) for y in (query, key))
        for q, keys in enumerate(seen):
            if keys:  # padding far from all real tokens sees nothing
                mixed[q, a] = softmax(k_head[keys] @ q_head[q] / np.sqrt(size)) @ value[keys, a]
    return w.dense(f"{path}/output", mixed.reshape(len(x), -1))
