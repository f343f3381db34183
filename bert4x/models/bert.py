"""BERT: the post-norm encoder of Devlin et al. 2018 (arXiv 1810.04805)."""

import keras

from bert4x import layers as L
from bert4x.models.backbone import Backbone
from bert4x.models.registry import register


@register("bert", "roberta")
class Bert(Backbone):
    """BERT and everything of its shape: RoBERTa-wwm, MacBERT, SimBERT, CLUE's and Zhuiyi's models.

    Outputs: the hidden states (B, T, D); or of the heads asked for, in this order: pooled (B, D) or next-sentence
    (B, 2), then masked language model (B, T, V).
    """

    def forward(self, inputs, cache=None, index=0, last=False):
        h, pass_ = self.embed(inputs, cache, index)
        for i in range(self.config.num_hidden_layers):
            h = self.block(self.block_name(i), h, pass_)
        return pass_.result(self.heads(h, last))

    def block_name(self, i: int) -> str:
        """Prefix of the names of block i's layers."""
        return f"Transformer-{i}"

    def embed(self, inputs, cache, index):
        """Token + segment + position embeddings, normalised, at the hidden size; and what attention shares."""
        h = tokens = self.token_embedding(masks_padding=True)(inputs["token_ids"])
        if self.config.segment_vocab_size:
            segments = self.layer(
                L.Embedding,
                "Embedding-Segment",
                input_dim=self.config.segment_vocab_size,
                output_dim=self.config.embedding_size,
                embeddings_initializer=L.initializer(self.config.initializer_range),
            )
            h = self.add("Embedding-Token-Segment", h, segments(inputs["segment_ids"]))
        h = self.position_embedding(h, inputs, index, cached=cache is not None)
        h = self.dropout("Embedding-Dropout", self.norm("Embedding-Norm", h))
        if self.config.embedding_mapping:
            h = self.dense("Embedding-Mapping", self.config.hidden_size)(h)
        return h, self.attend(tokens, inputs, self.application, cache, index)

    def block(self, name, h, pass_):
        """Attention, then the feed-forward network; each is added to its input, then normalised."""
        attention = f"{name}-MultiHeadSelfAttention"
        a = self.dropout(f"{attention}-Dropout", self.attention(attention, h, pass_))
        h = self.add(f"{attention}-Add", h, a)
        h = self.norm(f"{attention}-Norm", h)

        ffn = f"{name}-FeedForward"
        f = self.dropout(f"{ffn}-Dropout", self.feed_forward(ffn, h))
        h = self.add(f"{ffn}-Add", h, f)
        return self.norm(f"{ffn}-Norm", h)

    def heads(self, h, last=False):
        """The pooler, next-sentence and masked-language-model heads that were asked for."""
        outputs = []
        if self.with_pool or self.with_nsp:
            pooled = self.layer(L.FirstToken, "Pooler")(h)
            activation = "tanh" if self.with_pool in (True, False) else self.with_pool
            pooled = self.dense("Pooler-Dense", self.config.hidden_size, activation)(pooled)
            if self.with_nsp:
                activation = "softmax" if self.with_nsp is True else self.with_nsp
                pooled = self.dense("NSP-Proba", 2, activation)(pooled)
            outputs.append(pooled)
        if self.with_mlm:
            activation = "softmax" if self.with_mlm is True else self.with_mlm
            m = h[:, -1:] if last else h
            m = self.dense("MLM-Dense", self.config.embedding_size, self.config.hidden_act)(m)
            m = self.norm("MLM-Norm", m)
            m = self.token_embedding(masks_padding=True)(m, reverse=True)
            m = self.layer(L.Bias, "MLM-Bias")(m)
            outputs.append(
                self.layer(keras.layers.Activation, "MLM-Activation", activation=L.activation(activation))(m)
            )
        if not outputs:
            return h
        return outputs[0] if len(outputs) == 1 else outputs
