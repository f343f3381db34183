"""T5 (Raffel et al. 2019, arXiv 1910.10683): a pre-norm Transformer with learned biases of distances, as in the text of
section 2.1 and, of version 1.1, "GLU variants improve Transformer" (Shazeer 2020, arXiv 2002.05202).
"""

import math

import numpy as np

from .parts import ACTIVATIONS, Weights, attend, is_visible, padding


def forward(
    weights, config, token_ids, target_ids, padding_mask=None, application="seq2seq", condition=None, condition_act=None
):
    """Outputs of the decoder for source token_ids (B, S) and target_ids (B, T), which are already shifted right.

    Returns:
        "hidden" (B, T, D) and "lm_logits" (B, T, V).
    """
    w, c = Weights(weights), config

    def norm(path, x):
        gamma = w[f"{path}-Norm/gamma"]
        if condition is not None and f"{path}-Norm/gamma_dense/kernel" in w:
            hidden = ACTIVATIONS[condition_act](w.dense(f"{path}-Norm/hidden_dense", np.asarray(condition, float)))
            gamma = gamma + w.dense(f"{path}-Norm/gamma_dense", hidden)[:, None]
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c["layer_norm_eps"]) * gamma

    def attention(path, x, source, valid, biases, kind):
        query, key, value = (w.dense(f"{path}/{n}", y) for n, y in (("query", x), ("key", source), ("value", source)))
        root = math.sqrt(key.shape[-1] // c["num_attention_heads"])  # by which `attend` divides, and T5 does not
        mixed = []
        for b in range(len(x)):
            seen = [
                [k for k in range(source.shape[1]) if is_visible(kind, q, k, None, valid[b])] for q in range(x.shape[1])
            ]
            mixed.append(attend(query[b] * root, key[b], value[b], c["num_attention_heads"], seen, biases)[0])
        return w.dense(f"{path}/output", np.array(mixed))

    def feed_forward(path, x):
        inner = w.dense(f"{path}/intermediate", x)
        act = ACTIVATIONS[c["hidden_act"]]
        return w.dense(f"{path}/output", act(w.dense(f"{path}/gate", x)) * inner if c["gated"] else act(inner))

    def biases(side, queries, keys):
        table = w[f"{side}-Embedding-Relative-Position/embeddings"]
        rows = [[bucket(k - q, side == "Encoder", c) for k in range(keys)] for q in range(queries)]
        return table[np.array(rows)].transpose(2, 0, 1)

    source, target = np.asarray(token_ids), np.asarray(target_ids)
    source_valid, target_valid = padding(c, source, padding_mask), padding(c, target, None)
    target_valid[:, 0] = True
    x = w["Embedding-Token/embeddings"][source]
    for i in range(c["num_hidden_layers"]):
        mha, ffn = f"Encoder-Transformer-{i}-MultiHeadSelfAttention", f"Encoder-Transformer-{i}-FeedForward"
        y = norm(mha, x)
        x = x + attention(mha, y, y, source_valid, biases("Encoder", *[x.shape[1]] * 2), "encoder")
        x = x + feed_forward(ffn, norm(ffn, x))
    memory, x = norm("Encoder-Output", x), w["Embedding-Token/embeddings"][target]
    length, crossing = x.shape[1], None
    if c.get("cross_position_bias"):
        crossing = biases("Decoder", length, memory.shape[1])
    for i in range(c["num_decoder_layers"] or c["num_hidden_layers"]):
        block = f"Decoder-Transformer-{i}"
        mha, cross = f"{block}-MultiHeadSelfAttention", f"{block}-MultiHeadCrossAttention"
        y = norm(mha, x)
        x = x + attention(mha, y, y, target_valid, biases("Decoder", length, length), "lm")
        x = x + attention(cross, norm(cross, x), memory, source_valid, crossing, "encoder")
        x = x + feed_forward(f"{block}-FeedForward", norm(f"{block}-FeedForward", x))
    hidden = norm("Decoder-Output", x)
    scale = c["scale_output"] if c.get("scale_output") is not None else c["tied_output"]
    scaled = hidden / math.sqrt(hidden.shape[-1]) if scale else hidden
    matrix = w["Embedding-Token/embeddings"].T if c["tied_output"] else w["Decoder-Output-LM/kernel"]
    return {"hidden": hidden, "lm_logits": scaled @ matrix}


def bucket(distance, bidirectional, config):
    """The bucket of the distance from a query to a key: half of them for later keys, or these all in bucket 0; of the
    rest the first half holds one distance each, the others as many more as a logarithm says.
    """
    buckets = config["relative_buckets"] // (2 if bidirectional else 1)
    first = buckets if bidirectional and distance > 0 else 0
    n, half = abs(distance) if bidirectional else max(-distance, 0), buckets // 2
    if n < half:
        return first + n
    far = math.log(n / half) / math.log(config["relative_max_distance"] / half) * (buckets - half)
    return first + min(half + math.floor(round(far, 9)), buckets - 1)
