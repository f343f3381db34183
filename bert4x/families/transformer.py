"""The Transformer of Vaswani et al. 2017 (arXiv 1706.03762): an encoder, and a decoder that attends to its output. T5
and BART are this with other parts.

There is no published layout of it, only our own.
"""

from dataclasses import dataclass
from typing import ClassVar

from bert4x import layers as L
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.errors import ConfigError
from bert4x.families import register_family
from bert4x.families.parts import EMBEDDINGS, NO_MAPPING, block, options_without
from bert4x.models.builder import TransformerBuilder
from bert4x.models.cache import AttentionContext, EncodedSource

PARTS = ("MultiHeadSelfAttention", "MultiHeadCrossAttention", "FeedForward")


def cross_attention(prefix: str) -> tuple:
    """The variables of the decoder's attention to the source, and of the norm after it."""
    rows = block(prefix)
    return tuple((path.replace("Self", "Cross"), *rest) for path, *rest in rows if "Self" in path)


def decoder_block(prefix: str) -> tuple:
    """The variables of one block of the decoder, in the order of the graph."""
    rows = block(prefix)
    attention = tuple(row for row in rows if "Self" in row[0])
    return attention + cross_attention(prefix) + rows[len(attention) :]


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(TransformerConfig):
    """With `decoder_start_token_id`, what targets begin with; default: the start token of the vocabulary."""

    decoder_start_token_id: int | None = None
    token_ids: ClassVar = (*TransformerConfig.token_ids, "decoder_start_token_id")


STYLE = ConfigStyle(
    "gelu_erf",
    defaults={"hidden_act": "relu", "layer_norm_eps": 1e-6, "segment_vocab_size": 0, "pad_token_id": 0},
)


@register_family
class Transformer(TransformerBuilder):
    """Post-norm, with sinusoidal positions and one embedding table for the source, the target and the output.

    Inputs: `token_ids` (B, S), the source, and `target_ids` (B, T), what the decoder reads: the target, shifted right.
    The padding id tells the padding of both, except at their first place; `padding_mask` (B, S) that of the source.

    Outputs: the decoder's hidden states (B, T, D), or with `with_mlm` (which `load` asks for) the logits (B, T, V).
    Attention weights come as a dict of "encoder" (B, A, S, S), "decoder" (B, A, T, T) and "cross" (B, A, T, S).

    Families that have the application "encoder", too, give there the encoder's hidden states alone (B, S, D).

    With a cache, `target_ids` are the tokens for the slots from `index` on, and `target_mask` (B, T) may say which are
    real. The first pass needs `token_ids` too: it reads the source, and leaves its keys and values in `cache.source`.
    """

    model_name = "transformer"
    applications = ("seq2seq",)
    causal = True
    config_class = EncoderDecoderConfig
    options: ClassVar = options_without(
        TransformerBuilder.options, "with_nsp", "with_pool", "custom_position_ids", "packed"
    )
    unused: ClassVar = {
        "segment_vocab_size": lambda c: 0,
        **NO_MAPPING,
        "hierarchical_position": lambda c: False,
    }
    variables = (EMBEDDINGS[0], *block("Encoder-Transformer-{i}"), *decoder_block("Decoder-Transformer-{i}"))
    styles: ClassVar = {"tf1": STYLE, "hf": STYLE}
    needs_segments = False

    def __init__(self, config: TransformerConfig, application: str = "seq2seq", **options):
        super().__init__(config, application, **options)
        self.check_fields(config, ("embedding_size", "hierarchical_position"))  # which no table of weights shows
        self.check_heads()

    def check_heads(self):
        """Raises: ConfigError for a head that the application has not."""
        if self.application == "encoder" and self.with_mlm:
            raise ConfigError("with_mlm is for what writes, and an encoder does not; leave it out, or load the whole")

    def target_start(self, tokenizer):
        start = self.config.decoder_start_token_id
        return super().target_start(tokenizer) if start is None else start

    def new_inputs(self):
        names = super().new_inputs()
        if self.application == "encoder":
            return names
        return names | {"target_ids": L.Input((None,), dtype="int32", name=f"{self.prefix}Input-Target")}

    def forward(self, inputs, cache=None, index=0, last=False):
        if self.application == "encoder":
            h, _, weights = self.encode(inputs)
            h = self.heads(h)
            return [h, weights] if self.return_attentions else h
        sources, visible, cache, encoding = self.sources(inputs, cache)
        outputs, context = self.decode(inputs, sources, visible, cache, index, last)
        if cache is not None or not self.return_attentions:
            return context.result(outputs)
        return context.result(outputs, encoder=encoding, cross=context.cross_weights)

    def heads(self, h, last=False):
        """What the application "encoder" gives of the encoder's hidden states."""
        return h

    def decode(self, inputs, sources, visible, cache, index, last):
        """What the decoder gives for `target_ids` and what each layer attends to; and what its attention shared."""
        ids, positions = inputs["target_ids"], ()
        if cache is not None:
            positions = (inputs.get("position_ids", index + L.ops.arange(L.ops.shape(ids)[1])),)
        tokens = self.token_embedding(masks_padding=True)
        h = tokens(ids)
        target = {"padding_mask": inputs.get("target_mask"), "position_ids": inputs.get("position_ids")}
        context = self.attend(h, {"token_ids": ids, **target}, "lm", cache, index)
        h = self.embed("Decoder", h, *positions)
        self.add_biases("Decoder", h, context, sources[0])
        for i, source in enumerate(sources):
            h = self.block(f"Decoder-Transformer-{i}", h, context, source, visible)
        h = self.finish("Decoder", h[:, -1:] if last else h)
        return self.language_model(h) if self.with_mlm else h, context

    def language_model(self, h):
        """The scores of every token, or their probabilities. Shape: (B, T, D) -> (B, T, V)"""
        return self.scores("LM-Activation", self.token_embedding(masks_padding=True)(h, reverse=True))

    def sources(self, inputs, cache):
        """What each layer of the decoder attends to, which of it is visible, the cache that remembers it, and the
        encoder's attention weights or None.

        Shape: for each layer (B, S, D), or with a cache the keys and values; (B, 1, 1, S)
        """
        if cache is None:
            h, visible, weights = self.encode(inputs)
            return [h] * self.config.decoder_layers, visible, None, weights
        if not cache.source:
            valid = self.real(inputs["token_ids"], inputs.get("padding_mask"))
            h, *_ = self.encode(inputs, valid)
            names = [f"Decoder-Transformer-{i}-MultiHeadCrossAttention" for i in range(self.config.decoder_layers)]
            layers = tuple(self.cross_layer(name).keys_values(h) for name in names)
            cache = cache._replace(source=EncodedSource(valid=valid, layers=layers))
        return cache.source.layers, cache.source.valid[:, None, None, :], cache, None

    def encode(self, inputs, valid=None):
        """The encoder's hidden states (B, S, D), which of them are visible (B, 1, 1, S), and its attention weights, for
        each layer (B, A, S, S), or None.
        """
        h = self.token_embedding(masks_padding=True)(inputs["token_ids"])
        visible = self.visibility(h, inputs, "source") if valid is None else valid[:, None, None, :]
        context = AttentionContext(lambda window: (visible, None), weights=self.return_attentions and valid is None)
        h = self.embed("Encoder", h)
        self.add_biases("Encoder", h, context)
        for i in range(self.encoder_layers):
            h = self.block(f"Encoder-Transformer-{i}", h, context)
        h = self.layer(L.Activation, "Encoder-Output", activation="linear")(self.finish("Encoder", h))
        return h, visible, context.weights

    @property
    def encoder_layers(self) -> int:
        """How many blocks of the encoder are read."""
        return self.config.num_hidden_layers

    def embed(self, side, h, *positions):
        """Scaled token embeddings plus sinusoids."""
        name = f"{side}-Embedding"
        layer = self.layer(L.SinusoidalPosition, f"{name}-Position", max_position=self.config.max_position)
        return self.dropout(f"{name}-Dropout", layer(h, *positions))

    def add_biases(self, side, h, context, source=None):
        """Gives the context what is added to scores, where there is such a thing."""

    def finish(self, side, h):
        """What comes after the last block."""
        return h

    def block(self, name, h, context, source=None, visible=None):
        """Self-attention, in the decoder attention to the source, and the feed-forward network."""
        attention, cross, ffn = (f"{name}-{part}" for part in PARTS)
        h = self.sublayer(attention, h, lambda x: self.attention(attention, x, context))
        if source is not None:
            h = self.sublayer(cross, h, lambda x: self.cross_attention(cross, x, source, visible, context))
        return self.sublayer(ffn, h, lambda x: self.feed_forward(ffn, x))

    def sublayer(self, name, h, compute):
        """A sublayer's output added to its input, then normalised."""
        y = self.dropout(f"{name}-Dropout", compute(h))
        return self.norm(f"{name}-Norm", self.add(f"{name}-Add", h, y))

    def cross_attention(self, name, x, source, visible, context):
        """Attention to the source; its weights go to the context, if they are asked for."""
        options = {} if context.cross_bias is None else {"bias": context.cross_bias}
        if context.cross_weights is None:
            return self.cross_layer(name)(x, source, visible, **options)
        y, weights = self.cross_layer(name)(x, source, visible, return_weights=True, **options)
        context.cross_weights.append(weights)
        return y

    def cross_layer(self, name):
        """The attention of the decoder to the encoder's output."""
        return self.attention_layer(L.CrossAttention, name)
