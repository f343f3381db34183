"""Endless batches that Keras takes whole, whatever their lengths."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from bert4x.errors import InputError


class EndlessBatches(DataAdapter):
    """An iterator over batches as they are, which `fit`, `evaluate` and `predict` also take, on every backend.

    Of a plain generator Keras takes no lists on TensorFlow, and takes the lengths of the first two batches for those of
    all, where they are the same. Here lists become tuples, and lengths are open.

    Args:
        batches: each `x`, `(x, y)` or `(x, y, sample_weight)`: arrays, or arrays nested in lists, tuples and dicts.
        inputs_only: each batch is an `x`, also where that is a list.
    """

    num_batches = batch_size = has_partial_batch = partial_batch_size = None  # not known

    def __init__(self, batches: Iterator[Any], inputs_only: bool = False):
        self.batches, self.inputs_only = batches, inputs_only
        self.lent: list[tuple] | None = (
            None  # the first batches of the last iterator for Keras; None after more of them
        )
        self.ends = 0  # how often Keras said since then that an epoch ended

    def __iter__(self) -> "EndlessBatches":
        return self

    def __next__(self) -> Any:
        return next(self.batches)

    def for_keras(self) -> Iterator[tuple]:
        """Batches as tuples of arrays; targets that are None are left out, as for a model with a loss of its own.

        Raises: InputError for None elsewhere.
        """
        # `fit` may read a batch to build the model, say that an epoch ended, and ask for another iterator. Before that
        # of another fit, it says so twice.
        again = self.lent if self.lent and self.ends == 1 else []
        self.lent, self.ends = [], 0
        for batch in itertools.chain(again, map(self.parts, self.batches)):
            if self.lent is not None:
                self.lent = [*self.lent, batch] if len(self.lent) < 2 else None
            yield batch

    def parts(self, batch: Any) -> tuple:
        batch = (batch,) if self.inputs_only or not isinstance(batch, list | tuple) else tuple(batch)
        while len(batch) > 1 and batch[-1] is None:
            batch = batch[:-1]
        return tuple(arrays(part) for part in batch)

    def on_epoch_end(self) -> None:
        self.ends += 1

    def get_numpy_iterator(self) -> Iterator[tuple]:
        return self.for_keras()

    def get_jax_iterator(self) -> Iterator[tuple]:
        return self.for_keras()

    def get_torch_dataloader(self) -> Iterator[tuple]:
        return (keras.tree.map_structure(ops.convert_to_tensor, batch) for batch in self.for_keras())

    def get_tf_dataset(self):
        import tensorflow as tf

        stream = self.for_keras()
        first = [next(stream), next(stream)]
        lengths = text_lengths(first)
        signature = keras.tree.map_structure(
            lambda one, other: tf.TensorSpec(open_shape(one, other, lengths), one.dtype), *first
        )

        def batches():
            while first:
                yield first.pop(0)
            for batch in stream:
                keras.tree.map_structure(check_shape, batch, signature)
                yield batch

        return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(tf.data.AUTOTUNE)


def arrays(part: Any) -> Any:
    """Part of a batch with tuples for lists, arrays for lists of numbers, and all fractions in Keras' own dtype, as of
    arrays that `fit` is given: a loss or a metric may compute with labels as they come.

    Raises: InputError for None.
    """
    if part is None:
        raise InputError("a batch holds None; expected arrays, and at most for all targets None")
    if isinstance(part, dict):
        return {name: arrays(value) for name, value in part.items()}
    if isinstance(part, list | tuple) and not (part and np.isscalar(part[0])):
        return tuple(arrays(value) for value in part)
    part = part if hasattr(part, "shape") else np.asarray(part)
    fractions = isinstance(part, np.ndarray) and part.dtype.kind == "f"
    return part.astype(keras.config.floatx(), copy=False) if fractions else part


def text_lengths(batches: list[tuple]) -> set[int]:
    """How long the texts, or whatever is numbers in rows, of some batches are."""
    return {x.shape[1] for batch in batches for x in keras.tree.flatten(batch) if len(x.shape) == 2}


def open_shape(one: Any, other: Any, lengths: set[int]) -> list[int | None]:
    """The shape of arrays like these two, None for each axis that may have another length in another batch.

    Open are the rows; what differs; of rows of numbers, how many there are, but for one, which is a label for each row;
    of more axes, all but the last: for whole numbers any, for others those as long as a text. So the sizes of pictures
    stay.

    Raises: InputError for arrays of another number of axes.
    """
    kind, last = np.dtype(getattr(one.dtype, "name", one.dtype)).kind, len(one.shape) - 1
    if len(other.shape) != last + 1:
        raise InputError(
            f"an array has shape {one.shape} in one batch, {other.shape} in the next; expected as many axes"
        )
    shape: list[int | None] = []
    for axis, (size, size_of_other) in enumerate(zip(one.shape, other.shape, strict=True)):
        text = size > 1 if last == 1 else axis < last and (kind in "iu" or size in lengths)
        shape.append(None if axis == 0 or size != size_of_other or text else size)
    return shape


def check_shape(array: Any, spec: Any) -> None:
    """Raises: InputError for a shape that Keras, told of another by the first batches, does not take."""
    if not spec.shape.is_compatible_with(array.shape):
        raise InputError(
            f"a batch has an array of shape {tuple(array.shape)} where the first ones had {tuple(spec.shape)}; let "
            "this size differ between the first two batches, or give Keras a tf.data.Dataset: to_dataset(...)"
        )
