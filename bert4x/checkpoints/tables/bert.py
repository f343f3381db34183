"""BERT's tensors in every layout it was published in."""

from bert4x.checkpoints.spec import TRANSPOSED, Family, Head, Rule, Table
from bert4x.config import ConfigStyle

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
ENTITY_TAGS = (("Entity-Tags/kernel", "HL"), ("Entity-Tags/bias", "L"))
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
    )


GOOGLE = Table(
    "tf1",
    "bert",
    rules=(
        Rule("Embedding-{Token,Segment,Position}/embeddings", "bert/embeddings/{word,token_type,position}_embeddings"),
        Rule("Embedding-Norm/{gamma,beta}", "bert/embeddings/LayerNorm/{gamma,beta}"),
        Rule("Embedding-Mapping/{kernel,bias}", "bert/encoder/embedding_hidden_mapping_in/{kernel,bias}"),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention/{query,key,value}/{kernel,bias}",
            "bert/encoder/layer_{i}/attention/self/{query,key,value}/{kernel,bias}",
        ),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention/output/{kernel,bias}",
            "bert/encoder/layer_{i}/attention/output/dense/{kernel,bias}",
        ),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention-Norm/{gamma,beta}",
            "bert/encoder/layer_{i}/attention/output/LayerNorm/{gamma,beta}",
        ),
        Rule(
            "Transformer-{i}-FeedForward/{intermediate,output}/{kernel,bias}",
            "bert/encoder/layer_{i}/{intermediate,output}/dense/{kernel,bias}",
        ),
        Rule("Transformer-{i}-FeedForward-Norm/{gamma,beta}", "bert/encoder/layer_{i}/output/LayerNorm/{gamma,beta}"),
        Rule("Pooler-Dense/{kernel,bias}", "bert/pooler/dense/{kernel,bias}"),
        Rule("NSP-Proba/kernel", "cls/seq_relationship/output_weights", TRANSPOSED),
        Rule("NSP-Proba/bias", "cls/seq_relationship/output_bias"),
        Rule("MLM-Dense/{kernel,bias}", "cls/predictions/transform/dense/{kernel,bias}"),
        Rule("MLM-Norm/{gamma,beta}", "cls/predictions/transform/LayerNorm/{gamma,beta}"),
        Rule("MLM-Bias/bias", "cls/predictions/output_bias"),
    ),
    backbone=r"bert/",
    ignored=SLOTS,
    heads=google_heads(DROPOUT),
    remnants=(r"^cls/predictions/",),  # of chinese_rbt3
)

HF = Table(
    "hf",
    "bert",
    rules=(
        Rule(
            "Embedding-{Token,Segment,Position}/embeddings",
            "bert.embeddings.{word,token_type,position}_embeddings.weight",
        ),
        Rule("Embedding-Norm/{gamma,beta}", "bert.embeddings.LayerNorm.{weight,bias}"),
        Rule("Embedding-Mapping/kernel", "bert.embeddings_project.weight", TRANSPOSED),
        Rule("Embedding-Mapping/bias", "bert.embeddings_project.bias"),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention/{query,key,value}/kernel",
            "bert.encoder.layer.{i}.attention.self.{query,key,value}.weight",
            TRANSPOSED,
        ),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention/{query,key,value}/bias",
            "bert.encoder.layer.{i}.attention.self.{query,key,value}.bias",
        ),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention/output/kernel",
            "bert.encoder.layer.{i}.attention.output.dense.weight",
            TRANSPOSED,
        ),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention/output/bias", "bert.encoder.layer.{i}.attention.output.dense.bias"
        ),
        Rule(
            "Transformer-{i}-MultiHeadSelfAttention-Norm/{gamma,beta}",
            "bert.encoder.layer.{i}.attention.output.LayerNorm.{weight,bias}",
        ),
        Rule(
            "Transformer-{i}-FeedForward/{intermediate,output}/kernel",
            "bert.encoder.layer.{i}.{intermediate,output}.dense.weight",
            TRANSPOSED,
        ),
        Rule(
            "Transformer-{i}-FeedForward/{intermediate,output}/bias",
            "bert.encoder.layer.{i}.{intermediate,output}.dense.bias",
        ),
        Rule("Transformer-{i}-FeedForward-Norm/{gamma,beta}", "bert.encoder.layer.{i}.output.LayerNorm.{weight,bias}"),
        Rule("Pooler-Dense/kernel", "bert.pooler.dense.weight", TRANSPOSED),
        Rule("Pooler-Dense/bias", "bert.pooler.dense.bias"),
        Rule("NSP-Proba/kernel", "cls.seq_relationship.weight", TRANSPOSED),
        Rule("NSP-Proba/bias", "cls.seq_relationship.bias"),
        Rule("MLM-Dense/kernel", "cls.predictions.transform.dense.weight", TRANSPOSED),
        Rule("MLM-Dense/bias", "cls.predictions.transform.dense.bias"),
        Rule("MLM-Norm/{gamma,beta}", "cls.predictions.transform.LayerNorm.{weight,bias}"),
        Rule("MLM-Bias/bias", "cls.predictions.bias"),
    ),
    backbone=r"bert\.",
    aliases=(
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"^cls\.predictions\.decoder\.bias$", "cls.predictions.bias"),
    ),
    ignored=(r"embeddings\.position_ids$", r"embeddings\.token_type_ids$", TRAINING),
    tied=("cls.predictions.decoder.weight",),
    foreign=(
        (
            r"(?:^|\.)roberta\.embeddings\.",
            "this is a RoBERTa as fairseq built it: its positions begin after the padding id, and its head is another. "
            "(The Chinese models called RoBERTa-wwm are BERTs, and load)",
        ),
    ),
    heads=hf_heads("Bert", DROPOUT),
    architectures=(
        (frozenset({"mlm", "nsp"}), "BertForPreTraining"),
        (frozenset({"mlm"}), "BertForMaskedLM"),
        (frozenset({"nsp"}), "BertForNextSentencePrediction"),
        (frozenset(), "BertModel"),
    ),
)

KEYS = {
    "max_position": ("max_position_embeddings", "max_position"),
    "segment_vocab_size": ("type_vocab_size", "segment_vocab_size"),
    "dropout_rate": ("hidden_dropout_prob", "dropout_rate"),
    "attention_dropout_rate": ("attention_probs_dropout_prob", "attention_dropout_rate"),
    # Not read: one other than 0 is a mistake of the file (hfl's RoBERTa-wwm says 1). The vocabulary decides.
    "pad_token_id": (),
}
DEFAULTS = {"pad_token_id": 0}

FAMILIES = (
    Family(
        "bert",
        variables=EMBEDDINGS + block("Transformer-{i}") + HEADS,
        tables=(GOOGLE, HF),
        styles={
            "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS),
            "hf": ConfigStyle(
                "gelu_erf",
                KEYS,
                DEFAULTS,
                labels={"model_type": "bert", "architectures": ["BertForPreTraining"]},
                required={"position_embedding_type": "absolute", "add_cross_attention": False},
            ),
        },
    ),
)
