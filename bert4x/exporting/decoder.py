"""A language model as a step of decoding: a graph that reads tokens and a cache, and gives logits and what is new."""

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from bert4x.errors import GenerationError
from bert4x.exporting.forward import Exportable, Forward
from bert4x.generation.batch import Prompt, as_batch
from bert4x.generation.engine import Engine, engine_of
from bert4x.layers.slots import written_by_parts
from bert4x.models.cache import Cache
from bert4x.runtimes.decoding import empty_cache, given, written
from bert4x.runtimes.sessions import Arrays

LENGTHS = ((16, 5, 1), (9, 3))  # tokens of the prompts of two batches to compare on
SLOTS = 24


def decodes(source: Exportable) -> bool:
    """Whether a model writes on from a cache of its own; an encoder-decoder's has two parts, and is not exported."""
    try:
        return not engine_of(source.model).encodes
    except (GenerationError, AttributeError):  # the latter of a Keras model that is none of ours
        return False


class Decoding(Forward):
    """What `bert4x.runtimes.decoding.Decoder` runs: one pass of the engine's `logits`, over some tokens (B, t) and a
    cache of S slots.
    """

    def __init__(self, source: Exportable):
        super().__init__(source, padding_mask=False)
        self.engine: Engine = engine_of(source.model)
        config, builder = source.model.config, source.model.builder
        self.sizes = self.shapes_of_layers()
        tokens = ["token_ids", "position_ids", "padding_mask", *(["segment_ids"] if builder.needs_segments else [])]
        self.input_keys = (*tokens, "index", "rank", "valid", "positions", *self.sizes)
        self.new = {f"new_{name}": shape for name, shape in self.sizes.items()}  # no output may have an input's name
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
        pairs = [(inputs[f"key_{i}"], inputs[f"value_{i}"]) for i in range(len(self.sizes) // 2)]
        cache = Cache(
            rank=inputs["rank"],
            valid=ops.cast(inputs["valid"], "bool"),
            positions=inputs["positions"],
            layers=tuple(tuple(ops.cast(x, dtype) for x in pair) for pair in pairs),
        )
        tokens = {name: inputs[name] for name in ("token_ids", "position_ids", "segment_ids") if name in inputs}
        tokens["padding_mask"] = ops.cast(inputs["padding_mask"], "bool")
        with written_by_parts():
            logits, cache = self.engine.logits(tokens, cache, index)
        end = index + ops.shape(inputs["token_ids"])[1]
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
        layers = dict.fromkeys(self.sizes, ("batch", "heads", "slots", "size"))
        return dict.fromkeys(self.input_keys, ("batch", "length")) | cached | layers | {"index": ("one",)}

    def samples(self, seed: int = 0) -> Iterator[Arrays]:
        """Prompts of several lengths, and the step after others of another number."""
        draw = np.random.default_rng(seed)
        for number, lengths in enumerate(LENGTHS):
            rows = [Prompt(draw.integers(0, self.vocabulary, n), draw.integers(0, self.segments, n)) for n in lengths]
            prompt, cache = as_batch(rows, len(rows)), empty_cache(self.new, len(rows), SLOTS)
            inputs = self.chosen(given(prompt, cache, 0))
            if number == 0:
                yield inputs
                continue
            index = prompt["token_ids"].shape[1]
            cache = written(cache, 0, prompt, self.run(inputs))
            step = {
                "token_ids": draw.integers(0, self.vocabulary, (len(rows), 1)),
                "segment_ids": draw.integers(0, self.segments, (len(rows), 1)),
                "position_ids": np.array(lengths)[:, None],
                "padding_mask": np.ones((len(rows), 1)),
            }
            yield self.chosen(given(step, cache, index))

    def chosen(self, arrays: Arrays) -> Arrays:
        """The inputs of the graph among these, of its dtypes."""
        return {name: arrays[name].astype("float32" if name in self.sizes else "int32") for name in self.input_keys}
