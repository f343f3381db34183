"""CPT: a deep encoder as BERT's, and a shallow decoder as BART's, which reads what the encoder gives before its last
blocks (Shao et al. 2021, arXiv 2109.05729). It was trained to fill masks and to write.
"""

from dataclasses import replace
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import Head, Rule
from bert4x.errors import ConfigError, ConversionError
from bert4x.families import bart, bert, register_family
from bert4x.families.parts import ANSWER_SCORES, EMBEDDINGS, HEADS, LABEL_SCORES, block, linear
from bert4x.json_files import shown

EPSILON = 1e-12  # of the encoder's norms; the decoder's have the config's
SEGMENT = 1  # of every token of a source
SHARED = "model.encoder.embeddings.word_embeddings.weight"
DROPOUT = "classifier_dropout", 0.0
ENCODER = (
    Rule("Embedding-Token/embeddings", SHARED),
    Rule(
        "Encoder-Embedding-{Segment,Position}/embeddings",
        "model.encoder.embeddings.{token_type,position}_embeddings.weight",
    ),
    Rule("Encoder-Embedding-Norm/{gamma,beta}", "model.encoder.embeddings.LayerNorm.{weight,bias}"),
    *(
        Rule(f"Encoder-{rule.ours}", rule.theirs.replace("bert.", "model.encoder.", 1), rule.layout)
        for rule in bert.HF.rules
        if rule.ours.startswith("Transformer-")
    ),
)
HF = replace(
    bart.HF,
    family="cpt",
    rules=(
        *ENCODER,
        *bart.rules_of("Decoder", "model.decoder"),
        *bart.cross_rules(),
        *linear("Pooler-Dense", "cls_head.dense"),
    ),
    aliases=((r"(^|\.)(?:shared|decoder\.embed_tokens)\.weight$", rf"\1{SHARED.removeprefix('model.')}"),),
    ignored=(r"encoder\.embeddings\.(?:position|token_type)_ids$", *bart.HF.ignored),
    heads=(
        Head(
            "text-classification",
            LABEL_SCORES,
            linear("Label-Scores", "cls_head.out_proj"),
            "CPTForSequenceClassification",
            settings={"pooler": True},
            labels="labels",
            dropout=DROPOUT,
        ),
        Head("reading-comprehension", ANSWER_SCORES, linear("Answer-Scores", "qa_outputs"), "CPTForQuestionAnswering"),
    ),
    architectures=((frozenset({"decoder"}), "CPTForConditionalGeneration"),),
)


def read_activation(value) -> dict:
    """What activation_function means: the decoder's; the encoder always has gelu. Raises: ConfigError"""
    if value != "gelu":
        raise ConfigError(f"config says activation_function = {shown(value)}; only 'gelu' is supported here")
    return {"hidden_act": "gelu_erf"}


def write_activation(config) -> str:
    """How a config file spells the decoder's. Raises: ConversionError for another encoder."""
    if config.hidden_act != "gelu_erf":
        raise ConversionError(f"this layout always has gelu_erf in the encoder; the model has {config.hidden_act}")
    return "gelu"


STYLE = replace(
    bart.STYLE,
    keys=bart.STYLE.keys | {"hidden_act": (), "normalize_embedding": ()},
    defaults=bart.STYLE.defaults | {"segment_vocab_size": 2},
    labels={"model_type": "bart", "architectures": ["CPTForConditionalGeneration"]},
    composed=bart.STYLE.composed | {"activation_function": (read_activation, write_activation)},
    required=bart.STYLE.required | {"cls_mode": 1},  # heads are on the encoder
)


@register_family
class Cpt(bart.Bart):
    """The encoder is post-norm with BERT's embeddings, in which every token is of segment 1. Its last blocks, as many
    as the decoder has, are for understanding alone: what writes reads the states before them.

    Applications: "seq2seq", without these blocks; "encoder" with them, whose outputs are the hidden states (B, S, D),
    or of the heads asked for: pooled (B, D) with `with_pool`, scores of masked tokens (B, S, V) with `with_mlm`.

    Raises: ConfigError for a decoder of as many blocks as the encoder, or more.
    """

    model_name = "cpt"
    options: ClassVar = bart.Bart.options | {"with_pool": False}
    layer_classes = ((r"Encoder-Embedding-Segment", "RowEmbedding"), *bart.Bart.layer_classes)
    unused: ClassVar = bart.Bart.unused | {
        "segment_vocab_size": lambda c: 2,
        "normalize_embedding": lambda c: True,
    }
    variables = (
        EMBEDDINGS[0],
        *((f"Encoder-{path}", shape, None) for path, shape, _ in EMBEDDINGS[1:5]),
        *block("Encoder-Transformer-{i}"),
        *bart.DECODER,
        *HEADS[4:6],
        bart.OUTPUT_BIAS,
    )
    tables = (HF,)
    styles: ClassVar = {"hf": STYLE}

    def __init__(self, config, application="seq2seq", **options):
        super().__init__(config, application, **options)
        self.check_fields(self.config, ("segment_vocab_size", "normalize_embedding"))
        if self.config.decoder_layers >= self.config.num_hidden_layers:
            raise ConfigError(
                f"a CPT of {self.config.num_hidden_layers} blocks whose decoder has {self.config.decoder_layers}; "
                "expected a decoder of fewer (num_decoder_layers)"
            )

    @classmethod
    def head_of(cls, path, head, config):
        """The blocks for understanding are a head: what only writes is saved without."""
        prefix, _, rest = path.partition("Encoder-Transformer-")
        number = rest.partition("-")[0]
        last = not prefix and number.isdigit() and int(number) >= config.num_hidden_layers - config.decoder_layers
        return "understanding" if last else head

    def check_heads(self):
        if self.application == "seq2seq" and self.with_pool:
            raise ConfigError("with_pool is for the application 'encoder'; leave it out, or load that")

    @property
    def encoder_layers(self):
        for_writing = self.config.decoder_layers if self.application == "seq2seq" else 0
        return self.config.num_hidden_layers - for_writing

    def norm_options(self, name):
        return super().norm_options(name) | ({"epsilon": EPSILON} if name.startswith("Encoder-") else {})

    def embed(self, side, h, *positions):
        if side == "Decoder":
            return super().embed(side, h, *positions)
        rows, stddev = self.config.segment_vocab_size, self.config.initializer_range
        h = self.layer(L.RowEmbedding, "Encoder-Embedding-Segment", rows=rows, row=SEGMENT, stddev=stddev)(h)
        h = self.position_table("Encoder-Embedding-Position", 0)(h)
        return self.dropout("Encoder-Embedding-Dropout", self.norm("Encoder-Embedding-Norm", h))

    def heads(self, h, last=False):
        outputs = []
        if self.with_pool:
            activation = "tanh" if self.with_pool is True else self.with_pool
            first = self.layer(L.FirstToken, "Pooler")(h)
            outputs.append(self.dense("Pooler-Dense", self.config.hidden_size, activation)(first))
        if self.with_mlm:
            outputs.append(self.language_model(h))
        return self.simplify(outputs or [h])
