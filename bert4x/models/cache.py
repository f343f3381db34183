"""The key-value cache of decoding, and what the attention layers of one forward pass share."""

from typing import Any, NamedTuple


class Source(NamedTuple):
    """What the decoder of an encoder-decoder attends to: the encoder's output as keys and values, computed once.

    Shape: valid (B, S) bool, and for each layer keys (B, A, S, d_k) and values (B, A, S, d_v)
    """

    valid: Any
    layers: tuple[tuple[Any, Any], ...]


class Cache(NamedTuple):
    """What a model remembers of the tokens it has read, for at most S of them; lives outside the model.

    Rank and validity are those of the visibility rule (`bert4x.masks`), so that a UniLM decodes through the same step
    as GPT2: the source is read at once and sees itself whole, then every token sees what came before.

    `source` is for encoder-decoders only: empty until the first pass has read it, the same ever after.

    Shape: rank (B, S) int32, valid (B, S) bool, and for each layer keys (B, A, S, d_k) and values (B, A, S, d_v)
    """

    rank: Any
    valid: Any
    layers: tuple[tuple[Any, Any], ...]
    source: Source | tuple[()] = ()


def new_cache(config, batch_size: int, length: int, dtype: str) -> Cache:
    """An empty cache for `length` tokens: nothing in it is valid, so nothing is seen."""
    from keras import ops

    heads = batch_size, config.num_attention_heads, length
    layers = tuple(
        (ops.zeros((*heads, config.attention_key_size), dtype), ops.zeros((*heads, config.attention_head_size), dtype))
        for _ in range(config.decoder_layers)
    )
    return Cache(ops.zeros((batch_size, length), "int32"), ops.zeros((batch_size, length), "bool"), layers)


class Attending:
    """The mask, the residual scores and the cache that the attention layers of one forward pass hand on."""

    def __init__(self, visible, cache: Cache | None = None, index=0, visible_to_partner=None, weights: bool = False):
        self.visible, self.visible_to_partner = visible, visible_to_partner
        self.weights: list[Any] | None = [] if weights else None  # those of each layer, where they are asked for
        self.scores = None
        self.cache, self.index = cache, index
        self.written: list[tuple[Any, Any]] = []  # the layers of the cache with this pass's keys and values in them

    @property
    def memory(self) -> tuple[Any, Any] | None:
        """The cached keys and values of the layer whose turn it is."""
        return None if self.cache is None else self.cache.layers[len(self.written)]

    def result(self, outputs, **others: list):
        """What `forward` returns: the outputs, with a cache also the cache after this pass, and where they are asked
        for the attention weights; of an encoder-decoder by name, with `others`.
        """
        if self.weights is not None:
            return [outputs, {"decoder": self.weights, **others} if others else self.weights]
        return outputs if self.cache is None else (outputs, self.cache._replace(layers=tuple(self.written)))
