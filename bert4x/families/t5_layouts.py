"""How T5, mT5 and T5-PEGASUS are published: their config, the names of their tensors, their config files."""

import re
from dataclasses import dataclass, replace

from bert4x.activation_names import write_activation
from bert4x.checkpoints.spec import SAME, TRANSPOSED, Rule, Table
from bert4x.config import ConfigStyle
from bert4x.errors import ConfigError, UnknownArchitectureError
from bert4x.families.parts import SLOTS, TRAINING
from bert4x.families.transformer import EncoderDecoderConfig
from bert4x.json_files import shown

HEAD = "Decoder-Output-LM"


@dataclass(frozen=True, kw_only=True)
class T5Config(EncoderDecoderConfig):
    """With what tells the versions of T5 apart.

    `gated`: the feed-forward network is a gated linear unit (1.1, mT5). `tied_output`: the embedding table is the
    output layer, too (1.0). `scale_output`: what it multiplies is divided by the root of the hidden size; default: if
    it is tied. `cross_position_bias`: the decoder's biases are added in the attention to the source, too, as
    bert4keras does; default: not. `as_mt5`: its files are spelled as those of mT5. `decoder_start_token_id`: what
    targets begin with; default: the start token of the vocabulary, or else the padding.
    """

    gated: bool = False
    tied_output: bool = True
    scale_output: bool | None = None
    cross_position_bias: bool | None = None
    as_mt5: bool = False
    relative_buckets: int = 32
    relative_max_distance: int = 128
    max_position: int = 1 << 20  # no text is too long for biases

    def __post_init__(self):
        super().__post_init__()
        self.check_integer("relative_buckets", 4, 1 << 16)
        self.check_integer("relative_max_distance", self.relative_buckets // 2 + 1, 1 << 16)

    @property
    def scales_output(self) -> bool:
        """Whether the output layer's input is scaled."""
        return self.tied_output if self.scale_output is None else self.scale_output

    @property
    def is_mt5(self) -> bool:
        """Whether it computes what transformers' MT5 does, and is spelled as such."""
        return self.as_mt5 and self.gated and not self.scales_output

    @property
    def has_cross_position_bias(self) -> bool:
        """Whether biases are added in the attention to the source."""
        return bool(self.cross_position_bias)


BLOCK, CROSS = "{Encoder,Decoder}-Transformer-{i}-", "Decoder-Transformer-{i}-MultiHeadCrossAttention"
FIRST, SECOND = "{encoder,decoder}/block_{i:03d}/layer_000", "decoder/block_{i:03d}/layer_001"
LAST = "{encoder/block_{i:03d}/layer_001,decoder/block_{i:03d}/layer_002}"
FFN = Rule(f"{BLOCK}FeedForward/{{intermediate,output}}/kernel", f"{LAST}/DenseReluDense/{{wi,wo}}/kernel")
GATED_FFN = Rule(
    f"{BLOCK}FeedForward/{{gate,intermediate,output}}/kernel", f"{LAST}/DenseReluDense/{{wi_0,wi_1,wo}}/kernel"
)
RULES = (  # as Mesh TensorFlow names them
    Rule("Embedding-Token/embeddings", "shared/embedding"),
    Rule(
        "{Encoder,Decoder}-Embedding-Relative-Position/embeddings",
        "{encoder,decoder}/block_000/layer_000/SelfAttention/relative_attention_bias",
        TRANSPOSED,
    ),
    Rule(f"{BLOCK}MultiHeadSelfAttention/{{query,key,value,output}}/kernel", f"{FIRST}/SelfAttention/{{q,k,v,o}}"),
    Rule(f"{BLOCK}MultiHeadSelfAttention-Norm/gamma", f"{FIRST}/layer_norm/scale"),
    Rule(f"{CROSS}/{{query,key,value,output}}/kernel", f"{SECOND}/EncDecAttention/{{q,k,v,o}}"),
    Rule(f"{CROSS}-Norm/gamma", f"{SECOND}/layer_norm/scale"),
    FFN,
    Rule(f"{BLOCK}FeedForward-Norm/gamma", f"{LAST}/layer_norm/scale"),
    Rule("{Encoder,Decoder}-Output-Norm/gamma", "{encoder,decoder}/final_layer_norm/scale"),
    Rule(f"{HEAD}/kernel", "decoder/logits/kernel"),
)


def gated(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules of a gated feed-forward network."""
    return tuple(GATED_FFN if rule is FFN else rule for rule in rules)


def with_rms_norms(rule: Rule) -> Rule:
    """A rule as the names of mT5 and T5-PEGASUS are."""
    return replace(rule, theirs=re.sub("(final_)?layer_norm", "rms_norm", rule.theirs))


def of_transformers(rule: Rule) -> Rule:
    """A rule by the names of transformers, whose matrices are transposed, and whose biases are not."""
    name = rule.theirs.replace("shared/embedding", "shared").replace("decoder/logits", "lm_head")
    for here, there in (("block_000", "block.0"), ("block_{i:03d}", "block.{i}"), ("layer_00", "layer."), ("/", ".")):
        name = name.replace(here, there)
    name = f"{name.removesuffix('.kernel').removesuffix('.scale')}.weight"
    return Rule(rule.ours, name, TRANSPOSED if rule.ours.endswith("kernel") else SAME)


def architectures(prefix: str) -> tuple[tuple[frozenset[str], str], ...]:
    """The classes of transformers, of a whole model and of an encoder."""
    whole = frozenset({"decoder"}), f"{prefix}ForConditionalGeneration"
    return whole, (frozenset(), f"{prefix}EncoderModel")


MESH = Table(
    "tf1",
    "t5",
    RULES,
    backbone=r"(?:shared|encoder|decoder)/",
    ignored=(r"_slot_\w+$", r"EncDecAttention/relative_attention_bias$", *SLOTS),
    fits=lambda c: not c.gated,
)
MESH_GATED = replace(MESH, rules=gated(RULES), fits=lambda c: c.gated and not c.as_mt5)
MESH_MT5 = replace(MESH, rules=tuple(map(with_rms_norms, gated(RULES))), fits=lambda c: c.gated and c.as_mt5)
HF = Table(
    "hf",
    "t5",
    tuple(map(of_transformers, RULES)),
    backbone=r"(?:shared|encoder|decoder)\.",
    aliases=((r"(^|\.)(?:encoder|decoder)\.embed_tokens\.weight$", r"\1shared.weight"),),
    ignored=(r"EncDecAttention\.relative_attention_bias\.weight$", TRAINING),
    tied=("lm_head.weight",),
    architectures=architectures("T5"),
    fits=MESH.fits,
)
HF_GATED = replace(HF, rules=tuple(map(of_transformers, gated(RULES))), fits=lambda c: c.gated and not c.is_mt5)
HF_MT5 = replace(HF_GATED, architectures=architectures("MT5"), fits=lambda c: c.is_mt5)


def read_model_type(value) -> dict:
    """What it means that a config file is of a T5 or of an mT5, which never scales. Raises: UnknownArchitectureError"""
    if value not in ("t5", "mt5"):
        raise UnknownArchitectureError(f"config says model_type = {shown(value)}; expected 't5' or 'mt5'")
    return {"as_mt5": True, "scale_output": False} if value == "mt5" else {}


def read_projection(value) -> dict:
    """What feed_forward_proj means: "relu", "gated-gelu" ...; the gated gelu is the tanh form. Raises: ConfigError"""
    *gated, act = str(value).split("-")
    if gated not in ([], ["gated"]):
        raise ConfigError(f"config says feed_forward_proj = {shown(value)}; expected a name such as 'gated-gelu'")
    return {"hidden_act": "gelu_tanh" if gated and act == "gelu" else act, "gated": bool(gated)}


def write_projection(config) -> str:
    act = config.hidden_act
    if not config.gated:
        return write_activation(act, STYLES["hf"])
    return "gated-" + {"gelu_tanh": "gelu", "gelu_erf": "gelu_python"}.get(act, act)


def read_activations(value) -> dict:
    """What bert4keras' hidden_act means: one name, or a list with that of the gate and "linear". Raises: ConfigError"""
    if isinstance(value, list | tuple):
        if len(value) != 2 or value[1] != "linear":
            raise ConfigError(f'config says hidden_act = {shown(value)}; expected a name, or a list [name, "linear"]')
        return {"hidden_act": value[0], "gated": True}
    return {"hidden_act": value}


def write_activations(config) -> str | list[str]:
    act = write_activation(config.hidden_act, STYLES["tf1"])
    return [act, "linear"] if config.gated else act


def read_tied(value) -> dict:
    return {"tied_output": bool(value), "scale_output": bool(value)}


KEYS = {
    "hidden_size": ("d_model", "hidden_size"),
    "num_hidden_layers": ("num_layers", "num_hidden_layers"),
    "num_attention_heads": ("num_heads", "num_attention_heads"),
    "attention_head_size": ("d_kv", "attention_head_size"),
    "intermediate_size": ("d_ff", "intermediate_size"),
    "layer_norm_eps": ("layer_norm_epsilon", "layer_norm_eps"),
    "dropout_rate": ("dropout_rate", "hidden_dropout_prob"),
    "relative_buckets": ("relative_attention_num_buckets", "relative_buckets"),
    "relative_max_distance": ("relative_attention_max_distance", "relative_max_distance"),
    **dict.fromkeys(("max_position", "pad_token_id", "hidden_act", "gated"), ()),
}
OURS = {name: keys[::-1] for name, keys in KEYS.items()}  # bert4keras' names come first
OURS |= {name: KEYS[name] for name in ("relative_buckets", "relative_max_distance")}
OURS |= {name: (name,) for name in ("gated", "tied_output", "scale_output", "cross_position_bias")}
OURS |= {"attention_dropout_rate": ("attention_probs_dropout_prob", "attention_dropout_rate")}
DEFAULTS = {
    "layer_norm_eps": 1e-6,
    "hidden_act": "relu",
    "segment_vocab_size": 0,
    "pad_token_id": 0,
    "max_position": 1 << 20,
}
STYLES = {
    "tf1": ConfigStyle(
        "gelu_erf",
        OURS,
        DEFAULTS | {"tied_output": False},
        composed={"hidden_act": (read_activations, write_activations)},
    ),
    "hf": ConfigStyle(
        "gelu_erf",
        KEYS
        | dict.fromkeys(("tied_output", "scale_output", "cross_position_bias", "as_mt5", "initializer_range"), ())
        | {"attention_dropout_rate": (), "dropout_rate": (), "pad_token_id": ("pad_token_id",)},
        DEFAULTS | {"cross_position_bias": False, "scale_output": True, "attention_head_size": 64},
        composed={
            "feed_forward_proj": (read_projection, write_projection),
            "dropout_rate": (
                lambda value: {"dropout_rate": value, "attention_dropout_rate": value},
                lambda config: config.dropout_rate,
            ),
            "tie_word_embeddings": (read_tied, lambda config: config.tied_output),
            "scale_decoder_outputs": (
                lambda value: {"scale_output": bool(value)},
                lambda config: config.scales_output if config.scales_output != config.tied_output else None,
            ),
            "model_type": (read_model_type, lambda config: "mt5" if config.is_mt5 else "t5"),
            "is_encoder_decoder": (lambda value: {}, lambda config: True),
            # Where a file has these two, they count.
            "dense_act_fn": (lambda value: {"hidden_act": value}, lambda config: None),
            "is_gated_act": (lambda value: {"gated": value}, lambda config: None),
        },
        required={"has_cross_position_bias": False},
    ),
}
