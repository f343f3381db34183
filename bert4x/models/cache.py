"""The key-value cache of decoding, and what the attention layers of one forward pass share."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bert4x import layers as L
from bert4x.numpy_ops import ops_of


class EncodedSource(NamedTuple):
    """What the decoder of an encoder-decoder attends to: the encoder's output as keys and values, computed once.

    Shape: valid (B, S) bool, and for each layer keys (B, K, S, d_k) and values (B, K, S, d_v)
    """

    valid: Any
    layers: tuple[tuple[Any, Any], ...]


class Cache(NamedTuple):
    """Keys and values of the tokens that a model has read, at most S of them; lives outside the model.

    Rank and validity are those of the visibility rule (`bert4x.masks`), so that a UniLM decodes through the same step
    as GPT2: the source is read at once and sees itself whole, then every token sees what came before. Slots are not
    positions: a short prompt is padded on the left, so that all prompts end in one slot.

    `source` is for encoder-decoders only: empty until the first pass has read it, the same ever after.

    Shape: rank, valid, positions (B, S) int32, bool, int32; for each layer keys (B, K, S, d_k), values (B, K, S, d_v)
    """

    rank: Any
    valid: Any
    positions: Any
    layers: tuple[tuple[Any, Any], ...]
    source: EncodedSource | tuple[()] = ()

    def rank_before(self, application: str, index):
        """What ranks of the tokens from slot `index` on begin from. Shape: () or (B, 1) int32"""
        if application == "lm":
            return index
        if application != "unilm":
            return 0
        last = L.ops.take(self.rank, L.ops.maximum(index - 1, 0), axis=1)  # the last token that was read
        return L.ops.where(L.ops.greater(index, 0), last, 0)[:, None]

    def with_tokens(self, index, **values) -> "Cache":
        """The cache with rank, validity and positions of tokens for the slots from `index` on. Shape: each (B, T)"""
        new = {name: L.write_slots(getattr(self, name), index, x, axis=1) for name, x in values.items()}
        return self._replace(**new)

    def repeated(self, times: int) -> "Cache":
        """The cache with every row so many times. Shape: (B, ...) -> (B * times, ...)"""
        return mapped(lambda x: repeated(x, times), self)

    def reordered(self, rows, start: int) -> "Cache":
        """The cache of the rows that go on. They stay with their prompts, so that all but keys and values, and of these
        what comes before slot `start`, is the same in all of them.

        Shape: (R,) rows of (R, ...)
        """

        def reorder(x):
            ops = ops_of(x)
            return ops.slice_update(x, (0, 0, start, 0), ops.take(x[:, :, start:], rows, axis=0))

        return self._replace(layers=mapped(reorder, self.layers))


def new_cache(config, batch_size: int, length: int, dtype: str, key_value_heads: int | None = None) -> Cache:
    """An empty cache for `length` tokens: nothing in it is valid, so nothing is seen."""
    heads = batch_size, key_value_heads or config.num_attention_heads, length
    sizes = config.attention_key_size, config.attention_head_size
    layers = tuple(tuple(L.ops.zeros((*heads, d), dtype) for d in sizes) for _ in range(config.decoder_layers))
    rank, valid, positions = (L.ops.zeros((batch_size, length), dtype) for dtype in ("int32", "bool", "int32"))
    return Cache(rank=rank, valid=valid, positions=positions, layers=layers)


def repeated(x, times: int):
    """A tensor with every row so many times. Shape: (B, ...) -> (B * times, ...)"""
    # Copies: `ops.repeat` may give PyTorch one row many times over, where a cache cannot be written.
    ops = ops_of(x)
    return ops.take(x, ops.repeat(ops.arange(x.shape[0]), times), axis=0)


def mapped(function: Callable, values):
    """Tuples, with the function of every tensor in them."""
    if not isinstance(values, tuple):
        return function(values)
    found = [mapped(function, value) for value in values]
    return type(values)(*found) if hasattr(values, "_fields") else tuple(found)


class AttentionContext:
    """What the attention layers of one forward pass share, and what one hands on to the next.

    Args:
        masks: a function of a window, or None for no window, that gives which keys are visible and which are to queries
            of the other direction (None in one direction only).
        positions: of the queries and of the keys, where they are given; None stands for 0, 1, 2 ...
        cache: with the tokens of this pass, but without their keys and values.
        index: the slot of the first token of this pass.
        weights: whether to keep the attention weights of each layer.
        causal: whether no token sees what follows it; for attention in blocks, which has no mask.
    """

    def __init__(
        self,
        masks: Callable[[int | None], tuple],
        positions=(None, None),
        cache: Cache | None = None,
        index=0,
        weights=False,
        causal=False,
    ):
        self.causal = causal
        self.masks_by_window = {None: masks(None)}
        self.make_masks = self.padding = masks
        self.query_positions, self.key_positions = positions
        self.cache, self.index = cache, index
        self.bias = None  # added to the scores of every layer
        self.cross_bias = None  # the same of the attention to a source
        self.scores = None  # of the layer before, where layers add to them
        self.weights: list[Any] | None = [] if weights else None
        self.cross_weights: list[Any] | None = [] if weights else None  # of the attention to a source
        self.written: list[tuple[Any, Any]] = []  # of the layers so far: all keys and values, those of this pass too

    def masks(self, window: int | None = None) -> tuple:
        """Which keys are visible, and which to queries of the other direction; computed once for each window."""
        if window not in self.masks_by_window:
            self.masks_by_window[window] = self.make_masks(window)
        return self.masks_by_window[window]

    def limit(self, bias) -> None:
        """From now on `bias` counts, too: a mask of what is visible, or what is added to the scores; see `limited`."""
        self.make_masks, self.masks_by_window = self.padding, {}
        if bias is None:
            return
        _, self.bias = limited(self.masks()[0], bias)
        self.make_masks, self.masks_by_window = lambda window: (limited(self.padding(window)[0], bias)[0], None), {}

    @property
    def past(self) -> tuple[Any, Any] | None:
        """The cached keys and values of the next layer: layers are called in order, and each writes its own."""
        return None if self.cache is None else self.cache.layers[len(self.written)]

    def result(self, outputs, **others: list):
        """What `forward` returns: the outputs, with a cache also the cache after this pass, and where they are asked
        for the attention weights; of an encoder-decoder by name, with `others`.
        """
        if self.weights is not None:
            return [outputs, {"decoder": self.weights, **others} if others else self.weights]
        return outputs if self.cache is None else (outputs, self.cache._replace(layers=tuple(self.written)))


def limited(visible, bias):
    """What is visible where a mask is, too, and what is to be added to the scores.

    Shape: (B, 1, T or 1, T) bool, (T, T), (B, T, T) or (B, A or 1, T, T) -> (B, 1, T, T) bool, None or of the rank of 4
    """
    if bias is None:
        return visible, None
    rank = len(bias.shape)
    bias = bias[None, None] if rank == 2 else bias[:, None] if rank == 3 else bias
    if str(bias.dtype).endswith("bool"):
        return L.ops.logical_and(visible, bias), None
    return visible, bias
