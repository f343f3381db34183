"""Attention of one sequence to another."""

import keras

from bert4x.layers.attention import MultiHeadAttention
from bert4x.layers.recompute import recomputed


@keras.saving.register_keras_serializable("bert4x")
class CrossAttention(MultiHeadAttention):
    """Multi-head attention of one sequence to another, given as hidden states or, computed once for all steps of a
    decoder, as what `keys_values` makes of them. It knows no positions; a `bias` (B or 1, A, T, S) is added to scores.

    Shape: x (B, T, D), source (B, S, D) or ((B, K, S, d_k), (B, K, S, d_v)), visible (B, 1, T or 1, S)
    -> (B, T, D)[, weights (B, A, T, S)]
    """

    def call(self, x, source, visible, return_weights=False, bias=None, training=None):
        def attend(x, source, bias=None):
            return self.attend(x, source, visible, bias, return_weights, training)

        given = [x, source] if bias is None else [x, source, bias]
        if not (self.recompute and training) or isinstance(source, list | tuple):
            return attend(*given)
        return recomputed(self, attend, *given, dropouts=[self.attention_dropout])

    def attend(self, x, source, visible, bias, return_weights, training):
        """All of `call`."""
        past = source if isinstance(source, list | tuple) else None
        key, value = past or self.keys_values(source)
        flash = self.uses_flash(training, past, bias, return_weights or None)
        mixed, _, weights = self.look(self.queries(x), key, value, visible, bias, (None, None), flash, training)
        out = self.output_dense(self.join_heads(mixed))
        return (out, weights) if return_weights else out

    def compute_output_spec(self, x, source, visible, return_weights=False, bias=None, training=None):
        out = self.symbolic(x.shape)
        if not return_weights:
            return out
        return out, self.symbolic((x.shape[0], self.heads, x.shape[1], source.shape[1]), "float32")
