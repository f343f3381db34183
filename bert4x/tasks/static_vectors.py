"""Sentence vectors of single tokens: the sum of the tokens' vectors, weighted by how rare they are.

Rare tokens count more, by a / (a + their share of all tokens), as in SIF (Arora et al. 2017, "A simple but
tough-to-beat baseline for sentence embeddings"), and the sums are whitened (kexue.fm/archives/8069). Nothing is
trained: the table of tokens of an encoder is enough, and texts to count tokens in, and to whiten by.
"""

from collections.abc import Sequence

import numpy as np

from bert4x import layers as L
from bert4x.errors import ConfigError, InputError
from bert4x.tasks import vectors as v
from bert4x.tasks.text import as_texts

RARITY = 1e-3  # a: a token with this share counts half
TABLE = "Embedding-Token/embeddings"


def static(encoder, texts: Sequence[str], dimensions: int | None = None):
    """See `bert4x.tasks.sentence_embedding.SentenceEmbedding.static`."""
    from bert4x.models.build import build_transformer_model

    words = token_vectors(encoder, texts, dimensions)
    size = words.shape[1]
    table, scale = of_one_length(words)
    model = build_transformer_model(
        model="bert", vocab_size=len(table), hidden_size=size + 2, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=size + 2, max_position=encoder.config.max_position, segment_vocab_size=2,
        hidden_act="gelu", pad_token_id=encoder.pad_id,
    )  # fmt: skip
    model.tokenizer = encoder.tokenizer
    for variable in model.variables:
        if variable.path == TABLE:
            variable.assign(table)
        elif variable.path.endswith("gamma"):
            variable.assign(np.full(variable.shape, scale))
        elif variable.path.startswith("Embedding") or "/output/" in variable.path:
            variable.assign(np.zeros(variable.shape))
    dense = {"kind": "dense", "units": size, "bias": False, "activation": "linear"}
    task = type(encoder)(model, "mean", [dense, {"kind": "normalize"}], maxlen=encoder.maxlen)
    task.head["Vector-Dense-0/kernel"].assign(np.eye(size + 2, size))
    return task


def token_vectors(encoder, texts: Sequence[str], dimensions: int | None) -> np.ndarray:
    """What each token adds to the vector of a text: centred, whitened, weighted. Special tokens add nothing; an unknown
    one, as it may be any, counts as little as the most frequent.

    Shape: -> (V, D)
    Raises: ConfigError for an export, InputError without texts.
    """
    table = next((value for value in getattr(encoder.backbone, "variables", ()) if value.path == TABLE), None)
    if table is None:
        raise ConfigError("this model has no table of tokens in memory, as an export; take what it was made of")
    table = L.ops.convert_to_numpy(table.value).astype("float32")
    _, texts = as_texts(texts)
    if not texts:
        raise InputError("no texts to count tokens in")
    rows = [np.array(row) for row in encoder.encoded(texts)]
    special, unknown = (ids_of(encoder.tokenizer, roles) for roles in (("pad", "start", "end", "mask"), ("unk",)))
    counts = np.bincount(np.concatenate(rows), minlength=len(table)).astype("float64")
    counts[special] = 0
    weights = RARITY / (RARITY + counts / counts.sum())
    weights[unknown] = weights.min()
    weights[special] = 0
    sums = np.stack([weights[row] @ table[row] / weights[row].sum() for row in rows])
    size = table.shape[1] - 2 if dimensions is None else dimensions  # `of_one_length` adds two numbers
    kernel, bias = v.whitening(sums, size)
    return weights[:, None] * (table @ kernel + bias)


def ids_of(tokenizer, roles: Sequence[str]) -> list[int]:
    """The ids of those special tokens that a vocabulary has."""
    found = [getattr(tokenizer, f"{role}_id", None) for role in roles]
    return [i for i in found if i is not None and i >= 0]


def of_one_length(words: np.ndarray) -> tuple[np.ndarray, float]:
    """The vectors with two numbers more, so that a norm (mean 0, variance 1, times the scale) leaves them as they are.

    Of the two numbers a and b, a + b takes the mean to 0, and a^2 + b^2 the length to that of all others.

    Shape: (V, D) -> (V, D + 2), and the scale
    """
    total, squares = words.sum(1), (words**2).sum(1)
    length = 1.01 * (squares + total**2 / 2).max()
    root = np.sqrt(2 * (length - squares) - total**2)
    words = np.concatenate([words, (root - total)[:, None] / 2, (-root - total)[:, None] / 2], axis=1)
    return words, float(np.sqrt(length / words.shape[1]))
