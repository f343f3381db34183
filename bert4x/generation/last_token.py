"""The prediction of a Keras model for the last token of its input."""

import keras
import numpy as np


class LastToken:
    """`predict(inputs)` gives what a model gives for the last token of each row: (N, T) ... -> (N, V).

    A language model of bert4x computes its head for that token only; of any other Keras model, the last row of its
    first output is taken. Much less overhead than `keras.Model.predict`, which is made for data sets.
    """

    def __init__(self, model: keras.Model):
        self._rows = None
        backbone = getattr(model, "backbone", None)
        if backbone is not None and backbone.model is model and backbone.with_mlm:
            names = backbone.inputs()
            outputs = backbone.forward(dict(zip(names, model.inputs, strict=False)), last=True)
            output = outputs[-1] if isinstance(outputs, list) else outputs
        elif getattr(model, "outputs", None):
            output = model.outputs[0]
        else:  # a subclassed model has no graph to add to
            self._model, self._rows = model, slice(None)
            return
        self._model = keras.Model(model.inputs, output[:, -1])
        self._model.jit_compile = keras.backend.backend() == "jax"  # XLA on TensorFlow would compile every length

    def predict(self, inputs) -> np.ndarray:
        outputs = self._model.predict_on_batch(inputs)
        if self._rows is None:
            return outputs
        return (outputs[0] if isinstance(outputs, list | tuple) else outputs)[:, -1]

    __call__ = predict_on_batch = predict
