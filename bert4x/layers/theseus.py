"""Compressing a model by putting parts of a smaller one in its place (BERT-of-Theseus)."""

import keras
from keras import ops

from bert4x.layers.base import Layer


@keras.saving.register_keras_serializable("bert4x")
class BinaryRandomChoice(Layer):
    """In training one of two inputs, the first with a probability, for the whole batch; else the second (Xu et al.
    2020, arXiv 2002.02925; Su, kexue.fm/archives/7575). The mask is the second's.

    Shape: two of (B, ...) -> (B, ...)

    Args:
        p: the probability of the first, what is to be replaced.
    """

    def __init__(self, p=0.5, **kwargs):
        super().__init__(**kwargs)
        self.p = p
        self.supports_masking = True
        self.seeds = keras.random.SeedGenerator()

    def call(self, inputs, training=None):
        first, second = inputs
        if not training:
            return second
        return ops.where(keras.random.uniform((1,), seed=self.seeds) < self.p, first, second)

    def compute_mask(self, inputs, mask=None):
        return None if mask is None else mask[1]

    def compute_output_spec(self, inputs, training=None):
        return self.symbolic(inputs[1].shape)
