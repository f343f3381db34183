"""Attention by Keras' own function, which holds no scores where the backend can do so (Dao et al. 2022)."""

from keras import ops


def attend_without_scores(query, key, value, visible, scale: float):
    """Shape: (B, A, T, d), (B, K, S, d), (B, K, S, d), (B, 1, T or 1, S) -> (B, A, T, d)"""
    query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    heads, groups = query.shape[2], key.shape[2]
    if groups != heads:
        key, value = (ops.repeat(x, heads // groups, axis=2) for x in (key, value))
    if visible.shape[2] == 1:  # which cuDNN does not take
        visible = ops.logical_and(visible, ops.ones((ops.shape(query)[1], 1), "bool"))
    return ops.transpose(ops.dot_product_attention(query, key, value, mask=visible, scale=scale), (0, 2, 1, 3))
