"""Scores of all spans of a text at once: global pointers."""

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.layers.base import Dense, Unmasked

HIDDEN = -6e4  # the score of what cannot be a span: finite even where the scores are cast to float16


@keras.saving.register_keras_serializable("bert4x")
class GlobalPointer(Unmasked):
    """For every head a score of each pair (start, end) of places: spans of a kind, or links of a relation; above 0 it
    is one (Su, kexue.fm/archives/8373).

    The score is the product of a query of the start and a key of the end. `RoPE` rotates both by their places (Su et
    al. 2021, arXiv 2104.09864), so that it knows their distance. Pairs with padding, and with `tril_mask` those whose
    end is before the start, get `HIDDEN`. The scores are computed in float32 whatever the policy.

    Shape: (B, T, D) -> (B, heads, T, T) float32, the start in the rows
    Raises: ConfigError for an odd `head_size` with `RoPE`.
    """

    def __init__(
        self,
        heads,
        head_size,
        RoPE=True,
        use_bias=True,
        tril_mask=True,
        kernel_initializer="lecun_normal",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if RoPE and head_size % 2:
            raise ConfigError(f"head_size is {head_size}; RoPE rotates pairs: make it even, or RoPE=False")
        self.heads = heads
        self.head_size = head_size
        self.RoPE = RoPE
        self.use_bias = use_bias
        self.tril_mask = tril_mask
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape):
        self.dense = self.projection("dense", self.heads * self.head_size * 2, x_shape)

    def projection(self, name: str, size: int, shape) -> Dense:
        start = self.kernel_initializer.clone()  # one that is used twice would give the same numbers twice
        return self.new_dense(name, size, shape, None, self.use_bias, start)

    def call(self, x, mask=None):
        batch, length = ops.shape(x)[:2]
        both = ops.reshape(self.dense(x), (batch, length, self.heads, 2 * self.head_size))
        both = ops.transpose(both, (0, 2, 1, 3))
        scores = self.products(both[..., : self.head_size], both[..., self.head_size :])
        return ops.where(self.possible(length, mask), scores, HIDDEN)

    def products(self, query, key):
        """Shape: (..., T, head_size), (..., T, head_size) -> (..., T, T) float32"""
        query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
        if self.RoPE:
            query, key = rotate(query), rotate(key)
        return ops.matmul(query, ops.swapaxes(key, -1, -2)) / self.head_size**0.5

    def possible(self, length, mask=None):
        """The pairs that may be spans.

        Shape: [(B, T)] -> (B or 1, 1, T, T) bool
        """
        places = ops.arange(length, dtype="int32")
        first = 0 if self.tril_mask else -length
        pairs = (places[None, :] - places[:, None] >= first)[None, None]
        if mask is None:
            return pairs
        mask = ops.cast(mask, "bool")
        return ops.logical_and(pairs, ops.logical_and(mask[:, None, :, None], mask[:, None, None, :]))

    def compute_output_spec(self, x, mask=None):
        return self.symbolic((x.shape[0], self.heads, x.shape[1], x.shape[1]), "float32")


@keras.saving.register_keras_serializable("bert4x")
class EfficientGlobalPointer(GlobalPointer):
    """A global pointer with few parameters for each head: all share one product, which says what is a span, and add
    half a bias of the start and of the end, linear in query and key, which says of what kind (Su,
    kexue.fm/archives/8877).

    Shape: (B, T, D) -> (B, heads, T, T) float32, the start in the rows
    """

    def build(self, x_shape):
        self.p_dense = self.projection("p_dense", self.head_size * 2, x_shape)
        self.q_dense = self.projection("q_dense", self.heads * 2, (*x_shape[:-1], self.head_size * 2))

    def call(self, x, mask=None):
        length = ops.shape(x)[1]
        both = self.p_dense(x)  # query and key in turn, as in bert4keras' weights; so are start and end
        bias = ops.transpose(ops.cast(self.q_dense(both), "float32"), (0, 2, 1)) / 2
        scores = self.products(both[..., ::2], both[..., 1::2])[:, None]
        # bert4keras gives the first of two to the key, that is, the end
        scores = scores + bias[:, ::2, None, :] + bias[:, 1::2, :, None]
        return ops.where(self.possible(length, mask), scores, HIDDEN)


def rotate(x):
    """Turns each pair of features by an angle that grows with the place: pos / 10000^(2i / d) for the i-th.

    Shape: (..., T, d), d even -> (..., T, d)
    """
    length, size = ops.shape(x)[-2], x.shape[-1]
    speeds = 10000.0 ** (-2 * ops.arange(size // 2, dtype="float32") / size)
    angles = ops.arange(length, dtype="float32")[:, None] * speeds
    cos, sin = ops.cos(angles), ops.sin(angles)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = ops.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return ops.reshape(turned, ops.shape(x))
