"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): a BERT that tells which tokens were replaced, the discriminator; and
the small BERT that replaced them, the generator.
"""

from dataclasses import replace
from typing import ClassVar

from bert4x.checkpoints.spec import Rule
from bert4x.config import ConfigStyle
from bert4x.errors import ConfigError
from bert4x.families import bert, parts, register_family
from bert4x.families.parts import DEFAULTS, DROPOUT, EMBEDDINGS, HEADS, KEYS, block, hf_heads, linear

NOT_BERTS = ("Embedding-Mapping", "Pooler", "NSP", "MLM")
DISCRIMINATOR = "discriminator_predictions"

GOOGLE = replace(
    bert.GOOGLE.of(
        "electra",
        names=("bert/", "electra/"),
        without=NOT_BERTS,
        rules=(
            Rule("Embedding-Mapping/{kernel,bias}", "electra/embeddings_project/{kernel,bias}"),
            Rule("Discriminator-{Dense,Prediction}/{kernel,bias}", DISCRIMINATOR + "/{dense,dense_1}/{kernel,bias}"),
        ),
    ),
    heads=(),
    lacks=("mlm",),  # a generator lies in the file of its discriminator, whose embeddings it uses; it is left aside
    remnants=(r"^generator/", r"^generator_predictions/"),
)
text, *others = hf_heads("Electra", DROPOUT)
HF = replace(
    bert.HF.of(
        "electra",
        names=("bert.", "electra."),
        without=NOT_BERTS,
        rules=(
            *linear("Embedding-Mapping", "electra.embeddings_project"),
            *linear("MLM-Dense", "generator_predictions.dense"),
            Rule("MLM-Norm/{gamma,beta}", "generator_predictions.LayerNorm.{weight,bias}"),
            Rule("MLM-Bias/bias", "generator_lm_head.bias"),
            *linear("Discriminator-Dense", DISCRIMINATOR + ".dense"),
            *linear("Discriminator-Prediction", DISCRIMINATOR + ".dense_prediction"),
        ),
    ),
    tied=("generator_lm_head.weight",),
    heads=(parts.on_hidden_layer(text, "gelu_erf"), *others),
    architectures=(
        (frozenset({"discriminator"}), "ElectraForPreTraining"),
        (frozenset({"mlm"}), "ElectraForMaskedLM"),
        (frozenset(), "ElectraModel"),
    ),
)


@register_family
class Electra(bert.Bert):
    """A discriminator or a generator, which differ in their heads.

    Outputs: the hidden states (B, T, D); or of the heads asked for, in this order: with `with_discriminator` whether
    each token was replaced (B, T, 1), then masked language model (B, T, V).
    """

    model_name = "electra"
    sizes: ClassVar = {"1": lambda c: 1}
    variables = (
        *EMBEDDINGS,
        *block("Transformer-{i}"),
        *(row for row in HEADS if row[2] == "mlm"),
        ("Discriminator-Dense/kernel", "HH", "discriminator"),
        ("Discriminator-Dense/bias", "H", "discriminator"),
        ("Discriminator-Prediction/kernel", "H1", "discriminator"),
        ("Discriminator-Prediction/bias", "1", "discriminator"),
    )
    tables = (GOOGLE, HF)
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS, labels={"model_type": "electra"}),
        "hf": parts.hf_style("electra", "ElectraForPreTraining", defaults=DEFAULTS | {"embedding_size": 128}),
    }
    options: ClassVar = parts.options_without(bert.Bert.options, "with_nsp", "with_pool") | {
        "with_discriminator": False
    }

    @classmethod
    def config_by_tensors(cls, config, table, held):
        """Raises: ConfigError for a generator of transformers' with another activation, which its output ignores."""
        if table is HF and "MLM-Dense" in held and config.hidden_act != "gelu_erf":
            raise ConfigError(
                f"config says hidden_act = {config.hidden_act}; a generator's output always has gelu there, and here "
                "what the config says: only 'gelu' is supported"
            )
        return config

    @classmethod
    def config_without_file(cls, tensors):
        """That of the published checkpoints, by the shapes of their tensors: all have heads of 64 features."""
        words, inner = (
            tensors.get(f"electra/{name}")
            for name in ("embeddings/word_embeddings", "encoder/layer_0/intermediate/dense/kernel")
        )
        if words is None or inner is None or inner.shape[0] % 64:
            return None
        return {
            "vocab_size": words.shape[0],
            "embedding_size": words.shape[1],
            "hidden_size": inner.shape[0],
            "intermediate_size": inner.shape[1],
            "num_attention_heads": inner.shape[0] // 64,
            "num_hidden_layers": sum(
                name.endswith("/query/kernel") and name.startswith("electra/") for name in tensors
            ),
        }

    def heads(self, h, last=False):
        outputs = []
        if self.with_discriminator:
            activation = "sigmoid" if self.with_discriminator is True else self.with_discriminator
            d = self.dense("Discriminator-Dense", self.config.hidden_size, self.config.hidden_act)(h)
            outputs.append(self.dense("Discriminator-Prediction", 1, activation)(d))
        if self.with_mlm:
            outputs.append(self.masked_language_model(h, last))
        return self.simplify(outputs or [h])
