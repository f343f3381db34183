"""Batches of one's own making, for `model.fit`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bert4x.errors import InputError

if TYPE_CHECKING:
    from bert4x.snippets.endless import EndlessBatches


class DataGenerator:
    """Goes through data; a subclass says in `__iter__` how samples become batches.

        class Titles(DataGenerator):
            def __iter__(self, random=False):
                batch = []
                for is_end, text in self.sample(random):
                    batch.append(tokenizer.encode(text)[0])
                    if len(batch) == self.batch_size or is_end:
                        yield sequence_padding(batch), None
                        batch = []

        generator = Titles(texts, batch_size=32)
        model.fit(generator.forfit(), steps_per_epoch=len(generator))

    Order is drawn from NumPy's global generator: `np.random.seed` makes it repeatable.

    Args:
        data: a list, or what can be indexed and has a length; or what can be iterated over, for `forfit` repeatedly.
        buffer_size: among how many samples each is drawn if the length of the data is not known; 1000 batches' unless
            told.
    Raises: InputError for a size below 1.
    """

    def __init__(self, data: Any, batch_size: int = 32, buffer_size: int | None = None):
        for name, size in (("batch_size", batch_size), ("buffer_size", buffer_size)):
            if size is not None and size < 1:
                raise InputError(f"{name} is {size}; expected 1 or more")
        self.data = data
        self.batch_size = batch_size
        self.buffer_size = buffer_size or batch_size * 1000
        try:
            self.steps = -(-len(data) // batch_size)
        except TypeError:  # an iterator, or a file without an index
            self.steps = None

    def __len__(self) -> int:
        """Batches of a pass through the data, when each sample gives one row."""
        if self.steps is None:
            raise TypeError(f"the data, a {type(self.data).__name__}, has no length; give steps_per_epoch as a number")
        return self.steps

    def sample(self, random: bool = False) -> Iterator[tuple[bool, Any]]:
        """Pairs (is_end, sample), in order or at random; `is_end` is True with the last one."""
        current, ended = None, True
        for sample in self._shuffled() if random else self.data:
            if not ended:
                yield False, current
            current, ended = sample, False
        if not ended:
            yield True, current

    def _shuffled(self) -> Iterator[Any]:
        if self.steps is not None:
            for index in np.random.permutation(len(self.data)):
                yield self.data[int(index)]
            return
        buffer = []
        for sample in self.data:
            buffer.append(sample)
            if len(buffer) > self.buffer_size:
                yield buffer.pop(np.random.randint(len(buffer)))
        while buffer:
            yield buffer.pop(np.random.randint(len(buffer)))

    def __iter__(self, random: bool = False) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__(self, random=False), its batches")

    def forfit(self, random: bool = True) -> "EndlessBatches":
        """Batches without end, pass after pass: an iterator that `fit` takes on every backend, with batches of any
        lengths.

        Raises: InputError when a pass gives none, as with an iterator that has been used up.
        """
        from bert4x.snippets.endless import EndlessBatches

        return EndlessBatches(self._passes(random))

    def fortest(self, random: bool = False) -> "EndlessBatches":
        """The first member of each batch, what a model takes, without end, for `predict`. Raises as `forfit`."""
        from bert4x.snippets.endless import EndlessBatches

        return EndlessBatches((batch[0] for batch in self._passes(random)), inputs_only=True)

    def _passes(self, random: bool) -> Iterator[Any]:
        while True:
            empty = True
            for batch in self.__iter__(random):
                empty = False
                yield batch
            if empty:
                raise InputError(
                    "a pass through the data gave nothing; expected data, which can be gone through more than once: "
                    "a list rather than an iterator"
                )

    def to_dataset(self, types: Any, shapes: Any, names: Any = None, padded_batch: bool = False) -> Any:
        """A tf.data.Dataset of batches, for a subclass whose `__iter__` gives samples; needs TensorFlow.

        Args:
            types: their dtypes, nested as the samples are.
            shapes: their shapes, nested in the same way; None is any length, as in [None].
            names: names of the inputs and outputs, nested in the same way or a tuple of names: samples become dicts.
                The target of a single output does not, as Keras takes no dict for it.
            padded_batch: pads to the longest of a batch; otherwise all samples must have the same shape.
        """
        import tensorflow as tf

        generator = self.forfit
        if names is not None:
            types, shapes = _named(names, types), _named(names, shapes)

            def generator():
                return (_named(names, sample) for sample in self.forfit())

        if padded_batch:
            dataset = tf.data.Dataset.from_generator(generator, output_types=types)
            return dataset.padded_batch(self.batch_size, shapes)
        return tf.data.Dataset.from_generator(generator, output_types=types, output_shapes=shapes).batch(
            self.batch_size
        )


def _named(names: Any, values: Iterable[Any]) -> Any:
    """Values in dicts: one name for all, a name for each, or for each a tuple of names."""
    if isinstance(names, str):
        return {names: values}
    if isinstance(names[0], str):
        return dict(zip(names, values, strict=True))
    pairs = [dict(zip(keys, parts, strict=True)) for keys, parts in zip(names, values, strict=True)]
    return (pairs[0], *(next(iter(pair.values())) if len(pair) == 1 else pair for pair in pairs[1:]))
