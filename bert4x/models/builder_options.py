"""What a builder of models can be asked for that is not part of a config."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bert4x.errors import ConfigError

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True, eq=False, repr=False)
class Options:
    """Attributes of every `TransformerBuilder`, and arguments of `build_transformer_model`.

    `return_attentions=True` makes `.model` give a pair: what it gives without, and the attention weights, in float32: a
    list with those of each layer, (B, A, T, T). They are the same as without; decoding does not compute them.

    `bidirectional=True` makes the self-attention over targets synchronous in two directions (`bert4x.masks`; Zhou et
    al. 2019, arXiv 1905.04847), for the application "unilm" and the encoder-decoder. It has no variables of its own,
    so any checkpoint loads. A batch is then R / 2 rows from left to right, and the same R / 2 from right to left. What
    comes from the other direction is weighted by `bidirectional_weight`, after dropout of `bidirectional_dropout`.

    `packed=True` is for rows of several texts, none of which sees another: another input, `text_ids` (B, T), has the
    number of each token's text, and each text begins at position 0. The hidden states are those of texts in rows of
    their own (`bert4x.training.packing`). Heads of a whole row, `with_pool` and `with_nsp`, do not go with it.

    `attention_window=64` lets every token see only what is less than 64 tokens away (an "lm": before it), computed in
    blocks, so that time and memory grow with the length, not with its square; with `attention_dilation=4`, every fourth
    token of what is less than 256 away (Su, kexue.fm/archives/6853). It is for the applications "encoder" and "lm".

    `recompute=True` computes again, in the backward pass, what attention and feed-forward layers compute in training,
    under the same dropout, instead of keeping it: a fraction of the memory.
    """

    # Heads: True, or an activation. Of a language model, for masked tokens or the next; for next sentences ...
    with_mlm: bool | str | Callable = False
    with_nsp: bool | str | Callable = False
    with_pool: bool | str | Callable = False  # ... and the pooled first token
    return_attentions: bool = False
    custom_position_ids: bool = False  # another input: positions
    packed: bool = False  # several texts in a row
    layer_norm_cond: "keras.KerasTensor | Sequence | None" = None  # the condition of conditional layer normalisation
    layer_norm_cond_hidden_size: int | None = None
    layer_norm_cond_hidden_act: str | Callable = "linear"
    additional_input_layers: "keras.KerasTensor | Sequence | None" = None
    layers: "dict[str, keras.layers.Layer] | None" = None  # those of these names are taken, and new ones put there
    prefix: str = ""  # of all names of layers
    name: str | None = None  # of the model
    sequence_length: int | None = None
    bidirectional: bool = False
    bidirectional_weight: float = 0.1
    bidirectional_dropout: float = 0.3
    attention_window: int | None = None
    attention_dilation: int = 1
    recompute: bool = False
    flash_attention: bool | None = None  # see `bert4x.layers.MultiHeadAttention`
    dtype: str | None = None  # a policy of Keras; default: the global one
    quantize: str | None = None  # "int8": matrices are

    def __post_init__(self):
        self.layers = self.layers if self.layers is not None else {}  # shared with the caller, as in bert4keras
        self.prefix = self.prefix or ""
        if self.dtype or self.quantize:
            _ = self.policy  # refuses what cannot be

    @functools.cached_property
    def policy(self) -> "keras.DTypePolicy":
        """What layers compute and keep their variables in."""
        return dtype_policy(self.dtype, self.quantize)

    def check_bidirectional(self):
        """Raises: ConfigError where there is no target, or for a weight or rate that cannot be."""
        if self.bidirectional and self.application not in ("unilm", "seq2seq"):
            raise ConfigError(
                f"bidirectional=True is for targets, and the application {self.application!r} has none; expected "
                "'unilm', or the encoder-decoder model='transformer'"
            )
        if self.bidirectional and self.return_attentions:
            raise ConfigError("return_attentions=True does not go with bidirectional=True; expected one of the two")
        if not 0 < self.bidirectional_weight < float("inf") or not 0 <= self.bidirectional_dropout < 1:
            raise ConfigError(
                f"bidirectional_weight = {self.bidirectional_weight!r}, bidirectional_dropout = "
                f"{self.bidirectional_dropout!r}; expected a positive number, and one from 0 to below 1"
            )

    def check_packed(self):
        """Raises: ConfigError for what reads a row as one text."""
        wrong = [
            name for name in ("bidirectional", "custom_position_ids", "with_pool", "with_nsp") if getattr(self, name)
        ]
        if self.packed and (wrong or self.application == "seq2seq"):
            what = f"{wrong[0]}={getattr(self, wrong[0])!r}" if wrong else "an encoder-decoder"
            raise ConfigError(f"packed=True does not go with {what}; expected one of the two")

    def check_window(self):
        """Raises: ConfigError for a window that cannot be, or what cannot be computed in blocks."""
        window, dilation = self.attention_window, self.attention_dilation
        if window is None and dilation == 1:
            return
        if not all(isinstance(size, int) and size > 0 for size in (window, dilation)):
            raise ConfigError(
                f"attention_window={window!r}, attention_dilation={dilation!r}; expected two positive integers, the "
                "second only with the first"
            )
        wrong = [name for name in ("bidirectional", "packed", "return_attentions") if getattr(self, name)]
        wrong += ["residual_attention_scores"] if self.config.residual_attention_scores else []
        if wrong or self.application not in ("encoder", "lm") or self.attention_class != "MultiHeadAttention":
            what = f"{wrong[0]}=True" if wrong else f"the application {self.application!r} of a {self.model_name}"
            raise ConfigError(f"attention_window={window} does not go with {what}; leave one of them out")

    def check_local(self, visible, given: dict, positions) -> None:
        """Raises: ConfigError for what attention in blocks does not know."""
        if visible.shape[2] != 1 or given["bias"] is not None or (positions is not None and positions.inside_scores):
            raise ConfigError(
                f"attention_window={self.attention_window} does not go with a bias of scores, or relative positions "
                f"inside them, which a {self.model_name} has here; leave it out"
            )


OPTIONS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Options)}


def dtype_policy(name, quantize: str | None = None) -> "keras.DTypePolicy":
    """A Keras policy by name; None is the global one. With `quantize="int8"`, matrices are int8.

    Raises: ConfigError
    """
    import keras

    try:
        policy = keras.dtype_policies.get(name) if name else keras.config.dtype_policy()
    except ValueError as error:
        raise ConfigError(
            f"no dtype {name!r}; expected float32, bfloat16, mixed_bfloat16, mixed_float16 ..."
        ) from error
    if quantize is None:
        return policy
    if quantize != "int8" or policy.quantization_mode or policy.compute_dtype not in ("float32", "bfloat16"):
        raise ConfigError(
            f"quantize={quantize!r} with dtype {policy.name!r}; expected quantize='int8' with float32 or bfloat16"
        )
    return keras.dtype_policies.QuantizedDTypePolicy(quantize, policy.name)
