"""The mathematics the oracles share, one head and one row at a time."""

import math

import numpy as np

from .long_texts import frequencies, sharper

erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu_erf(x):
    """Gaussian error linear unit x * Phi(x) (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def gelu_tanh(x):
    """The same paper's approximation of it by a hyperbolic tangent."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu_erf": gelu_erf,
    "gelu_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "linear": lambda x: x,
    None: lambda x: x,
}


class Weights:
    """Looks up tensors by canonical path, cast to float64."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __contains__(self, path):
        return path in self.tensors

    def __getitem__(self, path):
        return np.asarray(self.tensors[path], np.float64)

    def dense(self, path, x):
        y = x @ self[f"{path}/kernel"]
        return y + self[f"{path}/bias"] if f"{path}/bias" in self else y

    def norm(self, path, x, epsilon, condition=None, hidden_act=None):
        """Layer normalization (Ba et al. 2016), conditional (Su 2020, kexue 7124) where the weights have the denses.

        The condition, of shape (B, C) or (B, T, C), shifts gamma and beta by a linear map each, behind an optional
        hidden layer both share.
        """
        gamma, beta = self[f"{path}/gamma"], self[f"{path}/beta"]
        if condition is not None and f"{path}/gamma_dense/kernel" in self:
            c = np.asarray(condition, np.float64)
            c = c[:, None, :] if c.ndim < x.ndim else c
            if f"{path}/hidden_dense/kernel" in self:
                c = ACTIVATIONS[hidden_act](self.dense(f"{path}/hidden_dense", c))
            gamma = gamma + self.dense(f"{path}/gamma_dense", c)
            beta = beta + self.dense(f"{path}/beta_dense", c)
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def padding(config, token_ids, padding_mask):
    """True at real tokens: the mask given, or the ids that differ from the pad id, or everything."""
    if padding_mask is not None:
        return np.asarray(padding_mask, bool)
    pad = config.get("pad_token_id")
    return np.ones(np.shape(token_ids), bool) if pad is None else np.asarray(token_ids) != pad


def is_visible(application, q, k, segments, valid):
    """Whether the token at q may look at the token at k, for one sequence.

    'lm': the past and itself. 'unilm' (Dong et al. 2019, arXiv 1905.03197): a token sees those before which no more
    targets (segment 1) have begun, so the source (segment 0) sees all of itself and no target, and a target sees the
    source and the targets up to itself.
    """
    if not valid[k]:
        return False
    if application == "encoder":
        return True
    if application == "lm":
        return k <= q
    return segments[: k + 1].sum() <= segments[: q + 1].sum()


def is_seen_ahead(application, q, k, segments, others, valid):
    """Whether the token at q may look at the token at k of the same sequence written in the other direction.

    Of the other direction's targets it sees as many as there are of its own up to itself; of its source, which is
    the same as its own, nothing.
    """
    if not valid[k]:
        return False
    if application == "lm":
        return k <= q
    return 1 <= others[: k + 1].sum() <= segments[: q + 1].sum()


def attention(w, path, x, config, application, segments, valid, previous, lookahead=None, position_ids=None):
    """Multi-head scaled dot-product self-attention (Vaswani et al. 2017) of x (B, T, D).

    Returns the output (B, T, D) and the scores before the softmax (B, A, T, T); `previous`, when given, is added to
    these scores (RealFormer, He et al. 2020, arXiv 2012.11747).

    With `lookahead`, the first half of the rows are targets written from left to right, the second half the same from
    right to left, and each also sees the past of the other (Zhou et al. 2019, arXiv 1905.04847, "nonlinear
    interpolation" with tanh): own + lookahead * tanh(attention to the other's keys and values), for every head. The
    scores are then (B, 2, A, T, T), those of the other direction second.
    """
    heads = config["num_attention_heads"]
    query, key, value = (w.dense(f"{path}/{name}", x) for name in ("query", "key", "value"))
    batch, length, _ = x.shape
    places = np.tile(np.arange(length), (batch, 1)) if position_ids is None else np.asarray(position_ids)
    if "Embedding-Relative/embeddings" in w:
        vectors = w.norm("Embedding-Relative/row_norm", w["Embedding-Relative/embeddings"], config["layer_norm_eps"])
        config = config | {"distances": [w.dense(f"{path}/{name}", vectors) for name in ("query", "key")]}
    scores, mixed = [], []
    for b in range(batch):
        seen = [
            [k for k in range(length) if is_visible(application, q, k, segments[b], valid[b])] for q in range(length)
        ]
        before = [None, None] if previous is None else previous[b] if lookahead else [previous[b]]
        values, score = attend(query[b], key[b], value[b], heads, seen, before[0], config, places[b])
        if lookahead:
            o = (b + batch // 2) % batch
            seen = [
                [k for k in range(length) if is_seen_ahead(application, q, k, segments[b], segments[o], valid[o])]
                for q in range(length)
            ]
            others, other_score = attend(query[b], key[o], value[o], heads, seen, before[1], config, places[b])
            values, score = values + lookahead * np.tanh(others), [score, other_score]
        mixed.append(values)
        scores.append(score)
    return w.dense(f"{path}/output", np.array(mixed)), np.array(scores)


def cross_attention(w, path, x, source, config, valid):
    """Multi-head attention of x (B, T, D) to those positions of source (B, S, D) that are valid (B, S)."""
    query = w.dense(f"{path}/query", x)
    key, value = (w.dense(f"{path}/{name}", source) for name in ("key", "value"))
    mixed = []
    for b in range(len(x)):
        seen = [np.flatnonzero(valid[b])] * x.shape[1]
        mixed.append(attend(query[b], key[b], value[b], config["num_attention_heads"], seen)[0])
    return w.dense(f"{path}/output", np.array(mixed))


def attend(query, key, value, heads, seen, previous=None, config=None, places=None):
    """One row: queries (T, A * d_k), keys and values (S, ...), and for each query the list of keys it sees.

    `places` (T,) are positions. RoFormer (Su et al. 2021, arXiv 2104.09864, equation 34) turns queries and keys by
    them; NEZHA (Wei et al. 2019, arXiv 1909.00204, equations 3 to 5) adds a fixed vector of the distance between query
    and key to the key, and to its value; DeBERTa (He et al. 2020, arXiv 2006.03654, equation 4) adds the products of
    the query with the vector of the distance as a key, and of that vector as a query with the key.

    Returns the mixed values (T, A * d_v) and the scores (A, T, S).
    """
    key_size, value_size = key.shape[-1] // heads, value.shape[-1] // heads
    scores = np.zeros((heads, len(query), len(key)))
    mixed, kind = np.zeros((len(query), heads * value_size)), (config or {}).get("model")
    for a in range(heads):
        ks, vs = slice(a * key_size, (a + 1) * key_size), slice(a * value_size, (a + 1) * value_size)
        q_head, k_head = query[:, ks], key[:, ks]
        if kind in ("roformer", "roformer_v2"):
            q_head, k_head = rotated(q_head, places, config), rotated(k_head, places, config)
        scores[a] = q_head @ k_head.T / math.sqrt(key_size)
        if kind == "nezha":
            vectors = distance_vectors(places, key_size, config)
            scores[a] += np.einsum("td,tsd->ts", q_head, vectors) / math.sqrt(key_size)
        if kind == "deberta_v2":
            of_query, of_key = (each[distance_rows(places, config), ks] for each in config["distances"])
            added = np.einsum("td,tsd->ts", q_head, of_key) + np.einsum("tsd,sd->ts", of_query, k_head)
            scores[a] = (q_head @ k_head.T + added) / math.sqrt(3 * key_size)
        if previous is not None:
            scores[a] += previous[a]
        for q, keys in enumerate(seen):
            if len(keys):  # a padded query may see nothing: its row is meaningless and nobody looks at it
                sharpness = sharper(config, len(keys)) if config else 1.0
                weights, values = softmax(scores[a, q, keys] * sharpness), value[keys, vs]
                if kind == "nezha":
                    values = values + distance_vectors(places, value_size, config)[q, keys]
                mixed[q, vs] = weights @ values
    return mixed, scores


def rotated(x, places, config):
    """Features 2 i and 2 i + 1 of x (T, d), as a complex number, turned by the angle position / 10000^(2 i / d)."""
    each, magnitude = frequencies(config, x.shape[1], places.max() + 1)
    z = (x[:, ::2] + 1j * x[:, 1::2]) * np.exp(1j * places[:, None] * each) * magnitude
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


def distance_vectors(places, size, config):
    """Sinusoids (T, T, size) of the distances from each query to each key, cut off on both sides and counted from 0."""
    most = config["max_relative_position"]
    rows = np.clip(places[None, :] - places[:, None], -most, most) + most
    vectors = np.zeros((*rows.shape, size))
    for i in range(0, size, 2):
        vectors[..., i], vectors[..., i + 1] = (f(rows / 10000 ** (i / size)) for f in (np.sin, np.cos))
    return vectors


def distance_rows(places, config):
    """The rows (T, T) of DeBERTa's table: of how far each query is after each key, in buckets (appendix A.5)."""
    buckets, most = config["position_buckets"], config["max_relative_positions"]
    span, middle = (most, most) if buckets < 0 else (buckets, buckets // 2)

    def bucket(distance):
        if buckets < 0 or abs(distance) <= middle:
            return distance
        far = math.log(abs(distance) / middle) / math.log((most - 1) / middle)
        return math.copysign(middle + math.ceil(far * (middle - 1) - 1e-9), distance)

    return np.array([[min(max(int(bucket(q - k)) + span, 0), 2 * span - 1) for k in places] for q in places])


def convolution(w, path, x):
    """Neighbours of x (B, T, D), half of the kernel's width on both sides, zeros beyond the text."""
    kernel = w[f"{path}/kernel"]
    around = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (around, around), (0, 0)))
    return sum(padded[:, j : j + x.shape[1]] @ kernel[j] for j in range(len(kernel))) + w[f"{path}/bias"]


def feed_forward(w, path, x, activation):
    return w.dense(f"{path}/output", ACTIVATIONS[activation](w.dense(f"{path}/intermediate", x)))


def position_vectors(table, position_ids, alpha=None):
    """Rows of the position table (P, E) at position_ids (B, T).

    With alpha, positions beyond the table are composed of two rows (hierarchical decomposition, Su 2020, kexue 7947):
    u_i = (p_i - alpha * p_0) / (1 - alpha), and position i * P + j is alpha * u_i + (1 - alpha) * u_j.
    """
    if not alpha:
        return table[position_ids]
    size = len(table)
    u = (table - alpha * table[0]) / (1 - alpha)
    return alpha * u[position_ids // size] + (1 - alpha) * u[position_ids % size]


def positions(config, w, position_ids, batch, length, valid=None):
    """The vectors of positions (B, T, E). fairseq's models count those of real tokens, from the row after that of the
    padding id, which is 1.
    """
    table = w["Embedding-Position/embeddings"]
    if position_ids is None:
        position_ids = np.tile(np.arange(length), (batch, 1))
        if config.get("model") == "xlm_roberta":
            position_ids = np.array([[row[:i].sum() for i in range(length)] for row in valid])
    table = table[2:] if config.get("model") == "xlm_roberta" else table
    alpha = config.get("hierarchical_position")
    return position_vectors(table, np.asarray(position_ids), 0.4 if alpha is True else alpha)
