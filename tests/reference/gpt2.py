"""GPT2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"); CPM-LM is one. And its relatives:
GPT (Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training"), whose norms follow what they
are of, and GPT2_ML, which is Grover (Zellers et al. 2019, arXiv 1905.12616).
"""

import numpy as np

from .parts import Weights, attention, feed_forward, padding, positions


def forward(
    weights,
    config,
    token_ids,
    segment_ids=None,
    padding_mask=None,
    position_ids=None,
    application="lm",
    condition=None,
    condition_act=None,
    lookahead=None,
):
    """Outputs of a GPT2: layer normalization before each sublayer and once at the end.

    Arguments as in `bert.forward`; of a GPT2 and GPT2_ML segment_ids only order the tokens of "unilm", of a GPT they
    have embeddings, of their own or those of tokens.

    Returns:
        "hidden" (B, T, D) after the last normalization, "lm_logits" (B, T, V) from the tied embedding, no bias.
    """
    w = Weights(weights)
    token_ids = np.asarray(token_ids)
    segments = np.zeros_like(token_ids) if segment_ids is None else np.asarray(segment_ids)
    valid = padding(config, token_ids, padding_mask)

    def norm(path, x):
        return w.norm(path, x, config["layer_norm_eps"], condition, condition_act)

    kind = config.get("model", "gpt2")
    x = w["Embedding-Token/embeddings"][token_ids] + positions(config, w, position_ids, *token_ids.shape)
    shared = config.get("shared_segment_embeddings")
    if shared or config.get("segment_vocab_size"):
        x = x + w["Embedding-Token/embeddings" if shared else "Embedding-Segment/embeddings"][segments]
    x = norm("Embedding-Norm", x) if kind == "gpt2_ml" else x
    scores = None
    for i in range(config["num_hidden_layers"]):
        mha, ffn = f"Transformer-{i}-MultiHeadSelfAttention", f"Transformer-{i}-FeedForward"
        previous = scores if config.get("residual_attention_scores") else None
        y = norm(f"{mha}-Norm", x) if kind == "gpt2" else x
        y, scores = attention(w, mha, y, config, application, segments, valid, previous, lookahead)
        x = x + y
        if kind == "gpt2":
            x = x + feed_forward(w, ffn, norm(f"{ffn}-Norm", x), config["hidden_act"])
        elif kind == "gpt":
            x = norm(f"{mha}-Norm", x)
            x = norm(f"{ffn}-Norm", x + feed_forward(w, ffn, x, config["hidden_act"]))
        else:
            y = norm(f"{ffn}-Norm-0", x)
            x = norm(f"{ffn}-Norm-1", x + feed_forward(w, ffn, y, config["hidden_act"]))
    x = norm("Output-Norm", x) if kind == "gpt2" else x
    return {"hidden": x, "lm_logits": x @ w["Embedding-Token/embeddings"].T}
