"""A family outside of the package, as a user would write it: a BERT that also embeds token ids modulo a number."""

from dataclasses import dataclass
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import Rule
from bert4x.config import ConfigStyle, TransformerConfig
from bert4x.families import bert
from bert4x.families.parts import DEFAULTS, EMBEDDINGS, HEADS, KEYS, block

HASHED = "Embedding-Hashed"
OWN_KEYS = KEYS | {"buckets": ("hashing.buckets", "hash_buckets"), "hidden_act": ()}


@dataclass(frozen=True, kw_only=True)
class HashedConfig(TransformerConfig):
    """With the number of rows of the second table."""

    buckets: int = 5


class Hashed(bert.Bert):
    """Its config files say the activation as mT5's do, and the number of rows within an object."""

    model_name = "hashed"
    layer_classes = ((HASHED, "Embedding"), *bert.Bert.layer_classes)
    config_class = HashedConfig
    sizes: ClassVar = {"B": lambda c: c.buckets}
    variables = (*EMBEDDINGS, (f"{HASHED}/embeddings", "BH", None), *block("Transformer-{i}"), *HEADS)
    tables = (
        bert.GOOGLE.of(
            "hashed",
            names=("bert/", "hashed/"),
            rules=(Rule(f"{HASHED}/embeddings", "hashed/embeddings/hashed"),),
        ),
        bert.HF.of(
            "hashed",
            names=("bert.", "hashed."),
            classes=("Bert", "Hashed"),
            rules=(Rule(f"{HASHED}/embeddings", "hashed.embeddings.hashed.weight"),),
        ),
    )
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS),
        "hf": ConfigStyle(
            "gelu_erf",
            OWN_KEYS,
            DEFAULTS,
            labels={"model_type": "hashed"},
            composed={
                "activation": (
                    lambda value: {"hidden_act": value.removeprefix("plain-")},
                    lambda config: f"plain-{config.hidden_act}",
                )
            },
        ),
    }

    def embed(self, inputs, cache, index):
        h, context = super().embed(inputs, cache, index)
        table = self.layer(L.Embedding, HASHED, input_dim=self.config.buckets, output_dim=self.config.hidden_size)
        return self.add(f"{HASHED}-Add", h, table(L.ops.mod(inputs["token_ids"], self.config.buckets))), context
