"""Multi-head attention and the visibility mask it takes."""

import keras
from keras import ops

from bert4x import masks
from bert4x.layers.base import Dense, Layer, initializer

HIDDEN = -1e9  # the score of an invisible key: finite, so that a row with no visible key is not NaN


@keras.saving.register_keras_serializable("bert4x")
class Visibility(Layer):
    """The attention mask of an application (see `bert4x.masks`), from the embedded tokens, whose Keras mask tells
    padding, and their ids: the segment ids for `unilm`, any others elsewhere. The application `source` is what an
    encoder-decoder sees of its source, from anywhere: a single row for all queries.

    Shape: (B, T, E), (B, T) -> (B, 1, T, T) bool; `source`: (B, 1, 1, T)
    """

    settings = ("application",)

    def __init__(self, application="encoder", **kwargs):
        super().__init__(**kwargs)
        self.application = application

    def call(self, x, ids, x_mask=None):
        # Two tensors always: for a layer called on one, Keras records the symbolic call's mask (that of the padding
        # id) as an argument of the graph node, and a padding_mask given later would be ignored.
        rank = masks.token_rank(self.application, ids, ids)
        return masks.visible(rank[:, :1] if self.application == "source" else rank, rank, x_mask)

    def compute_mask(self, x, mask=None):
        return None

    def compute_output_spec(self, x, ids, x_mask=None):
        return self.symbolic((x.shape[0], 1, 1 if self.application == "source" else x.shape[1], x.shape[1]), "bool")


@keras.saving.register_keras_serializable("bert4x")
class MultiHeadAttention(Layer):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, arXiv 1706.03762).

    With `return_scores=True` it also returns the scores before the softmax, and adds `previous_scores` to them:
    residual attention (He et al. 2020, arXiv 2012.11747). With `memory`, the keys and values of S cached positions, it
    writes those of x from position `index` on, attends to all, and returns the new memory last. The softmax runs in
    float32 whatever the policy.

    Shape: x (B, T, D), visible (B, 1, T, S) bool[, previous_scores (B, A, T, S)], S = T without a memory
    -> (B, T, D)[, (B, A, T, S)][, ((B, A, S, d_k), (B, A, S, d_v))]
    """

    settings = ("heads", "head_size", "key_size", "use_bias", "dropout", "stddev", "return_scores")

    def __init__(
        self, heads, head_size, key_size=None, use_bias=True, dropout=0.0, stddev=0.02, return_scores=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.heads = heads
        self.head_size = head_size
        self.key_size = key_size or head_size
        self.use_bias = use_bias
        self.dropout = dropout
        self.stddev = stddev
        self.return_scores = return_scores

    def build(self, x_shape, visible_shape=None, previous_scores_shape=None):
        sizes = {
            "query": self.heads * self.key_size,
            "key": self.heads * self.key_size,
            "value": self.heads * self.head_size,
            "output": x_shape[-1],
        }
        projections = {
            name: Dense(
                size,
                use_bias=self.use_bias,
                kernel_initializer=initializer(self.stddev),
                name=name,
                dtype=self.dtype_policy,
            )
            for name, size in sizes.items()
        }
        self.query_dense, self.key_dense, self.value_dense, self.output_dense = projections.values()
        for name, dense in projections.items():
            dense.build((*x_shape[:-1], self.heads * self.head_size) if name == "output" else x_shape)
        self.attention_dropout = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)

    def call(self, x, visible, previous_scores=None, memory=None, index=0, training=None):
        query, (key, value) = self.split_heads(self.query_dense(x)), self.keys_values(x)
        if memory is not None:
            key, value = (write(old, index, new) for old, new in zip(memory, (key, value), strict=True))
        scores = self.scores(query, key)
        if previous_scores is not None:
            scores = scores + ops.cast(previous_scores, "float32")
        out = self.output_dense(self.join_heads(self.mix(scores, visible, value, training)))
        extra = [scores] if self.return_scores else []
        extra += [(key, value)] if memory is not None else []
        return (out, *extra) if extra else out

    def keys_values(self, x):
        """Shape: (B, S, D) -> (B, A, S, d_k), (B, A, S, d_v)"""
        return self.split_heads(self.key_dense(x)), self.split_heads(self.value_dense(x))

    def scores(self, query, key):
        """Shape: (B, A, T, d_k), (B, A, S, d_k) -> (B, A, T, S) float32"""
        return ops.cast(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), "float32") / self.key_size**0.5

    def mix(self, scores, visible, value, training):
        """Shape: (B, A, T, S), (B, 1, T, S), (B, A, S, d_v) -> (B, A, T, d_v)"""
        weights = ops.softmax(ops.where(visible, scores, HIDDEN), axis=-1)
        return ops.matmul(self.attention_dropout(ops.cast(weights, self.compute_dtype), training=training), value)

    def split_heads(self, x):
        """Shape: (B, T, A * d) -> (B, A, T, d)"""
        batch, length, size = ops.shape(x)
        return ops.transpose(ops.reshape(x, (batch, length, self.heads, size // self.heads)), (0, 2, 1, 3))

    def join_heads(self, x):
        """Shape: (B, A, T, d) -> (B, T, A * d)"""
        batch, heads, length, size = ops.shape(x)
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, length, heads * size))

    def compute_mask(self, x, mask=None):
        return mask

    def compute_output_spec(self, x, visible, previous_scores=None, memory=None, index=0, training=None):
        out = self.symbolic(x.shape)
        if not self.return_scores:
            return out
        return out, self.symbolic((x.shape[0], self.heads, x.shape[1], x.shape[1]), "float32")


@keras.saving.register_keras_serializable("bert4x")
class CrossAttention(MultiHeadAttention):
    """Multi-head attention of one sequence to another, given as hidden states or, computed once for all steps of a
    decoder, as what `keys_values` makes of them.

    Shape: x (B, T, D), source (B, S, D) or ((B, A, S, d_k), (B, A, S, d_v)), visible (B, 1, T or 1, S) -> (B, T, D)
    """

    def build(self, x_shape, source_shape=None, visible_shape=None):
        super().build(x_shape)

    def call(self, x, source, visible, training=None):
        query = self.split_heads(self.query_dense(x))
        key, value = source if isinstance(source, list | tuple) else self.keys_values(source)
        return self.output_dense(self.join_heads(self.mix(self.scores(query, key), visible, value, training)))

    def compute_output_spec(self, x, source, visible, training=None):
        return self.symbolic(x.shape)


def write(memory, index, new):
    """The memory with new keys or values from slot `index` on; PyTorch, which has no compiler to do so, reuses it.

    Shape: (B, A, S, d), (B, A, t, d) -> (B, A, S, d)
    """
    new = ops.cast(new, memory.dtype)
    if keras.backend.backend() == "torch" and not memory.requires_grad and not new.requires_grad:
        memory[:, :, index : index + new.shape[2]] = new
        return memory
    return ops.slice_update(memory, (0, 0, index, 0), new)
