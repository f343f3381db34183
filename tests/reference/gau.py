"""GAU-alpha (Su 2022, kexue 9052): gated attention units (Hua et al. 2022, arXiv 2202.10447) in place of blocks."""

import numpy as np

from .long_texts import sharper
from .parts import ACTIVATIONS, Weights, is_visible, padding, rotated, softmax


def forward(weights, config, token_ids, segment_ids=None, padding_mask=None, position_ids=None, application="encoder"):
    """Arguments as in `bert.forward`. Returns "hidden" (B, T, D) and "mlm_logits" (B, T, V)."""
    w = Weights(weights)
    token_ids = np.asarray(token_ids)
    batch, length = token_ids.shape
    segments = np.zeros_like(token_ids) if segment_ids is None else np.asarray(segment_ids)
    valid = padding(config, token_ids, padding_mask)
    places = np.tile(np.arange(length), (batch, 1)) if position_ids is None else np.asarray(position_ids)

    def norm(x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["layer_norm_eps"])

    x = w["Embedding-Token/embeddings"][token_ids]
    if config.get("segment_vocab_size"):
        x = x + w["Embedding-Segment/embeddings"][segments]
    x = norm(x)
    for i in range(config["num_hidden_layers"]):
        name = f"Transformer-{i}-GatedAttentionUnit"
        inner = ACTIVATIONS[config["hidden_act"]](x @ w[f"{name}/intermediate/kernel"])
        size = config["intermediate_size"]
        gate, values, shared = inner[..., :size], inner[..., size : 2 * size], inner[..., 2 * size :]
        mixed = np.zeros_like(values)
        for b in range(batch):
            query, key = (
                rotated(shared[b] * w[f"{name}/{part}_scale"], places[b], config) for part in ("query", "key")
            )
            for q in range(length):
                seen = [k for k in range(length) if is_visible(application, q, k, segments[b], valid[b])]
                if seen:
                    scores = key[seen] @ query[q] / np.sqrt(config["attention_key_size"])
                    mixed[b, q] = softmax(scores * sharper(config, len(seen))) @ values[b, seen]
        x = norm(x + (gate * mixed) @ w[f"{name}/output/kernel"])
    return {"hidden": x, "mlm_logits": x @ w["Embedding-Token/embeddings"].T}
