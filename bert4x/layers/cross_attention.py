"""Attention of one sequence to another."""

import keras

from bert4x.layers.attention import MultiHeadAttention
from bert4x.layers.recompute import recomputed


@keras.saving.register_keras_serializable("bert4x")
class CrossAttention(MultiHeadAttention):
    """Multi-head attention of one sequence to another, given as hidden states or, computed once for all steps of a
    decoder, as what `keys_values` makes of them. It knows no positions.

    Shape: x (B, T, D), source (B, S, D) or ((B, K, S, d_k), (B, K, S, d_v)), visible (B, 1, T or 1, S)
    -> (B, T, D)[, weights (B, A, T, S)]
    """

    def call(self, x, source, visible, return_weights=False, training=None):
        if not (self.recompute and training) or isinstance(source, list | tuple):
            return self.attend(x, source, visible, return_weights, training)

        def attend(x, source):
            return self.attend(x, source, visible, return_weights, training)

        return recomputed(self, attend, x, source, dropouts=[self.attention_dropout])

    def attend(self, x, source, visible, return_weights, training):
        """All of `call`."""
        past = source if isinstance(source, list | tuple) else None
        key, value = past or self.keys_values(source)
        flash = self.uses_flash(training, past, return_weights or None)
        mixed, _, weights = self.look(self.queries(x), key, value, visible, None, (None, None), flash, training)
        out = self.output_dense(self.join_heads(mixed))
        return (out, weights) if return_weights else out

    def compute_output_spec(self, x, source, visible, return_weights=False, training=None):
        out = self.symbolic(x.shape)
        if not return_weights:
            return out
        return out, self.symbolic((x.shape[0], self.heads, x.shape[1], source.shape[1]), "float32")
