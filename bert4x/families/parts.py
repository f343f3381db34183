"""The pieces of tables that several families are put together from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bert4x.checkpoints.spec import TRANSPOSED, Head, Rule
from bert4x.config import ConfigStyle

# The names of a block's two parts, in rules.
ATTENTION, FFN = "Transformer-{i}-MultiHeadSelfAttention", "Transformer-{i}-FeedForward"
EMBEDDINGS = (
    ("Embedding-Token/embeddings", "VE", None),
    ("Embedding-Segment/embeddings", "SE", None),
    ("Embedding-Position/embeddings", "PE", None),
    ("Embedding-Norm/gamma", "E", None),
    ("Embedding-Norm/beta", "E", None),
    ("Embedding-Mapping/kernel", "EH", None),
    ("Embedding-Mapping/bias", "H", None),
)
# In the order in which Keras sorts their layers; .weights.h5 numbers the layers of a class by it.
HEADS = (
    ("MLM-Dense/kernel", "HE", "mlm"),
    ("MLM-Dense/bias", "E", "mlm"),
    ("MLM-Norm/gamma", "E", "mlm"),
    ("MLM-Norm/beta", "E", "mlm"),
    ("Pooler-Dense/kernel", "HH", "pool"),
    ("Pooler-Dense/bias", "H", "pool"),
    ("MLM-Bias/bias", "V", "mlm"),
    ("NSP-Proba/kernel", "H2", "nsp"),
    ("NSP-Proba/bias", "2", "nsp"),
)

# Fields of the config that say nothing where embeddings have the hidden size.
NO_MAPPING = {"embedding_size": lambda c: c.hidden_size, "embedding_mapping": lambda c: False}


def options_without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """The options of a builder but some."""
    return {name: default for name, default in options.items() if name not in names}


def block(prefix: str, norm_first: bool = False) -> tuple:
    """The variables of one Transformer block, in the order of the graph."""
    attention = (
        ("MultiHeadSelfAttention/query/kernel", "HQ"),
        ("MultiHeadSelfAttention/query/bias", "Q"),
        ("MultiHeadSelfAttention/key/kernel", "HQ"),
        ("MultiHeadSelfAttention/key/bias", "Q"),
        ("MultiHeadSelfAttention/value/kernel", "HA"),
        ("MultiHeadSelfAttention/value/bias", "A"),
        ("MultiHeadSelfAttention/output/kernel", "AH"),
        ("MultiHeadSelfAttention/output/bias", "H"),
    )
    ffn = (
        ("FeedForward/intermediate/kernel", "HI"),
        ("FeedForward/intermediate/bias", "I"),
        ("FeedForward/output/kernel", "IH"),
        ("FeedForward/output/bias", "H"),
    )
    rows = ()
    for name, part in (("MultiHeadSelfAttention", attention), ("FeedForward", ffn)):
        norm = ((f"{name}-Norm/gamma", "H"), (f"{name}-Norm/beta", "H"))
        rows += norm + part if norm_first else part + norm
    return tuple((f"{prefix}-{name}", shape, None) for name, shape in rows)


# Optimizer slots and counters that training leaves in TensorFlow checkpoints.
SLOTS = (
    r"/(adam|lamb)_[mv]$",
    r"/(Adam|LAMB)(_1)?$",
    r"^global_step",
    r"_power$",
    r"^(good_steps|loss_scale)",
)

TRAINING = r"^(?:optimizer|lr_scheduler|scheduler|scaler|callbacks|loops)\w*\."  # what PyTorch's frameworks leave

# The variables of tasks that heads are.
LABEL_SCORES = (("Label-Scores/kernel", "HL"), ("Label-Scores/bias", "L"))
LABEL_HIDDEN = (("Label-Hidden/kernel", "HH"), ("Label-Hidden/bias", "H"))
ENTITY_TAGS = (("Entity-Tags/kernel", "HL"), ("Entity-Tags/bias", "L"))
SPANS = (("Span-Start/kernel", "H1"), ("Span-Start/bias", "1"), ("Span-End/kernel", "H1"), ("Span-End/bias", "1"))
ANSWER_SCORES = (("Answer-Scores/kernel", "H2"), ("Answer-Scores/bias", "2"))


def google_rules(layer: str, prefix: str) -> tuple[Rule, ...]:
    """A head as run_classifier.py and run_squad.py of Google's BERT name it."""
    return Rule(f"{layer}/kernel", f"{prefix}output_weights", TRANSPOSED), Rule(f"{layer}/bias", f"{prefix}output_bias")


def linear(layer: str, theirs: str) -> tuple[Rule, ...]:
    """A linear layer of PyTorch's."""
    return Rule(f"{layer}/kernel", f"{theirs}.weight", TRANSPOSED), Rule(f"{layer}/bias", f"{theirs}.bias")


Dropout = tuple[str, float | None]  # as in `Head`
DROPOUT = "classifier_dropout", None


def google_heads(dropout: Dropout) -> tuple[Head, ...]:
    """The heads of Google's scripts."""
    return (
        Head(
            "text-classification",
            LABEL_SCORES,
            google_rules("Label-Scores", ""),
            settings={"pooler": True},
            labels="labels",
            dropout=dropout,
        ),
        Head("reading-comprehension", ANSWER_SCORES, google_rules("Answer-Scores", "cls/squad/")),
    )


# Of PaddleNLP's UIE, as conversions to PyTorch name it; what the config calls the class, they have made up.
UIE = Head(
    "universal-extraction",
    SPANS,
    (*linear("Span-Start", "linear_start"), *linear("Span-End", "linear_end")),
    "UIE",
)


def hf_heads(prefix: str, dropout: Dropout) -> tuple[Head, ...]:
    """The heads of transformers' classes that begin with `prefix`."""
    return (
        Head(
            "text-classification",
            LABEL_SCORES,
            linear("Label-Scores", "classifier"),
            f"{prefix}ForSequenceClassification",
            settings={"pooler": True},
            labels="labels",
            dropout=dropout,
        ),
        Head(
            "token-classification",
            ENTITY_TAGS,
            linear("Entity-Tags", "classifier"),
            f"{prefix}ForTokenClassification",
            settings={"method": "softmax"},
            labels="tags",
            dropout=dropout,
        ),
        Head(
            "reading-comprehension",
            ANSWER_SCORES,
            linear("Answer-Scores", "qa_outputs"),
            f"{prefix}ForQuestionAnswering",
        ),
        UIE,
    )


def decoder_heads(prefix: str, tags: str = "score", reader: tuple[str, str] | None = None) -> tuple[Head, ...]:
    """The heads of transformers' decoders whose classes begin with `prefix`: for texts on the last token, without bias.

    Args:
        tags: the layer of the tags of tokens.
        reader: how the names of the model itself begin elsewhere, and where it answers questions.
    """
    scores, dropout = (Rule("Label-Scores/kernel", "score.weight", TRANSPOSED),), ("classifier_dropout", 0.1)
    text = Head("text-classification", LABEL_SCORES[:1], scores, f"{prefix}ForSequenceClassification", labels="labels")
    _, token, answer, _ = hf_heads(prefix, dropout)
    return text, replace(token, rules=linear("Entity-Tags", tags)), replace(answer, names=reader)


def on_hidden_layer(head: Head, activation: str | Callable) -> Head:
    """A classifier with a dense layer of its own instead of the pooler; `activation`, or what gives it of a config."""
    return replace(
        head,
        variables=LABEL_HIDDEN + LABEL_SCORES,
        rules=(*linear("Label-Hidden", "classifier.dense"), *linear("Label-Scores", "classifier.out_proj")),
        settings={"pooler": False, "hidden_act": activation},
    )


ABSOLUTE = {"position_embedding_type": "absolute", "add_cross_attention": False}
KEYS = {
    "max_position": ("max_position_embeddings", "max_position"),
    "segment_vocab_size": ("type_vocab_size", "segment_vocab_size"),
    "dropout_rate": ("hidden_dropout_prob", "dropout_rate"),
    "attention_dropout_rate": ("attention_probs_dropout_prob", "attention_dropout_rate"),
    # Not read: one other than 0 is a mistake of the file (hfl's RoBERTa-wwm says 1). The vocabulary decides.
    "pad_token_id": (),
}
DEFAULTS = {"pad_token_id": 0}


def hf_style(
    model_type: str, architecture: str, keys=KEYS, defaults=DEFAULTS, required=ABSOLUTE, **more
) -> ConfigStyle:
    """How transformers' config files of a family of BERT's kind are spelled; see `ConfigStyle`."""
    labels = {"model_type": model_type, "architectures": [architecture]}
    return ConfigStyle("gelu_erf", keys, defaults, labels, required=required, **more)
