"""Qwen2, Qwen2.5 and Qwen3: decoders of LLaMA's kind, with biases of queries, keys and values, or norms of heads."""

from dataclasses import dataclass
from typing import ClassVar

from bert4x.errors import ConfigError
from bert4x.families import llama, register_family
from bert4x.families.layouts import gguf
from bert4x.json_files import shown


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(llama.MistralConfig):
    """The window counts where `use_sliding_window` says so, in the layers of that type, by default those from
    `max_window_layers` on.
    """

    max_position: int = 32768
    attention_bias: bool = True
    use_sliding_window: bool = False
    max_window_layers: int = 28
    layer_types: list[str] | None = None

    def __post_init__(self):
        super().__post_init__()
        types, known = self.layer_types, ("full_attention", "sliding_attention")
        fitting = isinstance(types, list | tuple) and len(types) == self.num_hidden_layers
        if types is not None and not (fitting and all(kind in known for kind in types)):
            raise ConfigError(
                f"config says layer_types = {shown(types)}; expected {' or '.join(known)} for each of "
                f"{self.num_hidden_layers} layers"
            )

    def window(self, layer: int) -> int | None:
        slides = layer >= self.max_window_layers if self.layer_types is None else "sliding" in self.layer_types[layer]
        return self.sliding_window if self.use_sliding_window and slides else None


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(Qwen2Config):
    """Heads have 128 features unless a file says otherwise, whatever the hidden size."""

    attention_bias: bool = False


@register_family
class Qwen2(llama.Llama):
    """A Llama with biases of queries, keys and values (Qwen2, arXiv 2407.10671; Qwen2.5, arXiv 2412.15115)."""

    model_name = "qwen2"
    config_class = Qwen2Config
    unused: ClassVar = llama.Llama.unused | {"attention_bias": lambda c: True, "mlp_bias": lambda c: False}
    variables = llama.without(llama.OUTPUT_BIAS, llama.FFN_BIASES, llama.HEAD_NORMS)
    tables = (llama.table("qwen2", llama.BIASES), gguf.QWEN2)
    styles: ClassVar = llama.styles("qwen2", llama.NOT_SPELLED, llama.WINDOW) | {"gguf": gguf.QWEN2_STYLE}

    def attention_options(self):
        return super().attention_options() | {"output_bias": False}


@register_family
class Qwen3(llama.Llama):
    """A Llama whose queries and keys are normalised, each head by itself (arXiv 2505.09388)."""

    model_name = "qwen3"
    config_class = Qwen3Config
    unused: ClassVar = llama.Llama.unused | {"mlp_bias": lambda c: False}
    variables = llama.without(llama.FFN_BIASES)
    tables = (llama.table("qwen3", llama.BIASES, llama.OUTPUT_BIAS, llama.HEAD_NORMS), gguf.QWEN3)
    styles: ClassVar = llama.styles("qwen3", {"mlp_bias": ()}, llama.WINDOW, attention_head_size=128)
    styles["gguf"] = gguf.QWEN3_STYLE

    def attention_options(self):
        return super().attention_options() | {"query_key_norm": self.config.layer_norm_eps}
