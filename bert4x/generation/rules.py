"""Rules that change the scores of the next token: functions of tensors, for one row or beam each.

They work on logits and on log-probabilities alike. `ids` are the prompt and what was generated, -1 where a slot is
empty or padding.
"""

from bert4x.numpy_ops import ops_of

NEVER = -1e9  # the score of a token that must not come: finite, so that a row without choice is not NaN


def possible(scores):
    """Whether there is no token among those of the score that must not come.

    Shape: any -> the same, bool
    """
    return scores > NEVER / 2


def count(ids, weights, size: int):
    """How much weight each id has in its row; ids below 0 have none.

    Shape: (B, S) int32, (B, S) float -> (B, V)
    """
    ops = ops_of(ids)
    rows = ops.broadcast_to(ops.arange(ops.shape(ids)[0], dtype="int32")[:, None], ops.shape(ids))
    weights = ops.where(ids >= 0, weights, 0.0)
    indices = ops.reshape(ops.stack([rows, ops.maximum(ids, 0)], axis=-1), (-1, 2))
    return ops.scatter(indices, ops.reshape(weights, (-1,)), (ids.shape[0], size))


def penalize_repetition(scores, ids, penalty):
    """Divides positive scores of what was seen by the penalty, multiplies negative ones (Keskar et al. 2019,
    arXiv 1909.05858, section 4.1, in the form everybody uses).

    Shape: (B, V), (B, S), () -> (B, V)
    """
    ops = ops_of(scores)
    seen = count(ids, ops.ones_like(ids, dtype="float32"), scores.shape[1]) > 0
    return ops.where(seen, ops.where(scores > 0, scores / penalty, scores * penalty), scores)


def forbid_repeated_ngrams(scores, ids, length, size: int):
    """Forbids what would complete an n-gram for the second time; `length` slots of `ids` are in use.

    Shape: (B, V), (B, S), () -> (B, V)
    """
    ops = ops_of(scores)
    batch, slots = ids.shape
    if slots < size:
        return scores
    windows = slots - size + 1
    same = ops.ones((batch, windows), dtype="bool")
    for i in range(size - 1):  # the i-th token of every window against the i-th of the last n - 1
        last = ops.take(ids, ops.maximum(length - size + 1 + i, 0), axis=1)[:, None]
        same = ops.logical_and(same, ops.logical_and(ids[:, i : i + windows] == last, last >= 0))
    following = ids[:, size - 1 :]
    return ops.where(count(following, ops.cast(same, "float32"), scores.shape[1]) > 0, NEVER, scores)


def forbid(scores, forbidden):
    """Forbids some tokens, in every row the same or in each its own.

    Shape: (B, V), (V,) or (B, V) bool -> (B, V)
    """
    ops = ops_of(scores)
    return ops.where(forbidden if len(forbidden.shape) == 2 else forbidden[None, :], NEVER, scores)


def force(scores, token_id):
    """Forbids all but one id, if it is not -1.

    Shape: (B, V), () -> (B, V)
    """
    ops = ops_of(scores)
    vocabulary = ops.arange(scores.shape[1], dtype="int32")
    others = ops.logical_and(vocabulary != token_id, token_id >= 0)
    kept = ops.where(others[None, :], NEVER, scores)
    return ops.where(ops.logical_and(vocabulary == token_id, token_id >= 0)[None, :], 0.0, kept)
