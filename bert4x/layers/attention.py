"""Multi-head attention: project -> positions -> cache -> scores (+ bias) -> mix -> output."""

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.layers.base import Dropout, Layer, initializer
from bert4x.layers.entropy import growth
from bert4x.layers.flash import attend_without_scores
from bert4x.layers.groups import by_groups
from bert4x.layers.local import attend_locally
from bert4x.layers.norm import RMSNorm
from bert4x.layers.recompute import recomputed
from bert4x.layers.slots import write_slots
from bert4x.layers.two_directions import attend_in_both

HIDDEN = -1e9  # the score of an invisible key: finite, so that a row with no visible key is not NaN


@keras.saving.register_keras_serializable("bert4x")
class MultiHeadAttention(Layer):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, arXiv 1706.03762).

    Settings:
        key_value_heads: K heads of keys and values, each for A / K heads of queries (Ainslie et al. 2023, arXiv
            2305.13245); default: as many as `heads`.
        key_size: of queries and keys; default: `head_size`, that of values.
        output_bias: whether the output has a bias; default: as the others, by `use_bias`.
        scale: what products of queries and keys are multiplied by; default: key_size^-0.5.
        query_key_norm: the epsilon of an RMSNorm over each head of queries and keys (Qwen3); default: no norm.
        positions: how it knows the positions of tokens (`bert4x.layers.positions`); default: it does not.
        log_n: the length in training m: scores are multiplied by log n / log m where a query sees n keys
            (`bert4x.layers.entropy`); default: they are not. With `log_n_beyond` only where n is above m.
        recompute: what it computes in training is not kept, but computed again in the backward pass.
        flash_attention: Keras' own attention computes it, which holds no scores where the backend can do so (Dao et al.
            2022, arXiv 2205.14135); None does so on PyTorch, outside of training. It knows no dropout, bias, relative
            vectors, partner, or keys of another size than values: with those, and with a cache, nothing changes.
        return_scores: also return the scores before the softmax, second. With those of the layer before as its `bias`
            it is residual attention (He et al. 2020, arXiv 2012.11747).
        partner_dropout: see below.

    Arguments of a call:
        bias: is added to the scores, (B or 1, A, T, S); if it is bool, what is visible must be so in it, too.
        positions, key_positions: of the tokens of x, and of all S keys; by default 0, 1, 2 ...
        past: the keys and values of S cached slots. Those of x are written from slot `index` on, queries attend to all,
            and the new keys and values are returned, last.
        return_weights: also return the attention weights, the softmax before its dropout.
        visible_to_partner, partner_weight: attention of two directions (`bert4x.layers.two_directions`), with
            `partner_dropout` inside its tanh.
        local: [window, dilation, causal], to attend in blocks (`bert4x.layers.local`); `visible` is then (B, 1, 1, T).
        previous_scores: the name of `bias` in `.keras` files of earlier versions.

    The softmax runs in float32 whatever the policy.

    Shape: x (B, T, D), visible (B, 1, T, S) bool -> (B, T, D)[, scores (B, A, T, S)][, weights (B, A, T, S)][,
    ((B, K, S, d_k), (B, K, S, d_v))]; S = T without a cache; scores and weights have 2 T rows with a partner
    Raises: ConfigError for key/value heads that do not divide the heads.
    """

    def __init__(
        self,
        heads,
        head_size,
        key_size=None,
        use_bias=True,
        dropout=0.0,
        stddev=0.02,
        return_scores=False,
        partner_dropout=0.0,
        recompute=False,
        flash_attention=None,
        key_value_heads=None,
        scale=None,
        query_key_norm=None,
        positions=None,
        output_bias=None,
        log_n=None,
        log_n_beyond=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads = heads
        self.head_size = head_size
        self.key_size = key_size or head_size
        self.key_value_heads = key_value_heads or heads
        self.use_bias = use_bias
        self.output_bias = use_bias if output_bias is None else output_bias
        self.dropout = dropout
        self.stddev = stddev
        self.scale = scale
        self.query_key_norm = query_key_norm
        self.positions = keras.saving.deserialize_keras_object(positions) if isinstance(positions, dict) else positions
        self.log_n = log_n
        self.log_n_beyond = log_n_beyond
        self.return_scores = return_scores
        self.partner_dropout = partner_dropout
        self.recompute = recompute
        self.flash_attention = flash_attention
        if heads % self.key_value_heads:
            raise ConfigError(
                f"{heads} attention heads cannot share {key_value_heads} heads of keys and values; expected a divisor"
            )

    def build_from_config(self, config):  # files of earlier versions have the shapes of more arguments
        self.build(tuple(config["input_shape"] if "input_shape" in config else config["shapes_dict"]["x_shape"]))

    def build(self, x_shape):
        def dense(name, size, shape=x_shape, use_bias=self.use_bias):
            start = initializer(self.stddev)  # each its own: one for all would give all the same numbers
            return self.new_dense(name, size, shape, None, use_bias, start)

        self.query_dense = dense("query", self.heads * self.key_size)
        self.key_dense = dense("key", self.key_value_heads * self.key_size)
        self.value_dense = dense("value", self.key_value_heads * self.head_size)
        mixed = (*x_shape[:-1], self.heads * self.head_size)
        self.output_dense = dense("output", x_shape[-1], mixed, self.output_bias)
        if self.query_key_norm is not None:
            norm = {"epsilon": self.query_key_norm, "dtype": self.dtype_policy}
            self.query_norm, self.key_norm = RMSNorm(name="query_norm", **norm), RMSNorm(name="key_norm", **norm)
            self.query_norm.build((*x_shape[:-1], self.key_size))
            self.key_norm.build((*x_shape[:-1], self.key_size))
        self.attention_dropout = Dropout(self.dropout, dtype=self.compute_dtype)
        self.fusion_dropout = Dropout(self.partner_dropout, dtype=self.compute_dtype)

    def call(
        self,
        x,
        visible,
        bias=None,
        positions=None,
        key_positions=None,
        past=None,
        index=0,
        visible_to_partner=None,
        partner_weight=0.1,
        return_weights=False,
        local=None,
        previous_scores=None,
        training=None,
    ):
        bias = previous_scores if bias is None else bias
        if bias is not None and keras.backend.standardize_dtype(bias.dtype) == "bool":  # a Lambda's
            visible, bias = ops.logical_and(visible, bias), None
        places, partner = (positions, key_positions), (visible_to_partner, partner_weight)

        def attend(x, bias=None):
            return self.attend(x, visible, bias, places, past, index, partner, return_weights, local, training)

        given = [x] if bias is None else [x, bias]
        if not (self.recompute and training):
            return attend(*given)
        dropouts = [self.attention_dropout] + ([self.fusion_dropout] if visible_to_partner is not None else [])
        return recomputed(self, attend, *given, dropouts=dropouts)

    def attend(self, x, visible, bias, places, past, index, partner, return_weights, local, training):
        """All of `call`. `places`: positions of queries and keys, or None; `partner`: what it sees, and its weight."""
        query, (key, value) = self.queries(x), self.keys_values(x)
        query_positions, key_positions = self.positions_of(x, *places)
        if self.positions is not None:
            query, key = self.positions.turn(query, key, query_positions)
        if local is not None:
            return self.output_of(self.look_near(query, key, value, visible, local, training), x)
        if past is not None:
            key, value = (write_slots(old, index, new, axis=2) for old, new in zip(past, (key, value), strict=True))
        flash = self.uses_flash(training, past, bias, partner[0], return_weights or None)

        def look(query, query_positions, visible):
            return self.look(query, key, value, visible, bias, (query_positions, key_positions), flash, training)

        if partner[0] is None:
            mixed, scores, weights = look(query, query_positions, visible)
        else:
            both = query, query_positions, visible, *partner, self.fusion_dropout, training
            mixed, scores, weights = attend_in_both(look, *both)
        out = self.output_of(mixed, x)
        out = self.outputs(out, scores, weights if return_weights else None, None if past is None else (key, value))
        return out[0] if len(out) == 1 else tuple(out)

    def output_of(self, mixed, x):
        """What a token gets of the values mixed for it. Shape: (B, A, T, d_v), (B, T, D) -> (B, T, D)"""
        return self.output_dense(self.join_heads(mixed))

    def outputs(self, out, scores, weights, keys_values) -> list:
        """What a call returns: all of it that there is, scores where they are asked for."""
        return [x for x in (out, scores if self.return_scores else None, weights, keys_values) if x is not None]

    def positions_of(self, x, query, key):
        """The positions of queries and of keys, where they count: of queries by default 0, 1 ..., of keys the same."""
        if self.positions is None:
            return None, None
        query = ops.arange(ops.shape(x)[1], dtype="int32") if query is None else query
        return query, query if key is None else key

    def queries(self, x):
        """Shape: (B, T, D) -> (B, A, T, d_k)"""
        query = self.split_heads(self.query_dense(x), self.heads)
        return query if self.query_key_norm is None else self.query_norm(query)

    def keys_values(self, x):
        """Shape: (B, S, D) -> (B, K, S, d_k), (B, K, S, d_v)"""
        key, value = (self.split_heads(dense(x), self.key_value_heads) for dense in (self.key_dense, self.value_dense))
        return key if self.query_key_norm is None else self.key_norm(key), value

    def look(self, query, key, value, visible, bias, places, flash, training):
        """The values mixed for each query, and the scores and weights of that; with `flash` None for both. `places` are
        the positions of queries and keys.

        Shape: -> (B, A, T, d_v), (B, A, T, S) float32, (B, A, T, S) float32
        """
        if flash:
            if self.log_n is not None:
                query = query * ops.cast(growth(visible, self.log_n, self.log_n_beyond), query.dtype)
            scale = self.key_size**-0.5 if self.scale is None else self.scale
            return attend_without_scores(query, key, value, visible, scale), None, None
        scores = self.scores(query, key, places)
        scores = scores if bias is None else scores + ops.cast(bias, "float32")
        weights = self.weights_of(scores, visible)
        return self.mix(weights, value, places, training), scores, weights

    def look_near(self, query, key, value, valid, local, training):
        """The values mixed for each query of those near it. Shape: ..., (B, 1, 1, T) -> (B, A, T, d_v)"""

        def weigh(products, visible):
            weights = ops.cast(self.weights_of(self.scaled(products), visible), self.compute_dtype)
            return self.attention_dropout(weights, training=training)

        return attend_locally(query, key, value, valid, weigh, *local)

    def scores(self, query, key, places=(None, None)):
        """Shape: (B, A, T, d_k), (B, K, S, d_k) -> (B, A, T, S) float32"""
        scores = by_groups(query, ops.transpose(key, (0, 1, 3, 2)))
        if self.positions is not None and self.positions.inside_scores:
            scores = scores + self.positions.scores(query, *places)
        return self.scaled(scores)

    def scaled(self, products):
        """Products of queries and keys as scores, in float32."""
        products = ops.cast(products, "float32")
        return products / self.key_size**0.5 if self.scale is None else products * self.scale

    def weights_of(self, scores, visible):
        """Shape: (B, A, T, S), (B, 1, T, S) -> (B, A, T, S) float32, which add up to 1 for each query"""
        if self.log_n is not None:
            scores = scores * growth(visible, self.log_n, self.log_n_beyond)
        return ops.softmax(ops.where(visible, scores, HIDDEN), axis=-1)

    def mix(self, weights, value, places, training):
        """Shape: (B, A, T, S), (B, K, S, d_v) -> (B, A, T, d_v)"""
        weights = self.attention_dropout(ops.cast(weights, self.compute_dtype), training=training)
        mixed = by_groups(weights, value)
        if self.positions is not None and self.positions.inside_scores:
            mixed = mixed + self.positions.values(weights, self.head_size, *places)
        return mixed

    def uses_flash(self, training, *unknown) -> bool:
        """Whether Keras' own attention is wanted, and computes the same: it knows nothing of what is `unknown`."""
        wanted = self.flash_attention
        if wanted is None:  # in training PyTorch could not differentiate it twice
            wanted = keras.backend.backend() == "torch" and not training
        alike = self.key_size == self.head_size and not (self.positions is not None and self.positions.inside_scores)
        needs_scores = self.return_scores or (training and self.dropout) or any(x is not None for x in unknown)
        return wanted and alike and not needs_scores

    def split_heads(self, x, heads: int):
        """Shape: (B, T, heads * d) -> (B, heads, T, d)"""
        batch, length, size = ops.shape(x)
        return ops.transpose(reshape(x, (batch, length, heads, size // heads)), (0, 2, 1, 3))

    def join_heads(self, x):
        """Shape: (B, A, T, d) -> (B, T, A * d)"""
        batch, heads, length, size = ops.shape(x)
        return reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, length, heads * size))

    def compute_mask(self, x, mask=None):
        return mask

    def compute_output_spec(self, x, visible, visible_to_partner=None, return_weights=False, **kwargs):
        length = x.shape[1]
        rows = 2 * length if length and visible_to_partner is not None else length
        scores, weights = (self.symbolic((x.shape[0], self.heads, rows, length), "float32") for _ in range(2))
        out = self.outputs(self.symbolic(x.shape), scores, weights if return_weights else None, None)
        return out[0] if len(out) == 1 else tuple(out)


def reshape(x, shape):
    """Keras' function; by the tensor itself where it can, without a look for symbolic sizes in the shape."""
    return x.reshape(shape) if keras.backend.backend() == "torch" and ops.is_tensor(x) else ops.reshape(x, shape)
