"""T5 1.0 and 1.1, mT5 and T5-PEGASUS: an encoder and a decoder with biases of distances (Raffel et al. 2019, arXiv
1910.10683; Xue et al. 2020, arXiv 2010.11934; Su, kexue.fm/archives/8209). Their layouts are in `t5_layouts.py`.
"""

import functools
import itertools
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.checkpoint import same_values
from bert4x.families import register_family
from bert4x.families.parts import EMBEDDINGS
from bert4x.families.t5_layouts import HEAD, HF, HF_GATED, HF_MT5, MESH, MESH_GATED, MESH_MT5, STYLES, T5Config
from bert4x.families.transformer import Transformer

CONTEXT = "Input-Context"
PEGASUS_WORDS = 50000  # rows of T5-PEGASUS, which says nowhere what bert4keras, in which it was trained, does
MATRICES = {
    **dict.fromkeys(
        ("MultiHeadSelfAttention", "MultiHeadCrossAttention"),
        (("query", "HQ"), ("key", "HQ"), ("value", "HA"), ("output", "AH")),
    ),
    "FeedForward": (("gate", "HI"), ("intermediate", "HI"), ("output", "IH")),
}


def sublayers(side: str, *names: str) -> tuple:
    """The variables of sublayers of each block, in the order of the graph."""
    rows, head = [], "decoder" if side == "Decoder" else None
    for name in names:
        path = f"{side}-Transformer-{{i}}-{name}"
        rows += [(f"{path}-Norm/gamma", "H", head)]
        rows += [(f"{path}/{matrix}/kernel", shape, head) for matrix, shape in MATRICES[name]]
    return tuple(rows)


@register_family
class T5(Transformer):
    """Pre-norm by the root mean square, without biases in layers, and with one table of biases of distances for the
    encoder and one for the decoder. Scores of attention are not divided.

    Applications: "seq2seq"; "encoder", its hidden states alone; "decoder", which reads them: inputs `Input-Context`
    (B, S, D) and `token_ids` (B, T), all of the context is visible unless it has a Keras mask.

    Inputs and outputs of "seq2seq": those of `Transformer`. Options: `with_lm` is another name of `with_mlm`.
    """

    model_name = "t5"
    aliases = ("t5.1.0",)
    applications = ("seq2seq", "encoder", "decoder")
    causal = False
    norm_class = "RMSNorm"
    config_class = T5Config
    layer_classes = (
        (r".*-Relative-Position", "RelativeBias"),
        (r".*-Norm", "RMSNorm"),
        *Transformer.layer_classes,
    )
    options: ClassVar = {
        name: default for name, default in Transformer.options.items() if not name.startswith("bidirectional")
    } | {"with_lm": None}
    unused: ClassVar = Transformer.unused | {"residual_attention_scores": lambda c: False}
    sizes: ClassVar = {"R": lambda c: c.relative_buckets, "N": lambda c: c.num_attention_heads}
    absent: ClassVar = Transformer.absent | {
        HEAD: lambda c: c.tied_output,
        r".*-FeedForward/gate": lambda c: not c.gated,
    }
    variables = (
        EMBEDDINGS[0],
        ("Encoder-Embedding-Relative-Position/embeddings", "RN", None),
        *sublayers("Encoder", "MultiHeadSelfAttention", "FeedForward"),
        ("Decoder-Embedding-Relative-Position/embeddings", "RN", "decoder"),
        *sublayers("Decoder", "MultiHeadSelfAttention"),
        ("Encoder-Output-Norm/gamma", "H", None),  # where Keras puts it in its order
        *sublayers("Decoder", "MultiHeadCrossAttention", "FeedForward"),
        ("Decoder-Output-Norm/gamma", "H", "decoder"),
        (f"{HEAD}/kernel", "HV", "decoder"),
    )
    tables = (HF, HF_GATED, HF_MT5, MESH, MESH_GATED, MESH_MT5)
    styles: ClassVar = STYLES
    in_bert4keras: ClassVar = {"tied_output": True, "scale_output": True, "cross_position_bias": True}

    def __init__(self, config, application="seq2seq", with_lm=None, **options):
        if with_lm is not None:
            options["with_mlm"] = with_lm
        super().__init__(config, application, **options)
        self.with_lm = None
        self.check_fields(self.config, ("residual_attention_scores",))

    @classmethod
    def config_by_tensors(cls, config, table, held):
        tied = HEAD not in held or (config.tied_output and same_values(held[HEAD], held["Embedding-Token"]))
        changes = {"tied_output": tied}
        if table in (MESH, MESH_GATED, MESH_MT5):
            changes["as_mt5"] = table is MESH_MT5
        unsaid = config.scale_output is None and config.cross_position_bias is None
        if unsaid and not tied and config.vocab_size == PEGASUS_WORDS:
            changes |= {"scale_output": True, "cross_position_bias": True}
        return config.replace(**changes)

    def target_start(self, tokenizer):
        start = super().target_start(tokenizer)
        return self.config.pad_token_id if start is None else start

    def output_table(self):
        return super().output_table() if self.config.tied_output else None

    @functools.cached_property
    def encoder(self):
        """The Keras model of the encoder, over the same layers: (B, S) -> (B, S, D)."""
        return self.over_the_same_layers("encoder", with_mlm=False, name=f"{self.name or 'T5'}_Encoder").build().model

    @functools.cached_property
    def decoder(self):
        """The Keras model of the decoder, over the same layers: (B, S, D), (B, T) -> (B, T, V)."""
        return self.over_the_same_layers("decoder", name=f"{self.name or 'T5'}_Decoder").build().model

    def new_inputs(self):
        names = super().new_inputs()
        if self.application != "decoder":
            return names
        del names["target_ids"]
        return {CONTEXT: L.Input((None, self.config.hidden_size), name=self.prefix + CONTEXT)} | names

    def forward(self, inputs, cache=None, index=0, last=False):
        if self.application != "decoder":
            return super().forward(inputs, cache, index, last)
        context = inputs[CONTEXT]
        visible = self.visibility(context, {"token_ids": context[..., 0]}, "source")
        sources, target = [context] * self.config.decoder_layers, {"target_ids": inputs["token_ids"]}
        outputs, shared = self.decode(target, sources, visible, None, index, last)
        return shared.result(outputs, cross=shared.cross_weights) if self.return_attentions else outputs

    def embed(self, side, h, *positions):
        return self.dropout(f"{side}-Embedding-Dropout", h)

    def add_biases(self, side, h, context, source=None):
        c = self.config
        layer = self.layer(
            L.RelativeBias,
            f"{side}-Embedding-Relative-Position",
            heads=c.num_attention_heads,
            buckets=c.relative_buckets,
            max_distance=c.relative_max_distance,
            bidirectional=side == "Encoder",
            stddev=c.initializer_range,
        )
        places = {"query_positions": context.query_positions, "key_positions": context.key_positions}
        places = {name: value for name, value in places.items() if value is not None}
        context.bias = layer(h, **places)
        if source is not None and c.has_cross_position_bias:
            keys = source[0][:, 0] if isinstance(source, tuple) else source  # of a cache: keys and values
            places.pop("key_positions", None)
            context.cross_bias = layer(h, **places, keys=keys)

    def attention_options(self):
        return super().attention_options() | {"use_bias": False, "scale": 1.0}

    def feed_forward_options(self):
        return super().feed_forward_options() | {"use_bias": False, "gated": self.config.gated}

    def sublayer(self, name, h, compute):
        y = self.dropout(f"{name}-Dropout", compute(self.norm(f"{name}-Norm", h)))
        return self.add(f"{name}-Add", h, y)

    def finish(self, side, h):
        return self.dropout(f"{side}-Output-Dropout", self.norm(f"{side}-Output-Norm", h))

    def language_model(self, h):
        c = self.config
        if c.scales_output:
            h = self.layer(L.Scale, "Decoder-Output-Scale", factor=c.hidden_size**-0.5)(h)
        if c.tied_output:
            return super().language_model(h)
        start = L.initializer(c.initializer_range)
        h = self.layer(L.Dense, HEAD, units=c.vocab_size, use_bias=False, kernel_initializer=start)(h)
        return self.scores("LM-Activation", h)


UNTIED = {"tied_output": False}
VERSIONS = {"t5": {}, "t5.1.1": UNTIED, "mt5.1.1": UNTIED | {"as_mt5": True}}
PARTS = {"": T5.applications, "_encoder": ("encoder",), "_decoder": ("decoder",)}
for version, part in itertools.product(VERSIONS, PARTS):  # bert4keras' other names
    if version + part != T5.model_name:
        attributes = {
            "model_name": version + part,
            "aliases": ("t5.1.0" + part,) if version == "t5" else (),
            "applications": PARTS[part],
            "in_bert4keras": T5.in_bert4keras | VERSIONS[version],
        }
        register_family(type(f"T5 {version}{part}", (T5,), attributes))
