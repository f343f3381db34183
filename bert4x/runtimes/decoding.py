"""Generation by an exported decoder: the engine of `bert4x.generation` on NumPy's arrays, without Keras.

One graph, "decoder", reads prompts and steps alike: the tokens for some slots of a cache, and the cache. It gives the
logits after the last of them, and what is new in the cache; that is written into it here, in place. Of an
encoder-decoder another one, "source", reads the source, once.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bert4x import numpy_ops
from bert4x.errors import GenerationError
from bert4x.generation.engine import Engine
from bert4x.models.cache import Cache, EncodedSource
from bert4x.runtimes.sessions import Arrays

TARGET = {"token_ids": "target_ids", "padding_mask": "target_mask"}  # what is called otherwise of a target


class Decoder(Engine):
    """Decodes with an export. Several threads may use one: it holds nothing of a call.

    Raises: GenerationError for an export without a decoder.
    """

    ops = numpy_ops

    def __init__(self, exported):
        if "decoder" not in exported.graphs:
            raise GenerationError(
                f"{exported.folder} has no decoder: it was exported without its cache, or as what writes nothing; "
                "export a language model, by bert4x.export(model, folder, application='lm') or 'unilm'"
            )
        self.graph, self.builder = exported.graphs["decoder"], exported.builder
        self.source, self.compiled = exported.graphs.get("source"), {}
        self.encodes = self.source is not None

    def is_of(self, model) -> bool:
        return True

    def compile(self, function: Callable, donate: tuple[int, ...] = ()) -> Callable:
        return function

    def in_loop(self, function: Callable) -> Callable:
        return function

    def output_matrix(self) -> dict[str, Any]:
        return {}

    def new_cache(self, batch: int, length: int) -> Cache:
        return empty_cache(self.graph.outputs, batch, length)

    def logits(self, inputs, cache, index, head=None, every: bool = False):
        if self.encodes and "token_ids" in inputs:  # the first pass
            cache = with_source(cache, self.source({name: inputs[name] for name in ("token_ids", "padding_mask")}))
            inputs = target_of(inputs)
        if every:  # one after the other: the graph gives those after the last token only
            found = []
            for i in range(inputs["position_ids"].shape[1]):
                part = {name: values[:, i : i + 1] for name, values in inputs.items()}
                logits, cache = self.logits(part, cache, index + i)
                found.append(logits)
            return np.stack(found, axis=1), cache
        found = self.graph(given(inputs, cache, index))
        return found["logits"], written(cache, index, inputs, found)


def empty_cache(outputs: Mapping[str, tuple[int | None, ...]], batch: int, length: int) -> Cache:
    """A cache in which nothing is valid, for a graph that gives `new_key_0`, `new_value_0` ..., each (B, K, t, d)."""
    layers = []
    while f"new_key_{len(layers)}" in outputs:
        shapes = [outputs[f"new_{kind}_{len(layers)}"] for kind in ("key", "value")]
        layers.append(tuple(np.zeros((batch, heads, length, size), "float32") for _, heads, _, size in shapes))
    rank, valid, positions = (np.zeros((batch, length), dtype) for dtype in ("int32", "bool", "int32"))
    return Cache(rank, valid, positions, tuple(layers))


def with_source(cache: Cache, found: Arrays) -> Cache:
    """The cache with what was read of a source."""
    pairs = range((len(found) - 1) // 2)
    layers = tuple((found[f"source_key_{i}"], found[f"source_value_{i}"]) for i in pairs)
    return cache._replace(source=EncodedSource(found["source_valid"].astype(bool), layers))


def target_of(inputs: Arrays) -> Arrays:
    """What the decoder of an encoder-decoder is given of a first pass: the first token of each target."""
    ids = inputs["target_ids"]
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype="int32"), ids.shape)
    return {"target_ids": ids, "target_mask": inputs["target_mask"], "position_ids": positions}


def given(inputs: Arrays, cache: Cache, index: int) -> Arrays:
    """The inputs of the graph: those of the tokens, the slot of the first of them (1,), and the cache."""
    arrays = {"index": np.array([index]), "rank": cache.rank, "valid": cache.valid, "positions": cache.positions}
    for i, (key, value) in enumerate(cache.layers):
        arrays |= {f"key_{i}": key, f"value_{i}": value}
    if cache.source:
        arrays["source_valid"] = cache.source.valid
        for i, (key, value) in enumerate(cache.source.layers):
            arrays |= {f"source_key_{i}": key, f"source_value_{i}": value}
    return inputs | arrays


def written(cache: Cache, index: int, inputs: Arrays, found: Arrays) -> Cache:
    """The cache with what the graph has found of the tokens, in place."""
    slots = slice(int(index), int(index) + inputs["position_ids"].shape[1])
    cache.rank[:, slots] = found["new_rank"]
    cache.valid[:, slots] = inputs["target_mask" if cache.source else "padding_mask"]
    cache.positions[:, slots] = inputs["position_ids"]
    for i, pair in enumerate(cache.layers):
        for kind, held in zip(("key", "value"), pair, strict=True):
            held[:, :, slots] = found[f"new_{kind}_{i}"]
    return cache
