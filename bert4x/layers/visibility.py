"""The attention mask as a layer."""

import keras
from keras import ops

from bert4x import masks
from bert4x.layers.base import Layer, Unmasked


@keras.saving.register_keras_serializable("bert4x")
class Visibility(Unmasked):
    """The attention mask of an application (see `bert4x.masks`), from the embedded tokens, whose Keras mask tells
    padding, and their ids: the segment ids for `unilm`, any others elsewhere. The application `source` is what an
    encoder-decoder sees of its source, from anywhere: a single row for all queries. With `of_partner=True` it is the
    mask of what queries of the other direction see. Keys `window` ranks or more before a query are not seen, by an
    encoder those `window` tokens or more away. Of a row of several texts, whose numbers are given, none sees another.

    Shape: (B, T, E), (B, T)[, (B, T)] -> (B, 1, T, T) bool; `source`: (B, 1, 1, T)
    """

    def __init__(self, application="encoder", of_partner=False, window=None, **kwargs):
        super().__init__(**kwargs)
        self.application = application
        self.of_partner = of_partner
        self.window = window

    def call(self, x, ids, texts=None, x_mask=None):
        # Two tensors always: for a layer called on one, Keras records the symbolic call's mask (that of the padding
        # id) as an argument of the graph node, and a padding_mask given later would be ignored.
        rank = masks.token_rank(self.application, ids, ids)
        if self.of_partner:
            return masks.visible_to_partner(self.application, rank, rank, x_mask, self.window)
        counts = self.window is not None and self.application == "encoder"
        places = masks.token_rank("lm", ids) if counts else None
        query_rank = rank[:, :1] if self.application == "source" else rank
        seen = masks.visible(query_rank, rank, x_mask, self.window, places)
        return seen if texts is None else ops.logical_and(seen, masks.of_same_text(texts))

    def compute_output_spec(self, x, ids, texts=None, x_mask=None):
        return self.symbolic((x.shape[0], 1, 1 if self.application == "source" else x.shape[1], x.shape[1]), "bool")


@keras.saving.register_keras_serializable("bert4x")
class PlacesInTexts(Layer):
    """The positions of tokens in a row of several texts: each text begins at 0.

    Shape: (B, T) numbers of texts -> (B, T) int32
    """

    def call(self, texts):
        return masks.places_in_texts(texts)

    def compute_output_spec(self, texts):
        return self.symbolic(texts.shape, "int32")
