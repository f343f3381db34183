"""The prediction of a Keras model for the last token of its input."""

import keras
import numpy as np
from keras import ops

from bert4x.models.inputs import standardize

BUCKET = 32  # on JAX, lengths are filled up to its multiples: every other length is another compilation


class LastToken:
    """`predict(inputs)` gives what a model gives for the last token of each row: (N, T) ... -> (N, V).

    A language model of bert4x computes its head for that token only; of any other Keras model, the last row of each
    output is taken. Much less overhead than `keras.Model.predict`, which is made for data sets.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        builder = getattr(model, "builder", None)
        is_ours = builder is not None and builder.model is model and builder.with_mlm
        if is_ours and keras.backend.backend() == "jax" and builder.application in ("lm", "unilm"):
            last = keras.Input((), dtype="int32", name="Last-Token")
            row = ops.take_along_axis(_logits(model), last[:, None, None], axis=1)
            self._compute = keras.Model([*model.inputs, last], row[:, 0])
            self.predict = self._predict_padded
        elif is_ours:
            self._compute = keras.Model(model.inputs, _logits(model, last=True)[:, -1])
        elif getattr(model, "outputs", None):
            last = [output[:, -1] for output in model.outputs]
            self._compute = keras.Model(model.inputs, last if len(last) > 1 else last[0])
        else:  # a subclassed model has no graph to add to
            self.predict = self._predict_whole
            return
        self._compute.jit_compile = keras.backend.backend() == "jax"  # XLA on TensorFlow would compile every length

    def predict(self, inputs) -> np.ndarray | list[np.ndarray]:
        """The outputs at the last token. Shape: (N, T) ids -> (N, V)"""
        return self._compute.predict_on_batch(inputs)

    def _predict_padded(self, inputs) -> np.ndarray:
        """Padding comes after the last token, and has a later segment in a UniLM, so no token sees it."""
        builder = self._model.builder
        self._model.check(inputs)
        arrays = [np.asarray(values) for values in standardize(self._model, inputs)[0]]
        rows, length = arrays[0].shape
        more = min(-length % BUCKET, builder.config.max_position - length)
        for number, name in enumerate(builder.new_inputs()):
            fill = int(name == "segment_ids" and builder.application == "unilm")
            arrays[number] = np.pad(arrays[number], ((0, 0), (0, max(more, 0))), constant_values=fill)
        return self._compute.predict_on_batch([*arrays, np.full(rows, length - 1, "int32")])

    def _predict_whole(self, inputs) -> np.ndarray | list[np.ndarray]:
        return keras.tree.map_structure(lambda output: output[:, -1], self._model.predict_on_batch(inputs))


def _logits(model, last: bool = False):
    """The language model's among the outputs: the last."""
    builder = model.builder
    outputs = builder.forward(dict(zip(builder.new_inputs(), model.inputs, strict=False)), last=last)
    outputs = outputs[0] if builder.return_attentions else outputs
    return outputs[-1] if isinstance(outputs, list) else outputs
