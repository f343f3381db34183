"""GPT2: the pre-norm decoder of Radford et al. 2019; CPM-LM (Zhang et al. 2020, arXiv 2012.00413) is one."""

from typing import ClassVar

import keras

from bert4x import layers as L
from bert4x.models.backbone import Backbone
from bert4x.models.registry import register


@register("gpt2")
class Gpt2(Backbone):
    """Causal whatever the application, except `unilm`, where the source is seen as a whole.

    No id is taken for padding unless the source of a `unilm` must be bounded: a causal model never sees what follows,
    and published models use every id. Pad on the right, or give `padding_mask`.

    Outputs: hidden states (B, T, D), or with `with_mlm` the language model's (B, T, V) over the tied embeddings.
    """

    applications = ("lm", "unilm", "encoder")
    options: ClassVar = {
        name: default for name, default in Backbone.options.items() if name not in ("with_nsp", "with_pool")
    }
    unused: ClassVar = Backbone.unused | {
        "segment_vocab_size": lambda c: 0,
        "embedding_size": lambda c: c.hidden_size,
        "embedding_mapping": lambda c: False,
    }

    def forward(self, inputs, cache=None, index=0, last=False):
        unilm = self.application == "unilm"
        tokens = self.token_embedding(masks_padding=unilm)
        h = tokens(inputs["token_ids"])
        pass_ = self.attend(h, inputs, "unilm" if unilm else "lm", cache, index)
        h = self.dropout("Embedding-Dropout", self.position_embedding(h, inputs, index, cached=cache is not None))
        for i in range(self.config.num_hidden_layers):
            h = self.block(f"Transformer-{i}", h, pass_)
        h = self.norm("Output-Norm", h)
        if self.with_mlm:
            activation = "softmax" if self.with_mlm is True else self.with_mlm
            h = h[:, -1:] if last else h
            h = self.layer(keras.layers.Activation, "LM-Activation", activation=L.activation(activation))(
                tokens(h, reverse=True)
            )
        return pass_.result(h)

    def block(self, name, h, pass_):
        """Attention, then the feed-forward network; each sees its input normalised and is added to it."""
        attention = f"{name}-MultiHeadSelfAttention"
        a = self.attention(attention, self.norm(f"{attention}-Norm", h), pass_)
        h = self.add(f"{attention}-Add", h, self.dropout(f"{attention}-Dropout", a))

        ffn = f"{name}-FeedForward"
        f = self.feed_forward(ffn, self.norm(f"{ffn}-Norm", h))
        return self.add(f"{ffn}-Add", h, self.dropout(f"{ffn}-Dropout", f))

    @property
    def needs_segments(self) -> bool:
        return self.application == "unilm"
