"""The gated attention unit."""

import keras

from bert4x.layers.attention import MultiHeadAttention
from bert4x.layers.base import Dropout, activation, initializer


@keras.saving.register_keras_serializable("bert4x")
class GatedAttentionUnit(MultiHeadAttention):
    """Attention of one head and a feed-forward network in one layer (Hua et al. 2022, arXiv 2202.10447; Su,
    kexue.fm/archives/9052): o((gate * attention(query, key, value))), where one dense layer with an activation gives
    the gate, the values, and what queries and keys are, each with a scale of its own. It has no biases.

    Settings are those of `MultiHeadAttention`; `head_size`, that of values, is the size within; `log_n` is 512, as in
    GAU-alpha. Arguments of a call are the same, too, with A = K = 1.

    Shape: x (B, T, D), visible (B, 1, T, S) bool -> (B, T, D) ...
    """

    settings = (*(name for name in MultiHeadAttention.settings if name not in ("heads", "use_bias")), "activation")

    def __init__(self, head_size, activation="silu", log_n=512, **kwargs):
        super().__init__(heads=1, head_size=head_size, use_bias=False, log_n=log_n, **kwargs)
        self.activation = activation

    def build(self, x_shape):
        def scale(name):
            return self.add_weight(shape=(self.key_size,), initializer="ones", name=name)

        size, act, start = 2 * self.head_size + self.key_size, activation(self.activation), initializer(self.stddev)
        self.intermediate_dense = self.new_dense("intermediate", size, x_shape, act, False, start)
        self.query_scale, self.key_scale = scale("query_scale"), scale("key_scale")
        inner, start = (*x_shape[:-1], self.head_size), initializer(self.stddev)
        self.output_dense = self.new_dense("output", x_shape[-1], inner, None, False, start)
        self.attention_dropout = Dropout(self.dropout, dtype=self.compute_dtype)
        self.fusion_dropout = Dropout(self.partner_dropout, dtype=self.compute_dtype)

    def attend(self, x, *others):
        """As in `MultiHeadAttention`, which reads x as (B, T, 2 * head_size + key_size): gate, values, shared."""
        return super().attend(self.intermediate_dense(x), *others)

    def queries(self, x):
        return (x[..., 2 * self.head_size :] * self.query_scale)[:, None]

    def keys_values(self, x):
        key = x[..., 2 * self.head_size :] * self.key_scale
        return key[:, None], x[:, None, :, self.head_size : 2 * self.head_size]

    def output_of(self, mixed, x):
        return self.output_dense(x[..., : self.head_size] * self.join_heads(mixed))
