"""The Transformer (Vaswani et al. 2017, "Attention is all you need", arXiv 1706.03762)."""

import math

import numpy as np

from .parts import Weights, attention, cross_attention, feed_forward, padding


def forward(
    weights,
    config,
    token_ids,
    target_ids,
    padding_mask=None,
    application="seq2seq",
    condition=None,
    condition_act=None,
    lookahead=None,
):
    """Outputs of the decoder for source token_ids (B, S) and target_ids (B, T), which are already shifted right.

    `padding_mask` is that of the source. Other arguments as in `bert.forward` and `parts.attention`.

    Returns:
        "hidden" (B, T, D) and "lm_logits" (B, T, V) from the embedding table, no bias (section 3.4).
    """
    w = Weights(weights)
    table = w["Embedding-Token/embeddings"]

    def embed(ids):
        size = table.shape[1]
        places = [[sinusoid(pos, j, size) for j in range(size)] for pos in range(ids.shape[1])]
        return table[ids] * math.sqrt(size) + np.array(places)

    def add_and_norm(path, x, y):
        return w.norm(f"{path}-Norm", x + y, config["layer_norm_eps"], condition, condition_act)

    def self_attention(path, x, application, valid, scores, lookahead=None):
        previous = scores if config.get("residual_attention_scores") else None
        return attention(w, path, x, config, application, [None] * len(x), valid, previous, lookahead)

    source, target = np.asarray(token_ids), np.asarray(target_ids)
    source_valid, target_valid = padding(config, source, padding_mask), padding(config, target, None)
    target_valid[:, 0] = True  # a target may begin with the padding id

    memory, scores = embed(source), None
    for i in range(config["num_hidden_layers"]):
        mha, ffn = f"Encoder-Transformer-{i}-MultiHeadSelfAttention", f"Encoder-Transformer-{i}-FeedForward"
        y, scores = self_attention(mha, memory, "encoder", source_valid, scores)
        memory = add_and_norm(mha, memory, y)
        memory = add_and_norm(ffn, memory, feed_forward(w, ffn, memory, config["hidden_act"]))

    x, scores = embed(target), None
    for i in range(config["num_decoder_layers"] or config["num_hidden_layers"]):
        block = f"Decoder-Transformer-{i}"
        mha, cross = f"{block}-MultiHeadSelfAttention", f"{block}-MultiHeadCrossAttention"
        ffn = f"{block}-FeedForward"
        y, scores = self_attention(mha, x, "lm", target_valid, scores, lookahead)
        x = add_and_norm(mha, x, y)
        x = add_and_norm(cross, x, cross_attention(w, cross, x, memory, config, source_valid))
        x = add_and_norm(ffn, x, feed_forward(w, ffn, x, config["hidden_act"]))
    return {"hidden": x, "lm_logits": x @ table.T}


def sinusoid(pos, j, size):
    """Section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i / size)), PE(pos, 2i + 1) = cos of the same angle."""
    i = j // 2
    angle = pos / 10000 ** (2 * i / size)
    return math.sin(angle) if j % 2 == 0 else math.cos(angle)
