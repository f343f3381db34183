"""Attention of two directions to each other (Zhou, Zhang and Zong 2019, arXiv 1905.04847); see `bert4x.masks`.

The rows of a batch are two directions. What attention gives for the queries of the partner row, over the keys of a row,
is sent to the partner through tanh and a weight, and added to what its own keys gave. There is no variable in it.
"""

from keras import ops

from bert4x import masks


def attend_in_both(attend, query, positions, visible, visible_to_partner, weight, dropout, training):
    """What `attend(query, positions, visible)` gives for own keys and, fused with it, for those of the partner. Scores
    and weights, which it gives too, then have a row for each query, and another for each of the partner's.

    The partner's queries come to the keys, which are many more, and are read once.

    Shape: (B, A, T, d), (T,) or (B, T) or None, (B, 1, T, S), (B, 1, T, S) -> (B, A, T, d_v), (B, A, 2 T, S) twice
    """
    query = ops.concatenate([query, masks.partner(query)], axis=2)
    visible = ops.concatenate([visible, visible_to_partner], axis=2)
    if positions is not None:
        others = positions if len(positions.shape) == 1 else masks.partner(positions)
        positions = ops.concatenate([positions, others], axis=-1)
    mixed, scores, weights = attend(query, positions, visible)
    return fuse(mixed, visible_to_partner, weight, dropout, training), scores, weights


def fuse(mixed, visible_to_partner, weight, dropout, training):
    """What each row's own keys gave, and what its partner's keys gave for its queries; nothing where none was visible.

    Shape: (B, A, 2 T, d_v), (B, 1, T, S) -> (B, A, T, d_v)
    """
    length = ops.shape(visible_to_partner)[2]
    own, partner = mixed[:, :, :length], mixed[:, :, length:]
    partner = ops.where(ops.any(visible_to_partner, axis=-1, keepdims=True), partner, ops.zeros_like(partner))
    partner = ops.tanh(dropout(partner, training=training))
    return own + ops.cast(weight, own.dtype) * masks.partner(partner)
