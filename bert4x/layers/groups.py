"""Heads of queries that share a head of keys and values (Ainslie et al. 2023, arXiv 2305.13245)."""

from keras import ops


def by_groups(x, shared):
    """Products of what each head has with what its group of heads shares.

    Shape: (B, A, T, n), (B, K, n, m) -> (B, A, T, m)
    """
    groups = shared.shape[1]
    if groups == x.shape[1]:
        return ops.matmul(x, shared)
    batch, heads, length, size = ops.shape(x)
    rows = ops.reshape(x, (batch, groups, -1, size))
    return ops.reshape(ops.matmul(rows, shared), (batch, heads, length, ops.shape(shared)[-1]))
