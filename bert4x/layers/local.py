"""Attention to what is near, in blocks: time and memory grow with the length, not with its square."""

from typing import NamedTuple

from keras import ops


class Places(NamedTuple):
    """Which tokens are computed together.

    Shape: queries (n, w) and keys (n, 2 w or 3 w) int32, places in the text, some before or behind it; near (n, w, 2 w
    or 3 w) bool, which of these keys a query sees; order (T,) int32, where among all n w queries each token is
    """

    queries: "ops.Tensor"
    keys: "ops.Tensor"
    near: "ops.Tensor"
    order: "ops.Tensor"


def places(length, window: int, dilation: int, causal: bool) -> Places:
    """A text in blocks of `window` tokens. A block's queries see keys of their own block, of the one before it and, if
    not `causal`, the one behind it: what is less than `window` steps of `dilation` tokens away. With a dilation, a
    block is of tokens that stand so far apart: each remainder of places has blocks of its own.
    """
    count = (length + window * dilation - 1) // (window * dilation)  # blocks of one remainder
    remainder = ops.arange(dilation, dtype="int32")[:, None]
    first = ops.reshape(remainder + ops.arange(count, dtype="int32") * window * dilation, (-1, 1))
    queries = first + ops.arange(window, dtype="int32") * dilation
    keys = first + ops.arange(-window, window if causal else 2 * window, dtype="int32") * dilation
    distance = queries[:, :, None] - keys[:, None, :]
    distance = distance if causal else ops.abs(distance)
    near = ops.logical_and(distance < window * dilation, distance >= 0)
    near = ops.logical_and(near, ops.logical_and(keys >= 0, keys < length)[:, None, :])
    token = ops.arange(length, dtype="int32")
    return Places(queries, keys, near, token % dilation * count * window + token // dilation)


def attend_locally(query, key, value, valid, weigh, window: int, dilation: int, causal: bool):
    """The values mixed for each query over the keys near it. What stands padded sees what it happens to.

    Args:
        weigh: the weights of products of queries and keys, given which of them are visible.

    Shape: (B, A, T, d_k), (B, K, T, d_k), (B, K, T, d_v), valid (B, 1, 1, T) bool -> (B, A, T, d_v)
    """
    batch, heads, length, _ = ops.shape(query)
    if key.shape[1] != heads:
        key, value = (ops.repeat(x, heads // x.shape[1], axis=1) for x in (key, value))
    at = places(length, window, dilation, causal)

    def blocks(x, where):
        """Shape: (B, A, T, d), (n, m) -> (B, A, n, m, d)"""
        return ops.take(x, ops.clip(where, 0, length - 1), axis=2)

    seen = ops.take(valid[:, :, 0], ops.clip(at.keys, 0, length - 1), axis=2)[:, :, :, None, :]
    products = ops.matmul(blocks(query, at.queries), ops.swapaxes(blocks(key, at.keys), -1, -2))
    mixed = ops.matmul(weigh(products, ops.logical_and(seen, at.near)), blocks(value, at.keys))
    return ops.take(ops.reshape(mixed, (batch, heads, -1, value.shape[-1])), at.order, axis=2)
