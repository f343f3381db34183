"""BERT and ERNIE as PaddleNLP keeps them: `model_state.pdparams`, whose matrices are (in, out)."""

from dataclasses import replace

from bert4x.checkpoints.spec import Head, Rule, Table
from bert4x.families.parts import ANSWER_SCORES, ATTENTION, ENTITY_TAGS, FFN, LABEL_SCORES, SPANS, Dropout

BLOCK = "bert.encoder.layers.{i}"
CLASSIFIER = "classifier.{weight,bias}"
DROPOUT: Dropout = ("classifier_dropout", None)


def heads(prefix: str) -> tuple[Head, ...]:
    """The heads of PaddleNLP's classes that begin with `prefix`, which all have the same name."""
    return (
        Head(
            "text-classification",
            LABEL_SCORES,
            (Rule("Label-Scores/{kernel,bias}", CLASSIFIER),),
            f"{prefix}ForSequenceClassification",
            settings={"pooler": True},
            labels="labels",
            dropout=DROPOUT,
        ),
        Head(
            "token-classification",
            ENTITY_TAGS,
            (Rule("Entity-Tags/{kernel,bias}", CLASSIFIER),),
            f"{prefix}ForTokenClassification",
            settings={"method": "softmax"},
            labels="tags",
            dropout=DROPOUT,
        ),
        Head(
            "reading-comprehension",
            ANSWER_SCORES,
            (Rule("Answer-Scores/{kernel,bias}", CLASSIFIER),),
            f"{prefix}ForQuestionAnswering",
        ),
        Head(
            "universal-extraction",
            SPANS,
            (
                Rule("Span-{Start,End}/kernel", "linear_{start,end}.weight"),
                Rule("Span-{Start,End}/bias", "linear_{start,end}.bias"),
            ),
            "UIE",
        ),
    )


BERT = Table(
    "paddle",
    "bert",
    rules=(
        Rule(
            "Embedding-{Token,Segment,Position}/embeddings",
            "bert.embeddings.{word,token_type,position}_embeddings.weight",
        ),
        Rule("Embedding-Norm/{gamma,beta}", "bert.embeddings.layer_norm.{weight,bias}"),
        Rule(
            ATTENTION + "/{query,key,value,output}/{kernel,bias}", BLOCK + ".self_attn.{q,k,v,out}_proj.{weight,bias}"
        ),
        Rule(ATTENTION + "-Norm/{gamma,beta}", BLOCK + ".norm1.{weight,bias}"),
        Rule(FFN + "/{intermediate,output}/{kernel,bias}", BLOCK + ".linear{1,2}.{weight,bias}"),
        Rule(FFN + "-Norm/{gamma,beta}", BLOCK + ".norm2.{weight,bias}"),
        Rule("Pooler-Dense/{kernel,bias}", "bert.pooler.dense.{weight,bias}"),
        Rule("NSP-Proba/{kernel,bias}", "cls.seq_relationship.{weight,bias}"),
        Rule("MLM-Dense/{kernel,bias}", "cls.predictions.transform.{weight,bias}"),
        Rule("MLM-Norm/{gamma,beta}", "cls.predictions.layer_norm.{weight,bias}"),
        Rule("MLM-Bias/bias", "cls.predictions.decoder_bias"),
    ),
    backbone=r"bert\.",
    tied=("cls.predictions.decoder_weight",),
    heads=heads("Bert"),
)
TASK = Rule("Embedding-Task/embeddings", "ernie.embeddings.task_type_embeddings.weight")
ERNIE = BERT.of("ernie", names=("bert.", "ernie."), classes=("Bert", "Ernie"), rules=(TASK,))


def style(hf):
    """How PaddleNLP spells what transformers' config files of a family say; norms there have another epsilon."""
    keys = hf.keys | {"segment_vocab_size": (*hf.keys["segment_vocab_size"], "sent_type_vocab_size")}
    required = hf.required | {"pool_act": "tanh", "task_id": 0}
    return replace(hf, keys=keys, defaults=hf.defaults | {"layer_norm_eps": 1e-5}, required=required)
