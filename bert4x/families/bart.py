"""BART: an encoder and a decoder, trained to write what noise had changed (Lewis et al. 2019, arXiv 1910.13461). The
Chinese ones are fnlp's (Shao et al. 2021, arXiv 2109.05729), with a vocabulary as BERT's.
"""

from dataclasses import dataclass
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import Layout, Rule, Table
from bert4x.config import ConfigStyle
from bert4x.errors import ConfigError
from bert4x.families import register_family
from bert4x.families.parts import EMBEDDINGS, TRAINING, block, linear
from bert4x.families.transformer import EncoderDecoderConfig, Transformer, decoder_block
from bert4x.json_files import shown

FIRST = 2  # the row of position 0: fairseq keeps those up to the padding id's for other uses
FORCED = ("forced_bos_token_id", "forced_eos_token_id")  # written always: transformers has a default for the last
OF_DECODER = ("decoder_attention_heads", "decoder_ffn_dim")  # keys, of sizes that both sides share here


@dataclass(frozen=True, kw_only=True)
class BartConfig(EncoderDecoderConfig):
    """With what BARTs differ in. Dropout of activations and of whole layers, in training, is not applied.

    `scale_embedding`: embeddings of tokens are multiplied by the root of the hidden size. `normalize_embedding`: the
    sum of embeddings is normalised. `output_bias`: scores of tokens have a bias. `forced_bos_token_id`,
    `forced_eos_token_id`: the first and the last token that `generate` writes, unless it is given `forced_ids`.
    `decoder_attention_heads`, `decoder_ffn_dim`: None, or as many as the encoder has.
    """

    scale_embedding: bool = False
    normalize_embedding: bool = True
    output_bias: bool = True
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    decoder_attention_heads: int | None = None
    decoder_ffn_dim: int | None = None
    token_ids: ClassVar = (*EncoderDecoderConfig.token_ids, *FORCED)
    nullable: ClassVar = (*EncoderDecoderConfig.nullable, *FORCED)

    def __post_init__(self):
        super().__post_init__()
        for name, size in zip(OF_DECODER, (self.num_attention_heads, self.intermediate_size), strict=True):
            if getattr(self, name) not in (None, size):
                raise ConfigError(f"config says {name} = {shown(getattr(self, name))}; expected the encoder's, {size}")
            object.__setattr__(self, name, None)  # it follows the encoder's


def rules_of(side: str, theirs: str) -> tuple[Rule, ...]:
    """The rules of embeddings and blocks that begin with these names; one side, or both as alternatives."""
    ours, layer, attention = f"{side}-Transformer-{{i}}-", f"{theirs}.layers.{{i}}.", "MultiHeadSelfAttention"
    parts, projections = "{query,key,value,output}", "{q_proj,k_proj,v_proj,out_proj}"
    return (
        Rule(f"{side}-Embedding-Position/embeddings", f"{theirs}.embed_positions.weight"),
        Rule(f"{side}-Embedding-Norm/{{gamma,beta}}", f"{theirs}.layernorm_embedding.{{weight,bias}}"),
        *linear(f"{ours}{attention}/{parts}", f"{layer}self_attn.{projections}"),
        Rule(f"{ours}{attention}-Norm/{{gamma,beta}}", f"{layer}self_attn_layer_norm.{{weight,bias}}"),
        *linear(f"{ours}FeedForward/{{intermediate,output}}", f"{layer}{{fc1,fc2}}"),
        Rule(f"{ours}FeedForward-Norm/{{gamma,beta}}", f"{layer}final_layer_norm.{{weight,bias}}"),
    )


def cross_rules() -> tuple[Rule, ...]:
    """The rules of attention to the source, and of the bias of scores: what an encoder has not."""
    rows = (rule for rule in rules_of("Decoder", "model.decoder") if "Self" in rule.ours)
    cross = (
        Rule(rule.ours.replace("Self", "Cross"), rule.theirs.replace("self_attn", "encoder_attn"), rule.layout)
        for rule in rows
    )
    return (*cross, Rule("MLM-Bias/bias", "final_logits_bias", Layout(lead=True)))


def side_variables(side: str, rows: tuple, head: str | None = None) -> tuple:
    """The variables of a side: its embeddings, then the rows of a block."""
    embeddings = (("Position/embeddings", "RE"), ("Norm/gamma", "E"), ("Norm/beta", "E"))
    rows = tuple((path, shape, head) for path, shape, _ in rows)
    return (*((f"{side}-Embedding-{path}", shape, head) for path, shape in embeddings), *rows)


DECODER = side_variables("Decoder", decoder_block("Decoder-Transformer-{i}"), "decoder")
OUTPUT_BIAS = ("MLM-Bias/bias", "V", "mlm")
HF = Table(
    "hf",
    "bart",
    rules=(
        Rule("Embedding-Token/embeddings", "model.shared.weight"),
        *rules_of("{Encoder,Decoder}", "model.{encoder,decoder}"),
        *cross_rules(),
    ),
    backbone=r"model\.",
    aliases=((r"(^|\.)(?:encoder|decoder)\.embed_tokens\.weight$", r"\1shared.weight"),),
    ignored=(r"(?:encoder|decoder)\.version$", TRAINING),
    tied=("lm_head.weight",),
    architectures=(
        (frozenset({"decoder", "mlm"}), "BartForConditionalGeneration"),
        (frozenset({"decoder"}), "BartModel"),
    ),
)
DEFAULTS = {
    "max_position": 1024,
    "attention_dropout_rate": 0.0,
    "layer_norm_eps": 1e-5,
    "segment_vocab_size": 0,
    "pad_token_id": 1,
}
STYLE = ConfigStyle(
    "gelu_erf",
    {
        "hidden_size": ("d_model", "hidden_size"),
        "num_hidden_layers": ("encoder_layers", "num_hidden_layers"),
        "num_attention_heads": ("encoder_attention_heads", "num_attention_heads"),
        "intermediate_size": ("encoder_ffn_dim", "intermediate_size"),
        "hidden_act": ("activation_function", "hidden_act"),
        "dropout_rate": ("dropout",),
        "attention_dropout_rate": ("attention_dropout",),
        "initializer_range": ("init_std",),
        "max_position": ("max_position_embeddings",),
        **{name: (name,) for name in FORCED},
        **dict.fromkeys(("layer_norm_eps", "segment_vocab_size", "output_bias", "num_decoder_layers", *OF_DECODER), ()),
    },
    DEFAULTS,
    labels={"model_type": "bart", "architectures": ["BartForConditionalGeneration"]},
    composed={
        "decoder_attention_heads": (
            lambda value: {"decoder_attention_heads": value},
            lambda config: config.num_attention_heads,
        ),
        "decoder_ffn_dim": (lambda value: {"decoder_ffn_dim": value}, lambda config: config.intermediate_size),
        "decoder_layers": (lambda value: {"num_decoder_layers": value}, lambda config: config.decoder_layers),
        "is_encoder_decoder": (lambda value: {}, lambda config: True),
    },
    required={
        "layer_norm_eps": 1e-5,
        "normalize_before": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": False,
        "tie_word_embeddings": True,
    },
)


@register_family
class Bart(Transformer):
    """Post-norm, with a table of positions for each side, and one table of tokens for both and for the output.

    Applications: "seq2seq"; "encoder", its hidden states alone.

    Inputs and outputs of "seq2seq": those of `Transformer`.
    """

    model_name = "bart"
    applications = ("seq2seq", "encoder")
    causal = False
    config_class = BartConfig
    layer_classes = ((r"(Encoder|Decoder)-Embedding-Position", "PositionEmbedding"), *Transformer.layer_classes)
    unused: ClassVar = {name: only for name, only in Transformer.unused.items() if name != "hierarchical_position"}
    sizes: ClassVar = {"R": lambda c: c.max_position + FIRST}
    absent: ClassVar = Transformer.absent | {
        "(Encoder|Decoder)-Embedding-Norm/": lambda c: not c.normalize_embedding,
        "MLM-Bias/": lambda c: not c.output_bias,
    }
    variables = (
        EMBEDDINGS[0],
        *side_variables("Encoder", block("Encoder-Transformer-{i}")),
        *DECODER,
        OUTPUT_BIAS,
    )
    tables = (HF,)
    styles: ClassVar = {"hf": STYLE}

    @classmethod
    def config_by_tensors(cls, config, table, held):
        """Transformers normalises embeddings whatever the file says, if it has the norms, and needs no bias; of a bias
        an encoder alone tells nothing.
        """
        norms = any(layer.endswith("-Embedding-Norm") for layer in held)
        bias = "MLM-Bias" in held or not any(layer.startswith("Decoder-") for layer in held)
        return config.replace(normalize_embedding=norms, output_bias=bias)

    def forced_ids(self, length):
        first, last = self.config.forced_bos_token_id, self.config.forced_eos_token_id
        forced = {} if first is None or (length == 1 and last is not None) else {0: first}
        return forced if last is None else forced | {-1: last}

    def embed(self, side, h, *positions):
        """The sum of a token's and a position's embedding, normalised."""
        if self.config.scale_embedding:
            h = self.layer(L.Scale, f"{side}-Embedding-Scale", factor=self.config.hidden_size**0.5)(h)
        h = self.position_table(f"{side}-Embedding-Position", FIRST)(h, *positions)
        if self.config.normalize_embedding:
            h = self.norm(f"{side}-Embedding-Norm", h)
        return self.dropout(f"{side}-Embedding-Dropout", h)

    def language_model(self, h):
        h = self.token_embedding(masks_padding=True)(h, reverse=True)
        if self.config.output_bias:
            h = self.layer(L.Bias, "MLM-Bias")(h)
        return self.scores("LM-Activation", h)
