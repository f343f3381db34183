"""One vector of a text's hidden states."""

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.layers.base import Unmasked

LEAST = 1e-9  # of a sum that is divided by


@keras.saving.register_keras_serializable("bert4x")
class FirstToken(Unmasked):
    """The hidden state of the first token ([CLS]).

    Shape: (B, T, D) -> (B, D)
    """

    def call(self, x):
        return x[:, 0]

    def compute_output_spec(self, x):
        return self.symbolic((x.shape[0], x.shape[2]))


@keras.saving.register_keras_serializable("bert4x")
class MeanOfTokens(Unmasked):
    """The mean of the hidden states of real tokens.

    Shape: (B, T, D), whose Keras mask tells padding, (B, T) ids -> (B, D)
    """

    def call(self, x, ids, x_mask=None):  # two tensors, as in `Visibility`
        if x_mask is None:
            return ops.mean(x, axis=1)
        real = ops.cast(x_mask, x.dtype)[..., None]
        return ops.sum(x * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1)

    def compute_output_spec(self, x, ids, x_mask=None):
        return self.symbolic((x.shape[0], x.shape[2]))


@keras.saving.register_keras_serializable("bert4x")
class Pooling(Unmasked):
    """The hidden states of a text as one vector: of several ways, their vectors are joined.

    Source: sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084); the weighted mean, by 1, 2, 3 ..., is
    that of Muennighoff 2022 (arXiv 2202.08904).

    Args:
        ways: of "cls" (the first token that counts), "max", "mean", "mean_sqrt_len_tokens" (the sum over the square
            root of the length), "weightedmean" and "lasttoken".
    Shape: hidden states (B, T, D), and which tokens count, (B, T) of 1 and 0 -> (B, D * ways), in float32
    """

    def __init__(self, ways=("mean",), **kwargs):
        super().__init__(**kwargs)
        self.ways = list(ways)

    def call(self, inputs, mask=None):
        hidden, counts = inputs
        hidden, counts = ops.cast(hidden, "float32"), ops.cast(counts, "float32")
        return ops.concatenate([getattr(self, way)(hidden, counts) for way in self.ways], axis=-1)

    def cls(self, hidden, counts):
        return weighted(hidden, counts * ops.cast(ops.cumsum(counts, axis=1) == 1, "float32"))

    def max(self, hidden, counts):
        return ops.max(hidden - (1 - counts[..., None]) * 1e9, axis=1)

    def mean(self, hidden, counts):
        return weighted(hidden, counts) / ops.maximum(ops.sum(counts, axis=1, keepdims=True), LEAST)

    def mean_sqrt_len_tokens(self, hidden, counts):
        return weighted(hidden, counts) / ops.sqrt(ops.maximum(ops.sum(counts, axis=1, keepdims=True), LEAST))

    def weightedmean(self, hidden, counts):
        return self.mean(hidden, counts * ops.arange(1, ops.shape(counts)[1] + 1, dtype="float32"))

    def lasttoken(self, hidden, counts):
        total = ops.sum(counts, axis=1, keepdims=True)
        return weighted(hidden, counts * ops.cast(ops.cumsum(counts, axis=1) == total, "float32"))

    def compute_output_spec(self, inputs, mask=None):
        hidden = inputs[0]
        return self.symbolic((hidden.shape[0], hidden.shape[-1] * len(self.ways)), "float32")


@keras.saving.register_keras_serializable("bert4x")
class LastToken(Unmasked):
    """The hidden state of the last token that is not `pad_id`, which has seen the whole text in a causal model.

    Shape: hidden states (B, T, D), ids (B, T) -> (B, D), in float32
    Raises: ConfigError without an id for padding.
    """

    def __init__(self, pad_id, **kwargs):
        super().__init__(**kwargs)
        self.pad_id = pad_id
        if pad_id is None:
            raise ConfigError("the last token of a text is told from padding, and this vocabulary has no padding token")

    def call(self, inputs, mask=None):
        hidden, ids = inputs
        places = ops.arange(ops.shape(ids)[1], dtype="int32")
        last = ops.max(places * ops.cast(ops.not_equal(ids, self.pad_id), "int32"), axis=1, keepdims=True)
        return weighted(ops.cast(hidden, "float32"), ops.cast(ops.equal(places, last), "float32"))

    def compute_output_spec(self, inputs, mask=None):
        return self.symbolic((inputs[0].shape[0], inputs[0].shape[-1]), "float32")


def weighted(hidden, weights):
    """The weighted sum over tokens. Shape: (B, T, D), (B, T) -> (B, D)"""
    return ops.matmul(weights[:, None, :], hidden)[:, 0]
