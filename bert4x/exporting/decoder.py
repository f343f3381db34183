"""A language model as a step of decoding: a graph that reads tokens and a cache, and gives logits and what is new. An
encoder-decoder has another graph, which reads the source once.
"""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops

from bert4x.errors import GenerationError
from bert4x.exporting.forward import Exportable, Forward
from bert4x.generation.batch import Prompt, as_batch
from bert4x.generation.engine import Engine, engine_of
from bert4x.layers.slots import written_by_parts
from bert4x.models.cache import Cache, EncodedSource
from bert4x.runtimes.decoding import TARGET, empty_cache, given, target_of, with_source, written
from bert4x.runtimes.sessions import Arrays

LENGTHS = ((16, 5, 1), (9, 3))  # tokens of the prompts of two batches to compare on
SLOTS = 24


def decodes(source: Exportable) -> bool:
    """Whether a model writes."""
    try:
        engine_of(source.model)
        return True
    except (GenerationError, AttributeError):  # the latter of a Keras model that is none of ours
        return False


def graphs_of(source: Exportable) -> dict[str, Forward]:
    """The graphs by which a model writes; none for one that does not."""
    if not decodes(source):
        return {}
    decoding = Decoding(source)
    return {"decoder": decoding} | ({} if decoding.source is None else {"source": decoding.source})


def rows_of(decoding: "Decoding | Encoding", draw: np.random.Generator, lengths: Sequence[int]) -> Arrays:
    """Random prompts, or sources, of these lengths."""
    sizes = decoding.vocabulary, decoding.segments
    rows = [Prompt(*(draw.integers(0, size, length) for size in sizes), start=1) for length in lengths]
    return as_batch(rows, len(rows), sources=decoding.engine.encodes)


class Encoding(Forward):
    """What the decoder of an encoder-decoder attends to: keys and values of the source, for each of its layers."""

    def __init__(self, source: Exportable, sizes: dict[str, tuple]):
        super().__init__(source, padding_mask=False)
        self.engine: Engine = engine_of(source.model)
        self.input_keys, self.sizes = ("token_ids", "padding_mask"), {f"source_{name}": s for name, s in sizes.items()}
        self.output_keys = ("source_valid", *self.sizes)
        self.vocabulary, self.segments = source.model.config.vocab_size, 1

    def call(self, inputs):
        given = {"token_ids": inputs["token_ids"], "padding_mask": ops.cast(inputs["padding_mask"], "bool")}
        source = self.engine.builder.sources(given, Cache((), (), (), ()))[2].source
        layers = [ops.cast(x, "float32") for pair in source.layers for x in pair]
        return {"source_valid": ops.cast(source.valid, "int32"), **dict(zip(self.sizes, layers, strict=True))}

    def signature(self):
        return {
            name: keras.layers.InputSpec(shape=(None, None), dtype="int32", name=name)
            for name in sorted(self.input_keys)
        }

    def samples(self, seed: int = 0) -> Iterator[Arrays]:
        draw = np.random.default_rng(seed)
        for lengths in (*LENGTHS, (20, 3)):  # the last in another bucket
            found = rows_of(self, draw, lengths)
            yield {name: found[name].astype("int32") for name in self.input_keys}


class Decoding(Forward):
    """What `bert4x.runtimes.decoding.Decoder` runs: one pass of the engine's `logits`, over some tokens (B, t) and a
    cache of S slots.
    """

    def __init__(self, source: Exportable):
        super().__init__(source, padding_mask=False)
        self.engine: Engine = engine_of(source.model)
        config, builder = source.model.config, source.model.builder
        self.own = self.shapes_of_layers()
        self.source = Encoding(source, self.own) if self.engine.encodes else None
        tokens = ["token_ids", "position_ids", "padding_mask", *(["segment_ids"] if builder.needs_segments else [])]
        tokens = [TARGET.get(name, name) for name in tokens] if self.source else tokens
        self.sizes = self.own | (self.source.sizes if self.source else {})
        more = ("source_valid",) if self.source else ()
        self.input_keys = (*tokens, "index", "rank", "valid", "positions", *more, *self.sizes)
        self.new = {f"new_{name}": shape for name, shape in self.own.items()}  # no output may have an input's name
        self.output_keys = ("logits", "new_rank", *self.new)
        self.vocabulary, self.segments = config.vocab_size, config.segment_rows or 2

    def shapes_of_layers(self) -> dict[str, tuple]:
        """The shapes of keys and values in the cache, (B, K, S, d), by their names."""
        layers = self.engine.builder.new_cache(1, 1).layers
        return {
            f"{kind}_{i}": (None, x.shape[1], None, x.shape[3])
            for i, pair in enumerate(layers)
            for kind, x in zip(("key", "value"), pair, strict=True)
        }

    def call(self, inputs):
        dtype, index = self.engine.builder.policy.compute_dtype, inputs["index"][0]

        def layers(before=""):
            pairs = [(inputs[f"{before}key_{i}"], inputs[f"{before}value_{i}"]) for i in range(len(self.own) // 2)]
            return tuple(tuple(ops.cast(x, dtype) for x in pair) for pair in pairs)

        cache = Cache(
            rank=inputs["rank"],
            valid=ops.cast(inputs["valid"], "bool"),
            positions=inputs["positions"],
            layers=layers(),
        )
        if self.source:
            valid = ops.cast(inputs["source_valid"], "bool")
            cache = cache._replace(source=EncodedSource(valid=valid, layers=layers("source_")))
        ids, mask = ("target_ids", "target_mask") if self.source else ("token_ids", "padding_mask")
        tokens = {name: inputs[name] for name in (ids, "position_ids", "segment_ids") if name in inputs}
        tokens[mask] = ops.cast(inputs[mask], "bool")
        with written_by_parts():
            logits, cache = self.engine.logits(tokens, cache, index)
        end = index + ops.shape(inputs[ids])[1]
        new = [ops.cast(x[:, :, index:end], "float32") for pair in cache.layers for x in pair]
        return {"logits": logits, "new_rank": cache.rank[:, index:end], **dict(zip(self.new, new, strict=True))}

    def signature(self):
        shapes = dict.fromkeys(self.input_keys, (None, None)) | {"index": (1,)} | self.sizes
        return {
            name: keras.layers.InputSpec(shape=shape, dtype="float32" if name in self.sizes else "int32", name=name)
            for name, shape in sorted(shapes.items())
        }

    def axes(self):
        cached = dict.fromkeys(("rank", "valid", "positions"), ("batch", "slots"))
        layers = dict.fromkeys(self.own, ("batch", "heads", "slots", "size"))
        if self.source:
            cached["source_valid"] = ("batch", "source_length")
            layers |= dict.fromkeys(self.source.sizes, ("batch", "heads", "source_length", "size"))
        return dict.fromkeys(self.input_keys, ("batch", "length")) | cached | layers | {"index": ("one",)}

    def samples(self, seed: int = 0) -> Iterator[Arrays]:
        """Prompts of several lengths, and the step after others of another number."""
        draw = np.random.default_rng(seed)
        for number, lengths in enumerate(LENGTHS):
            prompt, cache = rows_of(self, draw, lengths), empty_cache(self.new, len(lengths), SLOTS)
            if self.source:
                read = {name: prompt[name].astype("int32") for name in self.source.input_keys}
                cache = with_source(cache, self.source.run(read))
                prompt = target_of(prompt)
            inputs = self.chosen(given(prompt, cache, 0))
            if number == 0:
                yield inputs
                continue
            index = prompt["position_ids"].shape[1]
            cache, one = written(cache, 0, prompt, self.run(inputs)), (len(lengths), 1)
            step = {
                "token_ids": draw.integers(0, self.vocabulary, one),
                "segment_ids": draw.integers(0, self.segments, one),
                "position_ids": np.ones(one) if self.source else np.array(lengths)[:, None],
                "padding_mask": np.ones(one),
            }
            step = {TARGET.get(name, name) if self.source else name: values for name, values in step.items()}
            yield self.chosen(given(step, cache, index))

    def chosen(self, arrays: Arrays) -> Arrays:
        """The inputs of the graph among these, of its dtypes."""
        return {name: arrays[name].astype("float32" if name in self.sizes else "int32") for name in self.input_keys}
