"""BART (Lewis et al. 2019, arXiv 1910.13461: a Transformer with gelu and learned positions, whose embeddings are
normalised) and CPT (Shao et al. 2021, arXiv 2109.05729, section 3: its decoder reads the shared encoder's output, which
the last blocks of the encoder do not change).
"""

import math

import numpy as np

from .parts import Weights, attention, cross_attention, feed_forward, padding


def forward(
    weights, config, token_ids, target_ids, padding_mask=None, application="seq2seq", condition=None, condition_act=None
):
    """Outputs of the decoder for source token_ids (B, S) and target_ids (B, T), which are already shifted right.

    Returns:
        "hidden" (B, T, D), "lm_logits" (B, T, V); of the whole encoder "states" (B, S, D), "mlm_logits" (B, S, V) and,
        of a CPT whose weights have a pooler, "pooled" (B, D).
    """
    w, is_cpt = Weights(weights), config["model"] == "cpt"
    table = w["Embedding-Token/embeddings"]

    def norm(path, x):
        epsilon = 1e-12 if is_cpt and path.startswith("Encoder") else config["layer_norm_eps"]
        return w.norm(f"{path}-Norm", x, epsilon, condition, condition_act)

    def embed(side, ids):
        of_bert = is_cpt and side == "Encoder"
        x = table[ids] * (math.sqrt(table.shape[1]) if config.get("scale_embedding") and not of_bert else 1)
        x = x + w[f"{side}-Embedding-Position/embeddings"][np.arange(ids.shape[1]) + (0 if of_bert else 2)]
        if of_bert:
            x = x + w["Encoder-Embedding-Segment/embeddings"][1]
        return norm(f"{side}-Embedding", x) if config.get("normalize_embedding", True) else x

    def self_attention(path, x, kind, valid):
        return norm(path, x + attention(w, path, x, config, kind, [None] * len(x), valid, None)[0])

    def feed(path, x):
        return norm(path, x + feed_forward(w, path, x, config["hidden_act"]))

    source, target = np.asarray(token_ids), np.asarray(target_ids)
    source_valid, target_valid = padding(config, source, padding_mask), padding(config, target, None)
    target_valid[:, 0] = True
    depth = config["num_decoder_layers"] or config["num_hidden_layers"]
    h = embed("Encoder", source)
    memory = h
    for i in range(config["num_hidden_layers"]):
        h = self_attention(f"Encoder-Transformer-{i}-MultiHeadSelfAttention", h, "encoder", source_valid)
        h = feed(f"Encoder-Transformer-{i}-FeedForward", h)
        if not is_cpt or i < config["num_hidden_layers"] - depth:
            memory = h
    x = embed("Decoder", target)
    for block in (f"Decoder-Transformer-{i}" for i in range(depth)):
        x = self_attention(f"{block}-MultiHeadSelfAttention", x, "lm", target_valid)
        cross = f"{block}-MultiHeadCrossAttention"
        x = norm(cross, x + cross_attention(w, cross, x, memory, config, source_valid))
        x = feed(f"{block}-FeedForward", x)
    bias = weights.get("MLM-Bias/bias", 0)
    found = {"hidden": x, "lm_logits": x @ table.T + bias, "states": h, "mlm_logits": h @ table.T + bias}
    if "Pooler-Dense/kernel" in w:
        found["pooled"] = np.tanh(w.dense("Pooler-Dense", h[:, 0]))
    return found
