"""The variables of the plain encoder-decoder; there is no published layout of it, only our own."""

from bert4x.checkpoints.spec import Family
from bert4x.checkpoints.tables import bert
from bert4x.config import ConfigStyle


def cross_attention(prefix: str) -> tuple:
    """The variables of the decoder's attention to the source, and of the norm after it."""
    rows = bert.block(prefix)
    return tuple((path.replace("Self", "Cross"), *rest) for path, *rest in rows if "Self" in path)


def decoder_block(prefix: str) -> tuple:
    """The variables of one block of the decoder, in the order of the graph."""
    rows = bert.block(prefix)
    attention = tuple(row for row in rows if "Self" in row[0])
    return attention + cross_attention(prefix) + rows[len(attention) :]


STYLE = ConfigStyle(
    "gelu_erf",
    defaults={"hidden_act": "relu", "layer_norm_eps": 1e-6, "segment_vocab_size": 0, "pad_token_id": 0},
)

FAMILIES = (
    Family(
        "transformer",
        variables=(
            bert.EMBEDDINGS[0],
            *bert.block("Encoder-Transformer-{i}"),
            *decoder_block("Decoder-Transformer-{i}"),
        ),
        styles={"tf1": STYLE, "hf": STYLE},
    ),
)
