"""BERT (Devlin et al. 2018, arXiv 1810.04805) and ALBERT (Lan et al. 2019, arXiv 1909.11942); RoFormer and NEZHA, where
there is no position table (see `parts.attend`); XLM-R (Conneau et al. 2019, arXiv 1911.02116; see `parts.positions`);
ERNIE (Sun et al. 2021, arXiv 2107.02137), Megatron-LM's BERT (Shoeybi et al. 2019, arXiv 1909.08053) and DeBERTa (He et
al. 2020, arXiv 2006.03654; see `parts.attend`).
"""

import numpy as np

from .parts import ACTIVATIONS, Weights, attention, convolution, feed_forward, padding, positions


def forward(
    weights,
    config,
    token_ids,
    segment_ids=None,
    padding_mask=None,
    position_ids=None,
    application="encoder",
    condition=None,
    condition_act=None,
    lookahead=None,
):
    """Outputs of a BERT or ALBERT, as a dict of float64 arrays.

    Args:
        weights: canonical path -> array. A path "Transformer-..." without layer number means ALBERT's shared layer.
        config: TransformerConfig's fields as a dict.
        token_ids, segment_ids, position_ids: int (B, T).
        padding_mask: bool (B, T), True at real tokens; by default the ids other than config["pad_token_id"].
        application: "encoder", "lm" or "unilm".
        lookahead: of synchronous bidirectional attention, see `parts.attention`.
        condition: (B, C) or (B, T, C), for conditional layer normalization; condition_act: its hidden activation.

    Returns:
        "hidden" (B, T, D) and, where the weights are there, "pooled" (B, D), "nsp_logits" (B, 2) and
        "mlm_logits" (B, T, V).
    """
    w = Weights(weights)
    token_ids = np.asarray(token_ids)
    segments = np.zeros_like(token_ids) if segment_ids is None else np.asarray(segment_ids)
    valid = padding(config, token_ids, padding_mask)

    def norm(path, x):
        if config.get("model") == "roformer_v2":  # (Su 2022, kexue 8998): by the root mean square, nothing is learned
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return w.norm(path, x, config["layer_norm_eps"], condition, condition_act)

    x = w["Embedding-Token/embeddings"][token_ids]
    early = config.get("model") == "albert_zh"  # brightmart's ALBERT maps words alone, and back before the output
    x = w.dense("Embedding-Mapping", x) if early else x
    if "Embedding-Position/embeddings" in w:
        x = x + positions(config, w, position_ids, *token_ids.shape, valid)
    if config.get("segment_vocab_size", 2):
        x = x + w["Embedding-Segment/embeddings"][segments]
    if "Embedding-Task/embeddings" in w:
        x = x + w["Embedding-Task/embeddings"][0]
    first = "Output-Norm/gamma" in w or config.get("ln_type") == "preln"  # norms come before what they are of
    x = norm("Embedding-Norm", x) if "Embedding-Norm/gamma" in w or not first else x
    if "Embedding-Mapping/kernel" in w and not early:
        x = w.dense("Embedding-Mapping", x)

    embedded, scores = x * valid[..., None], None
    for i in range(config["num_hidden_layers"]):
        numbered = f"Transformer-{i}-FeedForward/output/kernel" in w
        layer = f"Transformer-{i}" if numbered else "Transformer"
        mha, ffn = f"{layer}-MultiHeadSelfAttention", f"{layer}-FeedForward"
        previous = scores if config.get("residual_attention_scores") else None
        y = norm(f"{mha}-Norm", x) if first else x
        y, scores = attention(w, mha, y, config, application, segments, valid, previous, lookahead, position_ids)
        x = x + y if first else norm(f"{mha}-Norm", x + y)
        y = feed_forward(w, ffn, norm(f"{ffn}-Norm", x) if first else x, config["hidden_act"])
        x = x + y if first else norm(f"{ffn}-Norm", x + y)
        if i == 0 and "Embedding-Convolution/kernel" in w:
            y = ACTIVATIONS[config["conv_act"]](convolution(w, "Embedding-Convolution", embedded))
            x = norm("Embedding-Convolution/output_norm", x + y)
    x = norm("Output-Norm", x) if "Output-Norm/gamma" in w else x

    outputs = {"hidden": x}
    if config.get("model") == "roformer_v2":
        outputs["mlm_logits"] = x @ w["Embedding-Token/embeddings"].T
    if "Pooler-Dense/kernel" in w:
        activation = ACTIVATIONS[config.get("pooler_hidden_act", "tanh")]
        outputs["pooled"] = activation(w.dense("Pooler-Dense", x[:, 0]))
    if "NSP-Proba/kernel" in w:
        outputs["nsp_logits"] = w.dense("NSP-Proba", outputs["pooled"])
    if "Discriminator-Dense/kernel" in w:  # ELECTRA's (Clark et al. 2020, arXiv 2003.10555)
        y = ACTIVATIONS[config["hidden_act"]](w.dense("Discriminator-Dense", x))
        outputs["discriminator_logits"] = w.dense("Discriminator-Prediction", y)
    if "MLM-Dense/kernel" in w:
        activation = "gelu_erf" if "roberta" in config.get("model", "bert") else config["hidden_act"]
        y = norm("MLM-Norm", ACTIVATIONS[activation](w.dense("MLM-Dense", x)))
        y = y @ w["Embedding-Mapping/kernel"].T if early else y
        outputs["mlm_logits"] = y @ w["Embedding-Token/embeddings"].T + w["MLM-Bias/bias"]
    return outputs
