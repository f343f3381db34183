"""Places of a text: which of them count, the states at some, and scores with the places last."""

from collections.abc import Collection

import keras
from keras import ops

from bert4x.layers.base import Unmasked
from bert4x.layers.pointer import HIDDEN


@keras.saving.register_keras_serializable("bert4x")
class WrittenTokens(Unmasked):
    """Which tokens stand in a text: all but padding, start and end tokens.

    Shape: (B, T) ids -> (B, T) bool
    """

    def __init__(self, specials: Collection[int], **kwargs):
        super().__init__(**kwargs)
        self.specials = list(specials)

    def call(self, ids):
        written = ops.ones_like(ids, dtype="bool")
        for special in self.specials:
            written = ops.logical_and(written, ops.not_equal(ids, special))
        return written

    def compute_output_spec(self, ids):
        return self.symbolic(ids.shape, "bool")


@keras.saving.register_keras_serializable("bert4x")
class PlaceScores(Unmasked):
    """Scores of places with the places last; padding gets `HIDDEN`.

    Shape: (B, T, N), (B, T) bool -> (B, N, T) float32
    """

    def call(self, scores, real):
        return ops.where(real[:, None, :], ops.transpose(ops.cast(scores, "float32"), (0, 2, 1)), HIDDEN)

    def compute_output_spec(self, scores, real):
        return self.symbolic((scores.shape[0], scores.shape[2], scores.shape[1]), "float32")


@keras.saving.register_keras_serializable("bert4x")
class SpanStates(Unmasked):
    """The states at the first and the last token of one span for each text.

    Shape: (B, T, D), (B, 2) -> (B, 2 * D)
    """

    def call(self, states, spans):
        both = ops.take_along_axis(states, ops.cast(spans, "int32")[:, :, None], axis=1)
        return ops.reshape(both, (-1, 2 * states.shape[-1]))

    def compute_output_spec(self, states, spans):
        return self.symbolic((states.shape[0], 2 * states.shape[-1]))


@keras.saving.register_keras_serializable("bert4x")
class TakePlaces(Unmasked):
    """Hidden states at some places of each text; place -1 gives zeros.

    Shape: (B, T, D), (B, K) int32 -> (B, K, D)
    """

    def call(self, h, places):
        taken = ops.take_along_axis(h, ops.maximum(places, 0)[..., None], axis=1)
        return ops.where(places[..., None] >= 0, taken, ops.zeros_like(taken))

    def compute_output_spec(self, h, places):
        return self.symbolic((h.shape[0], places.shape[1], h.shape[2]))
