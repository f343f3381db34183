"""What DeBERTa has beside BERT: attention to vectors of distances, their table, and a convolution (He et al. 2020,
arXiv 2006.03654; buckets and the convolution are those of its second version, as in transformers).
"""

import keras
from keras import ops

from bert4x.layers.attention import MultiHeadAttention
from bert4x.layers.base import Dropout, Layer, Unmasked, activation, initializer
from bert4x.layers.norm import LayerNorm


@keras.saving.register_keras_serializable("bert4x")
class DistanceTable(Unmasked):
    """Learned vectors of distances, normalised. It is called once, for all attention layers.

    Shape: (B, T, D), of which only the size counts -> (1, rows, D)
    """

    def __init__(self, rows, epsilon=1e-7, stddev=0.02, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows
        self.epsilon = epsilon
        self.stddev = stddev

    def build(self, x_shape):
        shape, start = (self.rows, x_shape[-1]), initializer(self.stddev)
        self.embeddings = self.add_weight(shape=shape, initializer=start, name="embeddings", autocast=False)
        self.row_norm = LayerNorm(self.epsilon, name="row_norm", dtype=self.dtype_policy)
        self.row_norm.build((1, *shape))

    def call(self, x):
        return self.row_norm(ops.convert_to_tensor(self.embeddings)[None])

    def compute_output_spec(self, x):
        return self.symbolic((1, self.rows, x.shape[-1]))


@keras.saving.register_keras_serializable("bert4x")
class DisentangledAttention(MultiHeadAttention):
    """Attention that also multiplies each query with the vector of its distance to the key, as a key, and that vector,
    as a query, with the key. Its `bias` is no number to add, but these vectors, which queries and keys share their
    projections with; `positions` is `Disentangled`. All products are divided by sqrt(3 key_size).

    Shape: x (B, T, D), visible (B, 1, T, T) bool, bias (1, R, D) -> (B, T, D) ...
    """

    def __init__(self, heads, head_size, key_size=None, scale=None, **kwargs):
        scale = (3 * (key_size or head_size)) ** -0.5 if scale is None else scale
        super().__init__(heads, head_size, key_size, scale=scale, **kwargs)

    def look(self, query, key, value, visible, bias, places, flash, training):
        rows = self.positions.rows(*places)
        of_query, of_key = self.queries(bias)[0], self.split_heads(self.key_dense(bias), self.heads)[0]
        by_query = rows_of(ops.einsum("batd,ard->abtr", query, of_key), rows)
        by_key = rows_of(ops.einsum("basd,ard->absr", key, of_query), ops.transpose(rows, (0, 2, 1)))
        added = ops.transpose(by_query, (1, 0, 2, 3)) + ops.transpose(by_key, (1, 0, 3, 2))
        return super().look(query, key, value, visible, added * self.scale, places, flash, training)


def rows_of(x, rows):
    """For each token, of the R numbers it has those of some rows; one gather, which ONNX can express.

    Shape: (A, B, T, R), (1 or B, T, S) int32 -> (A, B, T, S)
    """
    heads, batch, length, size = ops.shape(x)
    starts = ops.reshape(ops.arange(batch * length, dtype="int32") * size, (batch, length, 1))
    return ops.take(ops.reshape(x, (heads, batch * length * size)), starts + rows, axis=1)


@keras.saving.register_keras_serializable("bert4x")
class LocalConvolution(Layer):
    """A convolution over neighbours, added to a residual and normalised. Padding counts as zeros.

    Shape: x (B, T, D), whose Keras mask tells padding, residual (B, T, D) -> (B, T, D)
    """

    def __init__(self, width=3, activation="gelu_erf", dropout=0.0, epsilon=1e-7, stddev=0.02, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.activation = activation
        self.dropout = dropout
        self.epsilon = epsilon
        self.stddev = stddev

    def build(self, x_shape, residual_shape):
        size = x_shape[-1]
        self.kernel = self.add_weight(
            shape=(self.width, size, size), initializer=initializer(self.stddev), name="kernel"
        )
        self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")
        self.output_norm = LayerNorm(self.epsilon, name="output_norm", dtype=self.dtype_policy)
        self.output_norm.build(residual_shape)
        self.output_dropout = Dropout(self.dropout, dtype=self.compute_dtype)

    def call(self, x, residual, x_mask=None, training=None):
        x = x if x_mask is None else x * ops.cast(x_mask, x.dtype)[..., None]
        found = ops.conv(x, self.kernel, padding="same") + self.bias
        found = activation(self.activation)(self.output_dropout(found, training=training))
        return self.output_norm(residual + found)

    def compute_mask(self, x, mask=None):
        return mask[0] if isinstance(mask, list | tuple) else mask

    def compute_output_spec(self, x, residual, x_mask=None, training=None):
        return self.symbolic(x.shape)
