"""How much of a text each of its tokens attends to, by a head of the model: to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert4x.serving.abilities import ATTENTION, Ability

LONGEST = 128  # tokens of a text: an answer has the square of it


@dataclass(frozen=True)
class Attention:
    """The weights of a head: in the row of a token how much it takes of each, 1 in all. Shape: weights (T, T)"""

    layer: int
    head: int
    tokens: list[str]
    weights: np.ndarray


class Attentions:
    """What heads attend to; layers and heads are counted from 1.

    Args:
        builder: of an encoder, with `return_attentions=True`. Its `forward` is called as it is: Keras makes no model of
            layers that gave one output before, and now give two.
    """

    def __init__(self, builder, tokenizer):
        self.builder, self.tokenizer = builder, tokenizer
        self.layers, self.heads = builder.config.num_hidden_layers, builder.config.num_attention_heads

    def __call__(self, texts: Sequence[str], layer: int | None = None, head: int = 1) -> list[Attention]:
        """Of each text, by default in the last layer."""
        return [self.of(text, self.layers if layer is None else layer, head) for text in texts]

    def of(self, text: str, layer: int, head: int) -> Attention:
        """Of one text, which is read alone: there is no padding to attend to."""
        from keras import ops

        ids, segments = self.tokenizer.encode(text, maxlen=LONGEST)
        inputs = {"token_ids": ids, "segment_ids": segments, "padding_mask": np.ones(len(ids), bool)}
        inputs = {name: ops.convert_to_tensor(np.array([row])) for name, row in inputs.items()}
        _, weights = self.builder.forward(inputs)
        found = ops.convert_to_numpy(weights[layer - 1])[0, head - 1]
        return Attention(layer, head, self.tokenizer.ids_to_tokens(ids), np.round(found.astype("float64"), 4))


class AttentionWeights(Ability):
    """The weights of a chosen head."""

    def __init__(self, builder, tokenizer):
        task = Attentions(builder, tokenizer)
        super().__init__(ATTENTION, task, min(LONGEST, builder.config.max_position))
        self.parameters = {"layer": (int, 1, task.layers), "head": (int, 1, task.heads)}
