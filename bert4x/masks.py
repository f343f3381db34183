"""The one rule of attention visibility.

Key k is visible to query q iff `valid[k] and rank[k] <= rank[q]`. What an application is, is only its rank:

- `encoder`: rank 0 everywhere, so every real token sees every other (Devlin et al. 2018, arXiv 1810.04805);
- `lm`: rank is the position, so a token sees itself and what came before;
- `unilm`: rank is the cumulative sum of the segment ids, so the source (segment 0) is bidirectional and each target
  token (segment 1) sees the source and the targets before it (Dong et al. 2019, arXiv 1905.03197).

In a layer with a window w, keys w ranks or more before a query are not visible: 0 <= rank[q] - rank[k] < w. An encoder,
whose ranks are all 0, counts tokens instead, in both directions: |q - k| < w. With a dilation r the window is of w
steps of r: of what is less than w r away, every r-th is visible (`bert4x.layers.local` computes both in blocks).

Where several texts are packed into a row, a token sees none of another text. Within a text all differences of ranks are
what they would be in a row of its own.

In synchronous bidirectional decoding (Zhou et al. 2019, arXiv 1905.04847) the rows of a batch are two directions: the
first half writes its targets from left to right, the second half the same from right to left. Row r of R then also sees
targets of its partner, row (r + R / 2) mod R, by the same rule.
"""

from keras import ops


def token_rank(application: str, token_ids, segment_ids=None):
    """Rank of every token under an application.

    Shape: (B, T) integer ids and segment ids -> (B, T) int32
    """
    if application == "unilm":
        return ops.cumsum(ops.cast(segment_ids, "int32"), axis=1)
    if application == "lm":
        return ops.broadcast_to(ops.arange(ops.shape(token_ids)[1], dtype="int32")[None, :], ops.shape(token_ids))
    return ops.zeros_like(token_ids, dtype="int32")


def visible(query_rank, key_rank, key_valid=None, window=None, places=None, dilation=1):
    """Which keys each query may attend to; with a window w only those less than w ranks before it, or with `places` of
    the same tokens as queries and keys, those less than w places away; with a dilation, every so many of w times that.

    Shape: (B, T), (B, S), (B, S) bool or None[, places (B, T), S = T] -> (B, 1, T, S) bool
    """
    query, key = query_rank[:, None, :, None], key_rank[:, None, None, :]
    seen = key <= query
    if window is not None:
        distance = query - key if places is None else ops.abs(places[:, None, :, None] - places[:, None, None, :])
        seen = ops.logical_and(seen, distance < window * dilation)
        seen = ops.logical_and(seen, distance % dilation == 0) if dilation > 1 else seen
    return seen if key_valid is None else ops.logical_and(seen, key_valid[:, None, None, :])


def of_same_text(texts):
    """Which keys are of a query's own text, by the number of each token's text.

    Shape: (B, T) -> (B, 1, T, T) bool
    """
    return texts[:, None, :, None] == texts[:, None, None, :]


def places_in_texts(texts):
    """How many tokens of the same text stand before each.

    Shape: (B, T) -> (B, T) int32
    """
    places = token_rank("lm", texts)
    before = ops.logical_and(of_same_text(texts), visible(places, places))
    return ops.sum(ops.cast(before, "int32"), axis=-1)[:, 0] - 1


def partner(x):
    """For every row its partner, which writes in the other direction.

    Shape: (R, ...) -> (R, ...), R even
    """
    left_to_right, right_to_left = ops.split(x, 2, axis=0)  # fails for an odd R, on every backend
    return ops.concatenate([right_to_left, left_to_right], axis=0)


def visible_to_partner(application: str, query_rank, key_rank, key_valid=None, window=None):
    """Which keys of each row the queries of its partner may attend to: of a UniLM's, the targets only.

    Shape: (B, T), (B, S), (B, S) bool or None -> (B, 1, T, S) bool
    """
    seen = visible(partner(query_rank), key_rank, key_valid, window)
    return ops.logical_and(seen, (key_rank > 0)[:, None, None, :]) if application == "unilm" else seen
