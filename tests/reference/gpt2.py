"""GPT2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"); CPM-LM is one."""

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

    Arguments as in `bert.forward`; segment_ids only order the tokens of "unilm" (there is no segment embedding).

    Returns:
        "hidden" (B, T, D) after the last normalization, "lm_logits" (B, T, V) from the tied embedding, no bias.
    """
    w = Weights(weights)
    token_ids = np.asarray(token_ids)
    segments = np.zeros_like(token_ids) if segment_ids is None else np.asarray(segment_ids)
    valid = padding(config, token_ids, padding_mask)

    def norm(path, x):
        return w.norm(path, x, config["layer_norm_eps"], condition, condition_act)

    x = w["Embedding-Token/embeddings"][token_ids] + positions(config, w, position_ids, *token_ids.shape)
    scores = None
    for i in range(config["num_hidden_layers"]):
        mha, ffn = f"Transformer-{i}-MultiHeadSelfAttention", f"Transformer-{i}-FeedForward"
        previous = scores if config.get("residual_attention_scores") else None
        y, scores = attention(w, mha, norm(f"{mha}-Norm", x), config, application, segments, valid, previous, lookahead)
        x = x + y
        x = x + feed_forward(w, ffn, norm(f"{ffn}-Norm", x), config["hidden_act"])
    x = norm("Output-Norm", x)
    return {"hidden": x, "lm_logits": x @ w["Embedding-Token/embeddings"].T}
