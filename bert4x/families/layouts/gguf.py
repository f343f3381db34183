"""BERT, GPT2 and decoders of Llama's kind as llama.cpp keeps them, in GGUF: its names of tensors, and of what its
metadata say in place of a config file.
"""

from collections.abc import Callable

from bert4x.checkpoints.spec import TRANSPOSED, Layout, Rule, Table
from bert4x.config import ConfigStyle
from bert4x.errors import ConfigError, ConversionError
from bert4x.families.parts import ATTENTION, FFN, linear
from bert4x.json_files import shown

BLOCK = "blk.{i}."
GATHERED = "/[query,key,value]/"

BERT = Table(
    "gguf",
    "bert",
    rules=(
        Rule("Embedding-{Token,Segment,Position}/embeddings", "{token_embd,token_types,position_embd}.weight"),
        Rule("Embedding-Norm/{gamma,beta}", "token_embd_norm.{weight,bias}"),
        *linear(ATTENTION + "/{query,key,value,output}", BLOCK + "attn_{q,k,v,output}"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", BLOCK + "attn_output_norm.{weight,bias}"),
        *linear(FFN + "/{intermediate,output}", BLOCK + "ffn_{up,down}"),
        Rule(FFN + "-Norm/{gamma,beta}", BLOCK + "layer_output_norm.{weight,bias}"),
    ),
    backbone="",
    lacks=("pool", "nsp", "mlm"),
)

GPT2 = Table(
    "gguf",
    "gpt2",
    rules=(
        Rule("Embedding-{Token,Position}/embeddings", "{token,position}_embd.weight"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", BLOCK + "attn_norm.{weight,bias}"),
        Rule(ATTENTION + GATHERED + "kernel", BLOCK + "attn_qkv.weight", TRANSPOSED),
        Rule(ATTENTION + GATHERED + "bias", BLOCK + "attn_qkv.bias"),
        *linear(ATTENTION + "/output", BLOCK + "attn_output"),
        Rule(FFN + "-Norm/{gamma,beta}", BLOCK + "ffn_norm.{weight,bias}"),
        *linear(FFN + "/{intermediate,output}", BLOCK + "ffn_{up,down}"),
        Rule("Output-Norm/{gamma,beta}", "output_norm.{weight,bias}"),
    ),
    backbone="",
    tied=("output.weight",),
)


def turned(heads: str) -> Layout:
    """The matrix of queries or keys of a Llama: llama.cpp rotates neighbours, where the model rotates halves."""
    return Layout(transpose=True, axes=(heads, 2, -1), order=(0, 2, 1))


LLAMA_MATRICES = (
    Rule(ATTENTION + "/query/kernel", BLOCK + "attn_q.weight", turned("num_attention_heads")),
    Rule(ATTENTION + "/key/kernel", BLOCK + "attn_k.weight", turned("num_key_value_heads")),
)
QWEN_MATRICES = (Rule(ATTENTION + "/{query,key}/kernel", BLOCK + "attn_{q,k}.weight", TRANSPOSED),)
BIASES = Rule(ATTENTION + "/{query,key,value}/bias", BLOCK + "attn_{q,k,v}.bias")
HEAD_NORMS = Rule(ATTENTION + "/{query_norm,key_norm}/gamma", BLOCK + "attn_{q,k}_norm.weight")


def decoder(family: str, *rules: Rule) -> Table:
    """The table of a decoder of Llama's kind, with rules of its own."""
    return Table(
        "gguf",
        family,
        rules=(
            Rule("Embedding-Token/embeddings", "token_embd.weight"),
            Rule(ATTENTION + "-Norm/gamma", BLOCK + "attn_norm.weight"),
            Rule(ATTENTION + "/{value,output}/kernel", BLOCK + "attn_{v,output}.weight", TRANSPOSED),
            Rule(FFN + "-Norm/gamma", BLOCK + "ffn_norm.weight"),
            Rule(FFN + "/{gate,intermediate,output}/kernel", BLOCK + "ffn_{gate,up,down}.weight", TRANSPOSED),
            Rule("Output-Norm/gamma", "output_norm.weight"),
            Rule("LM-Head/embeddings", "output.weight"),
            *rules,
        ),
        backbone="",
        tied=("output.weight",),
        foreign=(
            (
                r"^rope_(?:freqs|factors_\w+)\.weight$",
                "its rotary positions are scaled by a tensor, as those of Llama 3.1, which is not read: take the "
                "checkpoint that the file was made of",
            ),
        ),
    )


LLAMA = decoder("llama", *LLAMA_MATRICES)
QWEN2 = decoder("qwen2", *QWEN_MATRICES, BIASES)
QWEN3 = decoder("qwen3", *QWEN_MATRICES, HEAD_NORMS)

WINDOWS = dict.fromkeys(("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"), ())
UNSAID = ("initializer_range", "dropout_rate", "attention_dropout_rate")  # of training alone


def keys(arch: str, epsilon: str, **more: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The keys of metadata of an architecture, by our fields."""
    said = {
        "vocab_size": "vocab_size",
        "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "intermediate_size": "feed_forward_length",
        "max_position": "context_length",
        "layer_norm_eps": f"attention.{epsilon}",
    }
    ours = {field: (f"{arch}.{key}",) for field, key in said.items()} | dict.fromkeys(UNSAID, ())
    return ours | {"hidden_act": (), "segment_vocab_size": ()} | more


# Keys by which llama.cpp computes what is not computed here -> the values that ask for nothing.
OTHERWISE = dict.fromkeys(("attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale", "expert_count"), (0,))
OTHERWISE |= dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale"), (0, 1))


def plain(arch: str, causal: bool) -> dict[str, tuple[Callable, Callable]]:
    """How keys are read by which models of an architecture may differ from ours: an error, if they do."""

    def only(key: str, values: tuple) -> tuple[Callable, Callable]:
        def read(value) -> dict:
            if value not in values:
                raise ConfigError(
                    f"the metadata say {arch}.{key} = {shown(value)}; only {values[-1]} is supported here"
                )
            return {}

        return read, lambda config: None

    return {f"{arch}.{key}": only(key, values) for key, values in (OTHERWISE | {"attention.causal": (causal,)}).items()}


BERT_STYLE = ConfigStyle(
    "gelu_erf",
    keys(
        "bert",
        "layer_norm_epsilon",
        segment_vocab_size=("tokenizer.ggml.token_type_count",),
        pad_token_id=("tokenizer.ggml.padding_token_id",),
    ),
    {"pad_token_id": 0},
    {"model_type": "bert", "bert.attention.causal": False},
    plain("bert", causal=False),
    required={"hidden_act": "gelu_erf", "embedding_mapping": False},
    measured=("vocab_size",),
)
GPT2_STYLE = ConfigStyle(
    "gelu_tanh",
    keys("gpt2", "layer_norm_epsilon", pad_token_id=("tokenizer.ggml.padding_token_id",)),
    {"layer_norm_eps": 1e-5, "hidden_act": "gelu_tanh", "segment_vocab_size": 0},
    {"model_type": "gpt2", "tokenizer.ggml.pre": "gpt-2"},
    plain("gpt2", causal=True),
    required={"hidden_act": "gelu_tanh"},
    measured=("vocab_size",),
)


SCALED = {"type", "factor", "original_context_length", "finetuned"}  # the last says nothing of what is computed


def read_scaling(said) -> dict:
    """`rope_scaling` of the metadata under rope.scaling. Raises: ConfigError for kinds that are not computed here."""
    kind = said.get("type", "none") if isinstance(said, dict) else None
    if kind == "none":
        return {}
    if kind not in ("linear", "yarn") or not said.keys() <= SCALED:
        raise ConfigError(
            f"the metadata say rope.scaling = {shown(said)}; expected type linear or yarn, and no numbers but "
            "factor and original_context_length"
        )
    scaling = {"rope_type": kind, "factor": said.get("factor")}
    if "original_context_length" in said:
        scaling["original_max_position_embeddings"] = said["original_context_length"]
    return {"rope_scaling": scaling}


def write_scaling(config) -> dict | None:
    """The same, from a config; None for no scaling. Raises: ConversionError"""
    scaling = config.rope_scaling
    if not scaling:
        return None
    said = ("rope_type", "factor", "original_max_position_embeddings")
    if scaling["rope_type"] not in ("linear", "yarn") or not scaling.keys() <= {*said}:
        raise ConversionError(f"a GGUF cannot say rope_scaling = {scaling}; expected linear or yarn, with {said[1:]}")
    found = {"type": scaling["rope_type"], "factor": float(scaling["factor"])}
    if "original_max_position_embeddings" in scaling:
        found["original_context_length"] = scaling["original_max_position_embeddings"]
    return found


def decoder_style(arch: str, pre: str, **more: tuple[str, ...]) -> ConfigStyle:
    """The metadata of a decoder of Llama's kind. Whether the output layer is tied, its tensor says."""
    said = keys(
        arch,
        "layer_norm_rms_epsilon",
        num_key_value_heads=(f"{arch}.attention.head_count_kv",),
        attention_head_size=(f"{arch}.attention.key_length", f"{arch}.attention.value_length"),
        rope_theta=(f"{arch}.rope.freq_base",),
        rope_scaling=(),
        tie_word_embeddings=(),
        pad_token_id=(),
        attention_bias=(),
        mlp_bias=(),
        log_n=(),
        log_n_beyond=(),
        **more,
    )
    return ConfigStyle(
        "gelu_erf",
        said,
        {"tie_word_embeddings": True},
        {"model_type": arch, "tokenizer.ggml.pre": pre},
        composed=plain(arch, causal=True)
        | {
            f"{arch}.rope.scale_linear": (  # in older files
                lambda factor: {"rope_scaling": {"rope_type": "linear", "factor": factor}},
                lambda config: None,
            ),
            f"{arch}.rope.scaling": (read_scaling, write_scaling),
        },
        required={"hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False, "log_n": None},
        measured=("vocab_size",),
    )


LLAMA_STYLE = decoder_style("llama", "default")
QWEN2_STYLE = decoder_style("qwen2", "qwen2", **WINDOWS)
QWEN3_STYLE = decoder_style("qwen3", "qwen2", **WINDOWS)
