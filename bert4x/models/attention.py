"""Self-attention of a model: what its layers share in one pass, and how they are made and called."""

from typing import Any, ClassVar

from bert4x import layers as L
from bert4x.models.cache import AttentionContext, Cache, new_cache
from bert4x.models.parts import Parts

MASK_NAMES = {"encoder": "", "lm": "LM-", "unilm": "UniLM-", "source": "Source-"}


class Attention(Parts):
    """Masks, positions, the cache, and the attention layers that read them."""

    attention_class: ClassVar[str] = "MultiHeadAttention"  # the class of self-attention in `bert4x.layers`

    def attend(self, tokens, inputs, application: str, cache: Cache | None, index) -> AttentionContext:
        """What the attention layers of this pass share."""
        if cache is None:

            def visibility(window):
                if self.attention_window:  # which is computed in blocks: only padding has to be told
                    return self.visibility(tokens, inputs, "source"), None
                seen = tokens, inputs, application, window
                of_partner = self.visibility(*seen, of_partner=True) if self.bidirectional else None
                return self.visibility(*seen), of_partner

            places, weights = (inputs.get("position_ids"), None), self.return_attentions
            return AttentionContext(visibility, places, weights=weights, causal=application == "lm")
        from bert4x import masks

        ids, positions = inputs["token_ids"], inputs.get("position_ids")
        rank = cache.rank_before(application, index) + masks.token_rank(application, ids, inputs.get("segment_ids"))
        if positions is None:
            positions = index + L.ops.arange(L.ops.shape(ids)[1], dtype="int32")
        positions = L.ops.broadcast_to(L.ops.cast(positions, "int32"), L.ops.shape(ids))
        valid = self.real(ids, inputs.get("padding_mask"))
        cache = cache.with_tokens(index, rank=rank, valid=valid, positions=positions)

        def visible(window):
            seen = rank, cache.rank, cache.valid, window or self.attention_window
            if self.attention_window and not window:
                return masks.visible(*seen, dilation=self.attention_dilation), None
            return masks.visible(*seen), masks.visible_to_partner(application, *seen) if self.bidirectional else None

        return AttentionContext(visible, (positions, cache.positions), cache, index)

    def real(self, ids, padding_mask=None):
        """Which tokens are no padding: as the mask says, or those that are not the padding id.

        Shape: (B, T)[, (B, T)] -> (B, T) bool
        """
        if padding_mask is None:
            padding_mask = self.layers[self.prefix + "Embedding-Token"].compute_mask(ids)
        return L.ops.ones_like(ids, dtype="bool") if padding_mask is None else L.ops.cast(padding_mask, "bool")

    def visibility(self, x, inputs, application: str, window: int | None = None, of_partner: bool = False):
        """The attention mask of an application within a window, or that of what the other direction sees."""
        name = f"Attention-{MASK_NAMES[application]}{'Partner-' if of_partner else ''}Mask"
        name += "" if window is None else f"-{window}"
        layer = self.layer(
            L.Visibility,
            f"{name}-Packed" if self.packed else name,
            application=application,
            of_partner=of_partner,
            window=window,
        )
        given = [x, inputs["segment_ids" if application == "unilm" else "token_ids"]]
        return layer(*given, *([inputs["text_ids"]] if self.packed else []))

    def positions(self) -> "L.Positions | None":
        """How self-attention knows the positions of tokens: a scheme of `bert4x.layers.positions`, or None where they
        are added to the embeddings, or where nothing knows them. A family may override it.
        """

    def attention(self, name: str, x, context: AttentionContext, window: int | None = None, **options):
        """Self-attention over this pass's tokens and the cached ones, within a window of ranks if one is given. The
        options are the layer's own, where they differ from `attention_options`.
        """
        residual = self.config.residual_attention_scores
        visible, visible_to_partner = context.masks(window)
        given = {"bias": context.bias if context.scores is None else context.scores}
        if visible_to_partner is not None:
            options["partner_dropout"] = self.bidirectional_dropout
            given |= {"visible_to_partner": visible_to_partner, "partner_weight": self.bidirectional_weight}
        options = {"positions": self.positions(), "return_scores": residual} | options
        layer = self.attention_layer(getattr(L, self.attention_class), name, **options)
        if options["positions"] is not None:
            given |= {"positions": context.query_positions, "key_positions": context.key_positions}
        if context.cache is not None:
            given |= {"past": context.past, "index": context.index}
        if context.weights is not None:
            given["return_weights"] = True
        if self.attention_window and context.cache is None:
            self.check_local(visible, given, options["positions"])
            near = (window, 1) if window else (self.attention_window, self.attention_dilation)
            given["local"] = [*near, context.causal]
        outputs = layer(x, visible, **{key: value for key, value in given.items() if value is not None})
        outputs, *rest = outputs if isinstance(outputs, list | tuple) else [outputs]
        if residual:
            context.scores = rest.pop(0)
        if context.weights is not None:
            context.weights.append(rest.pop(0))
        context.written += rest
        return outputs

    def attention_layer(self, cls, name: str, **kwargs):
        """An attention layer of the model's sizes."""
        return self.layer(cls, name, **self.attention_options() | kwargs)

    def attention_options(self) -> dict[str, Any]:
        """What all attention layers are made with (see `MultiHeadAttention`). A family may add to it."""
        c = self.config
        return {
            "heads": c.num_attention_heads,
            "head_size": c.attention_head_size,
            "key_size": c.attention_key_size,
            "dropout": c.attention_dropout_rate,
            "stddev": c.initializer_range,
            "recompute": self.recompute,
            "flash_attention": self.flash_attention,
        }

    def new_cache(self, batch_size: int, length: int) -> Cache:
        """An empty cache for decoding `length` tokens with this model."""
        heads = self.attention_options().get("key_value_heads")
        return new_cache(self.config, batch_size, length, self.policy.compute_dtype, heads)
