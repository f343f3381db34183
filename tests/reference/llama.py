"""LLaMA (Touvron et al. 2023, arXiv 2302.13971) with heads that share keys and values (Ainslie et al. 2023, arXiv
2305.13245) and norms of queries and keys (Qwen3, arXiv 2505.09388), one row and one head at a time."""

import numpy as np

from .long_texts import frequencies, sharper
from .parts import Weights, is_visible, padding, softmax


def forward(weights, config, token_ids, segment_ids=None, padding_mask=None, position_ids=None, application="lm"):
    """Outputs: "hidden" (B, T, D) after the last norm, "lm_logits" (B, T, V)."""
    w, token_ids = Weights(weights), np.asarray(token_ids)
    batch, length = token_ids.shape
    valid = padding(config, token_ids, padding_mask)
    segments = np.zeros_like(token_ids) if segment_ids is None else np.asarray(segment_ids)
    places = np.tile(np.arange(length), (batch, 1)) if position_ids is None else np.asarray(position_ids)
    table, hidden = w["Embedding-Token/embeddings"], []
    for b in range(batch):
        x = table[token_ids[b]]
        seen = [
            [k for k in range(length) if is_visible(application, q, k, segments[b], valid[b])] for q in range(length)
        ]
        for i in range(config["num_hidden_layers"]):
            mha, ffn = f"Transformer-{i}-MultiHeadSelfAttention", f"Transformer-{i}-FeedForward"
            x = x + attention(w, mha, norm(w, f"{mha}-Norm", x, config), config, seen, places[b])
            y = norm(w, f"{ffn}-Norm", x, config)
            gate = w.dense(f"{ffn}/gate", y)
            x = x + w.dense(f"{ffn}/output", gate / (1 + np.exp(-gate)) * w.dense(f"{ffn}/intermediate", y))
        hidden.append(norm(w, "Output-Norm", x, config))
    hidden = np.array(hidden)
    if config.get("tie_word_embeddings"):
        return {"hidden": hidden, "lm_logits": hidden @ table.T}
    return {"hidden": hidden, "lm_logits": hidden @ w["LM-Head/embeddings"].T}


def norm(w, path, x, config):
    """x divided by its root mean square, times gamma."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["layer_norm_eps"]) * w[f"{path}/gamma"]


def attention(w, path, x, config, seen, places):
    """Of one row, x (T, D); head a of queries reads the keys and values of head a // group."""
    size = config["attention_head_size"]
    query, key, value = (w.dense(f"{path}/{name}", x).reshape(len(x), -1, size) for name in ("query", "key", "value"))
    group, mixed = query.shape[1] // key.shape[1], np.zeros_like(query)
    for a in range(query.shape[1]):
        q_head = turned(norm(w, f"{path}/query_norm", query[:, a], config), places, config)
        k_head = turned(norm(w, f"{path}/key_norm", key[:, a // group], config), places, config)
        for q, keys in enumerate(seen):
            if keys:
                scores = k_head[keys] @ q_head[q] / np.sqrt(size) * sharper(config, len(keys))
                mixed[q, a] = softmax(scores) @ value[keys, a // group]
    return w.dense(f"{path}/output", mixed.reshape(len(x), -1))


def turned(x, places, config):
    """Features i and i + d / 2 of x (T, d), as a complex number, turned by the angle position / theta^(2 i / d)."""
    half, (each, magnitude) = x.shape[1] // 2, frequencies(config, x.shape[1], places.max() + 1)
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * places[:, None] * each) * magnitude
    return np.concatenate([z.real, z.imag], -1)
