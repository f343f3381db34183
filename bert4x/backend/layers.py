"""bert4keras' attention as scripts call it themselves, on queries, keys and values, and the positions that it takes."""

import keras
from keras import ops

from bert4x.backend.attention import apply_rotary_position_embeddings, attention_normalize, sinusoidal_embeddings
from bert4x.backend.shapes import align
from bert4x.errors import ConfigError
from bert4x.layers.base import Dropout, Layer, Unmasked
from bert4x.layers.position_embeddings import MERGES
from bert4x.layers.positions import bucket_of, distances

__all__ = [
    "QueryKeyValueAttention",
    "RelativePositionEmbedding",
    "RelativePositionEmbeddingT5",
    "SinusoidalPositionEmbedding",
]
POSITIONS = (None, "rotary", "typical_relative", "t5_relative")


@keras.saving.register_keras_serializable("bert4x")
class QueryKeyValueAttention(Layer):
    """bert4keras' MultiHeadAttention, with its arguments and its call. Inside models, and wherever one sequence attends
    to itself, it is `bert4x.layers.MultiHeadAttention`, which is faster and knows caches.

    Called on a list: queries (B, T, D), keys (B, S, E), values (B, S, E); with `a_bias=True` a bias of scores, of
    (B, T, S) or (B, A, T, S), or a mask of bool; with `p_bias` what tells the positions: "rotary" sines and cosines,
    (B, T, key_size); "typical_relative" (T, S, key_size); "t5_relative" (T, S, A). Keys that the mask of the values
    hides are not seen; the mask of the queries goes on.

    Shape: -> (B, T, out_dim)[, scores before normalisation (B, A, T, S)]

    Raises: ConfigError for other positions.
    """

    def __init__(
        self,
        heads,
        head_size,
        out_dim=None,
        key_size=None,
        use_bias=True,
        normalization="softmax",
        attention_scale=True,
        attention_dropout=None,
        return_attention_scores=False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.head_size, self.key_size = heads, head_size, key_size or head_size
        self.out_dim = out_dim or heads * head_size
        self.use_bias, self.normalization, self.attention_scale = use_bias, normalization, attention_scale
        self.attention_dropout, self.return_attention_scores = attention_dropout, return_attention_scores
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, shapes):
        def dense(units, shape, name):
            return self.new_dense(name, units, shape, None, self.use_bias, self.kernel_initializer.clone())

        query, key, value = shapes[:3]
        self.q_dense = dense(self.key_size * self.heads, query, "query")
        self.k_dense = dense(self.key_size * self.heads, key, "key")
        self.v_dense = dense(self.head_size * self.heads, value, "value")
        self.o_dense = dense(self.out_dim, (*query[:2], self.head_size * self.heads), "output")
        self.dropout = Dropout(self.attention_dropout or 0.0, dtype=self.compute_dtype)

    def call(self, inputs, mask=None, a_bias=None, p_bias=None, training=None):
        if p_bias not in POSITIONS:
            raise ConfigError(f"p_bias = {p_bias!r}; expected one of {POSITIONS}")
        query, key, value, *others = inputs
        query, key = (self.in_heads(x, self.key_size) for x in (self.q_dense(query), self.k_dense(key)))
        value = self.in_heads(self.v_dense(value), self.head_size)
        bias = others.pop(0) if a_bias else None
        if bias is not None and len(bias.shape) == 3:
            bias = align(bias, [0, -2, -1], 4)
        if p_bias == "rotary":
            query, key = apply_rotary_position_embeddings(others[0], query, key)
        scores = ops.einsum("bjhd,bkhd->bhjk", query, key)
        if p_bias == "typical_relative":
            scores = scores + ops.einsum("bjhd,jkd->bhjk", query, others[0])
        elif p_bias == "t5_relative":
            scores = scores + ops.transpose(others[0], (2, 0, 1))[None]
        if self.attention_scale:
            scores = scores / self.key_size**0.5
        weights = attention_normalize(scores, mask[2] if mask else None, -1, self.normalization, bias)
        weights = self.dropout(weights, training=training)
        mixed = ops.einsum("bhjk,bkhd->bjhd", weights, value)
        if p_bias == "typical_relative":
            mixed = mixed + ops.einsum("bhjk,jkd->bjhd", weights, others[0])
        mixed = ops.reshape(mixed, (*ops.shape(mixed)[:2], self.heads * self.head_size))
        out = self.o_dense(mixed)
        return [out, scores] if self.return_attention_scores else out

    def in_heads(self, x, size):
        """Shape: (B, T, heads * size) -> (B, T, heads, size)"""
        return ops.reshape(x, (*ops.shape(x)[:2], self.heads, size))

    def compute_mask(self, inputs, mask=None):
        own = mask[0] if mask else None
        return [own, None] if self.return_attention_scores else own

    def compute_output_spec(self, inputs, mask=None, a_bias=None, p_bias=None, training=None):
        (rows, queries), keys = inputs[0].shape[:2], inputs[1].shape[1]
        out = self.symbolic((rows, queries, self.out_dim))
        return [out, self.symbolic((rows, self.heads, queries, keys))] if self.return_attention_scores else out


@keras.saving.register_keras_serializable("bert4x")
class SinusoidalPositionEmbedding(Layer):
    """Sines and cosines of positions (Vaswani et al. 2017, section 3.5), as bert4keras adds them: not scaled.

    Shape: (B, T, D), or with `custom_position_ids` a list of that and positions (B, T) -> (B, T, output_dim); with
    merge_mode="concat" (B, T, D + output_dim)

    Args:
        merge_mode: "add"; "mul": x (1 + embedding); "zero": the embedding alone; "concat".
    Raises: ConfigError for another merge_mode.
    """

    def __init__(self, output_dim, merge_mode="add", custom_position_ids=False, **kwargs):
        super().__init__(**kwargs)
        if merge_mode not in MERGES:
            raise ConfigError(f"merge_mode = {merge_mode!r}; expected 'add', 'mul', 'zero' or 'concat'")
        self.output_dim, self.merge_mode, self.custom_position_ids = output_dim, merge_mode, custom_position_ids

    def call(self, inputs):
        x, positions = inputs if self.custom_position_ids else (inputs, ops.arange(ops.shape(inputs)[1])[None])
        return MERGES[self.merge_mode](x, ops.cast(sinusoidal_embeddings(positions, self.output_dim), x.dtype))

    def compute_mask(self, inputs, mask=None):
        return mask[0] if isinstance(mask, list) else mask

    def compute_output_spec(self, inputs):
        shape = (inputs[0] if self.custom_position_ids else inputs).shape
        return self.symbolic((*shape[:2], self.output_dim + (shape[2] if self.merge_mode == "concat" else 0)))


@keras.saving.register_keras_serializable("bert4x")
class RelativePositionEmbedding(Unmasked):
    """A vector for each distance of a key from a query, up to (input_dim - 1) / 2 to either side (Shaw et al. 2018,
    arXiv 1803.02155): what `p_bias="typical_relative"` takes.

    Shape: a list of (B, T, D) and (B, S, E) -> (T, S, output_dim)
    """

    def __init__(self, input_dim, output_dim, embeddings_initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, shapes):
        shape, start = (self.input_dim, self.output_dim), self.embeddings_initializer
        self.embeddings = self.add_weight(shape=shape, initializer=start, name="embeddings")

    def call(self, inputs):
        queries, keys = (ops.arange(ops.shape(x)[1], dtype="int32") for x in inputs)
        return ops.take(self.embeddings, self.row(distances(queries, keys)), axis=0)

    def row(self, distance):
        """Of the table, for a distance. Shape: (T, S) int32 -> the same"""
        farthest = (self.input_dim - 1) // 2
        return ops.clip(distance, -farthest, farthest) + farthest

    def compute_output_spec(self, inputs):
        return self.symbolic((*(x.shape[1] for x in inputs), self.output_dim))


@keras.saving.register_keras_serializable("bert4x")
class RelativePositionEmbeddingT5(RelativePositionEmbedding):
    """The same for `input_dim` buckets of distances, as T5 has them (Raffel et al. 2019, arXiv 1910.10683): what
    `p_bias="t5_relative"` takes.

    Shape: a list of (B, T, D) and (B, S, E) -> (T, S, output_dim)
    """

    def __init__(self, input_dim, output_dim, max_distance=128, bidirectional=True, **kwargs):
        super().__init__(input_dim, output_dim, **kwargs)
        self.max_distance, self.bidirectional = max_distance, bidirectional

    def row(self, distance):
        return bucket_of(distance, self.input_dim, self.max_distance, self.bidirectional)
