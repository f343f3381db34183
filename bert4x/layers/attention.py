"""Multi-head attention and the visibility mask it takes."""

import keras
from keras import ops

from bert4x import masks
from bert4x.layers.base import Dense, Dropout, Layer, initializer
from bert4x.layers.recompute import recomputed

HIDDEN = -1e9  # the score of an invisible key: finite, so that a row with no visible key is not NaN


@keras.saving.register_keras_serializable("bert4x")
class Visibility(Layer):
    """The attention mask of an application (see `bert4x.masks`), from the embedded tokens, whose Keras mask tells
    padding, and their ids: the segment ids for `unilm`, any others elsewhere. The application `source` is what an
    encoder-decoder sees of its source, from anywhere: a single row for all queries. With `of_partner=True` it is the
    mask of what queries of the other direction see.

    Shape: (B, T, E), (B, T) -> (B, 1, T, T) bool; `source`: (B, 1, 1, T)
    """

    settings = ("application", "of_partner")

    def __init__(self, application="encoder", of_partner=False, **kwargs):
        super().__init__(**kwargs)
        self.application = application
        self.of_partner = of_partner

    def call(self, x, ids, x_mask=None):
        # Two tensors always: for a layer called on one, Keras records the symbolic call's mask (that of the padding
        # id) as an argument of the graph node, and a padding_mask given later would be ignored.
        rank = masks.token_rank(self.application, ids, ids)
        if self.of_partner:
            return masks.visible_to_partner(self.application, rank, rank, x_mask)
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

    With `visible_to_partner` (see `bert4x.masks`) it is the synchronous bidirectional attention of Zhou, Zhang and Zong
    2019 (arXiv 1905.04847): `partner_weight` * tanh(attention to the partner's keys and values), with dropout inside
    the tanh, is added to every head. Scores then have a row for each query, and another for each of the partner's.

    With `return_weights=True` in the call it also returns the attention weights: the softmax, before its dropout.

    With `recompute=True`, what it computes in training is not kept, but computed again in the backward pass.

    With `flash_attention=True` Keras' own attention computes it, which holds no scores where the backend can do so (Dao
    et al. 2022, arXiv 2205.14135); None does so on PyTorch, outside of training. It knows no dropout, residual scores,
    partner, or keys of another size than values: with those, and with a memory, nothing changes.

    Shape: x (B, T, D), visible (B, 1, T, S) bool[, previous_scores (B, A, T, S)][, visible_to_partner (B, 1, T, S)],
    S = T without a memory -> (B, T, D)[, scores (B, A, T or 2 T, S)][, weights of that shape][, ((B, A, S, d_k),
    (B, A, S, d_v))]
    """

    settings = (
        *("heads", "head_size", "key_size", "use_bias", "dropout", "stddev", "return_scores", "partner_dropout"),
        *("recompute", "flash_attention"),
    )

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads = heads
        self.head_size = head_size
        self.key_size = key_size or head_size
        self.use_bias = use_bias
        self.dropout = dropout
        self.stddev = stddev
        self.return_scores = return_scores
        self.partner_dropout = partner_dropout
        self.recompute = recompute
        self.flash_attention = flash_attention

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
        self.attention_dropout = Dropout(self.dropout, dtype=self.compute_dtype)
        self.fusion_dropout = Dropout(self.partner_dropout, dtype=self.compute_dtype)

    def call(
        self,
        x,
        visible,
        previous_scores=None,
        memory=None,
        index=0,
        visible_to_partner=None,
        partner_weight=0.1,
        return_weights=False,
        training=None,
    ):
        partner = visible_to_partner, partner_weight

        def attend(x, previous_scores=None):
            return self.attend(x, visible, previous_scores, memory, index, partner, return_weights, training)

        given = [x] if previous_scores is None else [x, previous_scores]
        if not (self.recompute and training):
            return attend(*given)
        dropouts = [self.attention_dropout] + ([self.fusion_dropout] if visible_to_partner is not None else [])
        return recomputed(self, attend, *given, dropouts=dropouts)

    def attend(self, x, visible, previous_scores, memory, index, partner, return_weights, training):
        """All of `call`; see there. `partner` is (visible to it, its weight)."""
        visible_to_partner, partner_weight = partner
        query, (key, value) = self.split_heads(self.query_dense(x)), self.keys_values(x)
        if memory is not None:
            key, value = (write(old, index, new) for old, new in zip(memory, (key, value), strict=True))
        if visible_to_partner is not None:  # its queries come to the keys, which are many more, and are read once
            query = ops.concatenate([query, masks.partner(query)], axis=2)
            visible = ops.concatenate([visible, visible_to_partner], axis=2)
        if self.uses_flash(training, memory, previous_scores, visible_to_partner, return_weights or None):
            context = self.flash(query, key, value, visible)
        else:
            scores = self.scores(query, key)
            if previous_scores is not None:
                scores = scores + ops.cast(previous_scores, "float32")
            weights = self.weights_of(scores, visible)
            context = self.mix(weights, value, training)
        if visible_to_partner is not None:
            context = self.fuse(context, visible_to_partner, partner_weight, training)
        out = self.output_dense(self.join_heads(context))
        extra = [scores] if self.return_scores else []
        extra += [weights] if return_weights else []
        extra += [(key, value)] if memory is not None else []
        return (out, *extra) if extra else out

    def uses_flash(self, training, *unknown) -> bool:
        """Whether `flash` is wanted, and computes the same: it knows nothing of what is in `unknown`, if not None."""
        wanted = self.flash_attention
        if wanted is None:  # in training PyTorch could not differentiate it twice
            wanted = keras.backend.backend() == "torch" and not training
        alike = self.key_size == self.head_size
        needs_scores = self.return_scores or (training and self.dropout) or any(x is not None for x in unknown)
        return wanted and alike and not needs_scores

    def flash(self, query, key, value, visible):
        """Shape: (B, A, T, d), (B, A, S, d), (B, A, S, d), (B, 1, T or 1, S) -> (B, A, T, d)"""
        query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
        if visible.shape[2] == 1:  # which cuDNN does not take
            visible = ops.logical_and(visible, ops.ones((ops.shape(query)[1], 1), "bool"))
        context = ops.dot_product_attention(query, key, value, mask=visible, scale=self.key_size**-0.5)
        return ops.transpose(context, (0, 2, 1, 3))

    def fuse(self, context, visible_to_partner, weight, training):
        """The context of each row, and what its partner's keys gave for its queries; nothing where none was visible.

        Shape: (B, A, 2 T, d_v), (B, 1, T, S) -> (B, A, T, d_v)
        """
        length = ops.shape(visible_to_partner)[2]
        own, partner = context[:, :, :length], context[:, :, length:]
        partner = ops.where(ops.any(visible_to_partner, axis=-1, keepdims=True), partner, ops.zeros_like(partner))
        partner = ops.tanh(self.fusion_dropout(partner, training=training))
        return own + ops.cast(weight, own.dtype) * masks.partner(partner)

    def keys_values(self, x):
        """Shape: (B, S, D) -> (B, A, S, d_k), (B, A, S, d_v)"""
        return self.split_heads(self.key_dense(x)), self.split_heads(self.value_dense(x))

    def scores(self, query, key):
        """Shape: (B, A, T, d_k), (B, A, S, d_k) -> (B, A, T, S) float32"""
        return ops.cast(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), "float32") / self.key_size**0.5

    def weights_of(self, scores, visible):
        """Shape: (B, A, T, S), (B, 1, T, S) -> (B, A, T, S) float32, which add up to 1 for each query"""
        return ops.softmax(ops.where(visible, scores, HIDDEN), axis=-1)

    def mix(self, weights, value, training):
        """Shape: (B, A, T, S), (B, A, S, d_v) -> (B, A, T, d_v)"""
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

    def compute_output_spec(self, x, visible, visible_to_partner=None, return_weights=False, **kwargs):
        out, length = self.symbolic(x.shape), x.shape[1]
        rows = 2 * length if length and visible_to_partner is not None else length
        squares = self.return_scores + bool(return_weights)
        more = [self.symbolic((x.shape[0], self.heads, rows, length), "float32") for _ in range(squares)]
        return (out, *more) if more else out


@keras.saving.register_keras_serializable("bert4x")
class CrossAttention(MultiHeadAttention):
    """Multi-head attention of one sequence to another, given as hidden states or, computed once for all steps of a
    decoder, as what `keys_values` makes of them.

    Shape: x (B, T, D), source (B, S, D) or ((B, A, S, d_k), (B, A, S, d_v)), visible (B, 1, T or 1, S)
    -> (B, T, D)[, weights (B, A, T, S)]
    """

    def build(self, x_shape, source_shape=None, visible_shape=None):
        super().build(x_shape)

    def call(self, x, source, visible, return_weights=False, training=None):
        if not (self.recompute and training) or isinstance(source, list | tuple):
            return self.attend(x, source, visible, return_weights, training)

        def attend(x, source):
            return self.attend(x, source, visible, return_weights, training)

        return recomputed(self, attend, x, source, dropouts=[self.attention_dropout])

    def attend(self, x, source, visible, return_weights, training):
        """All of `call`."""
        query = self.split_heads(self.query_dense(x))
        memory = source if isinstance(source, list | tuple) else None
        key, value = memory or self.keys_values(source)
        if self.uses_flash(training, memory, return_weights or None):
            context = self.flash(query, key, value, visible)
        else:
            weights = self.weights_of(self.scores(query, key), visible)
            context = self.mix(weights, value, training)
        out = self.output_dense(self.join_heads(context))
        return (out, weights) if return_weights else out

    def compute_output_spec(self, x, source, visible, return_weights=False, training=None):
        out = self.symbolic(x.shape)
        if not return_weights:
            return out
        return out, self.symbolic((x.shape[0], self.heads, x.shape[1], source.shape[1]), "float32")


def write(memory, index, new):
    """The memory with new keys or values from slot `index` on; PyTorch, which has no compiler to do so, reuses it.

    Shape: (B, A, S, d), (B, A, t, d) -> (B, A, S, d)
    """
    new = ops.cast(new, memory.dtype)
    if keras.backend.backend() == "torch" and not memory.requires_grad and not new.requires_grad:
        memory[:, :, index : index + new.shape[2]] = new
        return memory
    return ops.slice_update(memory, (0, 0, index, 0), new)
