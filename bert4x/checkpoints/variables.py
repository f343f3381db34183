"""Every variable of every family: what a checkpoint must hold, known without building a model."""

from bert4x.config import TransformerConfig
from bert4x.errors import UnknownArchitectureError

# V vocabulary, E embedding, H hidden, I intermediate, S segments, P positions, Q heads * key size, A heads * head size.
# The last column is the head a variable belongs to: published files may lack it.
EMBEDDINGS = [
    ("Embedding-Token/embeddings", "VE", None),
    ("Embedding-Segment/embeddings", "SE", None),
    ("Embedding-Position/embeddings", "PE", None),
    ("Embedding-Norm/gamma", "E", None),
    ("Embedding-Norm/beta", "E", None),
    ("Embedding-Mapping/kernel", "EH", None),
    ("Embedding-Mapping/bias", "H", None),
]
BLOCK = [
    ("MultiHeadSelfAttention/query/kernel", "HQ"),
    ("MultiHeadSelfAttention/query/bias", "Q"),
    ("MultiHeadSelfAttention/key/kernel", "HQ"),
    ("MultiHeadSelfAttention/key/bias", "Q"),
    ("MultiHeadSelfAttention/value/kernel", "HA"),
    ("MultiHeadSelfAttention/value/bias", "A"),
    ("MultiHeadSelfAttention/output/kernel", "AH"),
    ("MultiHeadSelfAttention/output/bias", "H"),
    ("MultiHeadSelfAttention-Norm/gamma", "H"),
    ("MultiHeadSelfAttention-Norm/beta", "H"),
    ("FeedForward/intermediate/kernel", "HI"),
    ("FeedForward/intermediate/bias", "I"),
    ("FeedForward/output/kernel", "IH"),
    ("FeedForward/output/bias", "H"),
    ("FeedForward-Norm/gamma", "H"),
    ("FeedForward-Norm/beta", "H"),
]
HEADS = [  # in the order in which Keras sorts their layers; where a class has several, .weights.h5 numbers them by it
    ("MLM-Dense/kernel", "HE", "mlm"),
    ("MLM-Dense/bias", "E", "mlm"),
    ("MLM-Norm/gamma", "E", "mlm"),
    ("MLM-Norm/beta", "E", "mlm"),
    ("Pooler-Dense/kernel", "HH", "pool"),
    ("Pooler-Dense/bias", "H", "pool"),
    ("MLM-Bias/bias", "V", "mlm"),
    ("NSP-Proba/kernel", "H2", "nsp"),
    ("NSP-Proba/bias", "2", "nsp"),
]
GPT2_EMBEDDINGS = [EMBEDDINGS[0], EMBEDDINGS[2]]
GPT2_BLOCK = [*BLOCK[8:10], *BLOCK[:8], *BLOCK[14:], *BLOCK[10:14]]  # the norms come first
GPT2_OUTPUT = [("Output-Norm/gamma", "H", None), ("Output-Norm/beta", "H", None)]


def variables(config: TransformerConfig) -> dict[str, tuple[tuple[int, ...], str | None]]:
    """Path -> (shape, head or None) of all variables a model of this config can have.

    Raises: UnknownArchitectureError for a family without checkpoints here.
    """
    c = config
    blocks = {
        "bert": [f"Transformer-{i}" for i in range(c.num_hidden_layers)],
        "albert": ["Transformer"],
    }
    blocks["gpt2"] = blocks["albert_unshared"] = blocks["bert"]
    if c.model not in blocks:
        raise UnknownArchitectureError(f"no checkpoints of family {c.model!r}; known: {', '.join(blocks)}")
    gpt2 = GPT2_EMBEDDINGS, GPT2_BLOCK, GPT2_OUTPUT
    embeddings, block_rows, output = gpt2 if c.model == "gpt2" else (EMBEDDINGS, BLOCK, HEADS)
    rows = [
        *embeddings,
        *((f"{block}-{name}", shape, None) for block in blocks[c.model] for name, shape in block_rows),
        *output,
    ]
    size = {
        "V": c.vocab_size,
        "E": c.embedding_size,
        "H": c.hidden_size,
        "I": c.intermediate_size,
        "S": c.segment_vocab_size,
        "P": c.max_position,
        "Q": c.num_attention_heads * c.attention_key_size,
        "A": c.num_attention_heads * c.attention_head_size,
        "2": 2,
    }
    absent = {
        "Embedding-Segment": not c.segment_vocab_size,
        "Embedding-Mapping": not c.embedding_mapping,
    }
    return {
        path: (tuple(size[symbol] for symbol in shape), head)
        for path, shape, head in rows
        if not absent.get(path.split("/")[0])
    }
