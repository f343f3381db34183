"""BERT: the post-norm encoder of Devlin et al. 2018 (arXiv 1810.04805), and its tensors as they were published."""

from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import TRANSPOSED, Rule, Table
from bert4x.config import ConfigStyle
from bert4x.families import parts, register_family
from bert4x.families.layouts import gguf, paddle, uer
from bert4x.families.parts import ATTENTION, DEFAULTS, EMBEDDINGS, FFN, HEADS, KEYS, block, hf_heads, linear
from bert4x.models.builder import TransformerBuilder

TF1_LAYER, LAYER = "bert/encoder/layer_{i}/", "bert.encoder.layer.{i}."

GOOGLE = Table(
    "tf1",
    "bert",
    rules=(
        Rule("Embedding-{Token,Segment}/embeddings", "bert/embeddings/{word,token_type}_embeddings"),
        Rule("Embedding-Position/embeddings", "bert/embeddings/position_embeddings"),
        Rule("Embedding-Norm/{gamma,beta}", "bert/embeddings/LayerNorm/{gamma,beta}"),
        Rule("Embedding-Mapping/{kernel,bias}", "bert/encoder/embedding_hidden_mapping_in/{kernel,bias}"),
        Rule(
            ATTENTION + "/{query,key,value}/{kernel,bias}", TF1_LAYER + "attention/self/{query,key,value}/{kernel,bias}"
        ),
        Rule(ATTENTION + "/output/{kernel,bias}", TF1_LAYER + "attention/output/dense/{kernel,bias}"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", TF1_LAYER + "attention/output/LayerNorm/{gamma,beta}"),
        Rule(FFN + "/{intermediate,output}/{kernel,bias}", TF1_LAYER + "{intermediate,output}/dense/{kernel,bias}"),
        Rule(FFN + "-Norm/{gamma,beta}", TF1_LAYER + "output/LayerNorm/{gamma,beta}"),
        Rule("Pooler-Dense/{kernel,bias}", "bert/pooler/dense/{kernel,bias}"),
        Rule("NSP-Proba/kernel", "cls/seq_relationship/output_weights", TRANSPOSED),
        Rule("NSP-Proba/bias", "cls/seq_relationship/output_bias"),
        Rule("MLM-Dense/{kernel,bias}", "cls/predictions/transform/dense/{kernel,bias}"),
        Rule("MLM-Norm/{gamma,beta}", "cls/predictions/transform/LayerNorm/{gamma,beta}"),
        Rule("MLM-Bias/bias", "cls/predictions/output_bias"),
    ),
    backbone=r"bert/",
    ignored=parts.SLOTS,
    heads=parts.google_heads(parts.DROPOUT),
    remnants=(r"^cls/predictions/",),  # of chinese_rbt3
)

HF = Table(
    "hf",
    "bert",
    rules=(
        Rule("Embedding-{Token,Segment}/embeddings", "bert.embeddings.{word,token_type}_embeddings.weight"),
        Rule("Embedding-Position/embeddings", "bert.embeddings.position_embeddings.weight"),
        Rule("Embedding-Norm/{gamma,beta}", "bert.embeddings.LayerNorm.{weight,bias}"),
        *linear("Embedding-Mapping", "bert.embeddings_project"),
        *linear(ATTENTION + "/{query,key,value}", LAYER + "attention.self.{query,key,value}"),
        *linear(ATTENTION + "/output", LAYER + "attention.output.dense"),
        Rule(ATTENTION + "-Norm/{gamma,beta}", LAYER + "attention.output.LayerNorm.{weight,bias}"),
        *linear(FFN + "/{intermediate,output}", LAYER + "{intermediate,output}.dense"),
        Rule(FFN + "-Norm/{gamma,beta}", LAYER + "output.LayerNorm.{weight,bias}"),
        *linear("Pooler-Dense", "bert.pooler.dense"),
        *linear("NSP-Proba", "cls.seq_relationship"),
        *linear("MLM-Dense", "cls.predictions.transform.dense"),
        Rule("MLM-Norm/{gamma,beta}", "cls.predictions.transform.LayerNorm.{weight,bias}"),
        Rule("MLM-Bias/bias", "cls.predictions.bias"),
    ),
    backbone=r"bert\.",
    aliases=(
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"^cls\.predictions\.decoder\.bias$", "cls.predictions.bias"),
    ),
    ignored=(r"embeddings\.position_ids$", r"embeddings\.token_type_ids$", parts.TRAINING),
    tied=("cls.predictions.decoder.weight",),
    foreign=(
        (
            r"(?:^|\.)roberta\.embeddings\.",
            "this is a RoBERTa as fairseq built it: its positions begin after the padding id, and its head is another. "
            'Its config.json must say "model_type": "roberta", or "xlm-roberta". (The models called RoBERTa-wwm '
            "are BERTs, and load)",
        ),
    ),
    heads=hf_heads("Bert", parts.DROPOUT),
    architectures=(
        (frozenset({"mlm", "nsp"}), "BertForPreTraining"),
        (frozenset({"mlm"}), "BertForMaskedLM"),
        (frozenset({"nsp"}), "BertForNextSentencePrediction"),
        (frozenset(), "BertModel"),
    ),
)


@register_family
class Bert(TransformerBuilder):
    """BERT and everything of its shape: RoBERTa-wwm, MacBERT, SimBERT, CLUE's and Zhuiyi's models.

    Outputs: the hidden states (B, T, D); or of the heads asked for, in this order: pooled (B, D) or next-sentence
    (B, 2), then masked language model (B, T, V).
    """

    model_name = "bert"
    aliases = ("roberta",)
    config_files: ClassVar = {"tf1": "bert_config.json"}
    weights_file = "bert_model.ckpt"
    misnamed = ("roberta", "xlm-roberta")  # after the recipe of their training, as CLUE's
    decoder_key = "is_decoder"
    mlm_activation: ClassVar[str | None] = None  # of the masked language model's dense layer; default: the config's
    variables = EMBEDDINGS + block("Transformer-{i}") + HEADS
    tables = (GOOGLE, HF, uer.BERT, paddle.BERT, gguf.BERT)
    styles: ClassVar = {
        "tf1": ConfigStyle("gelu_erf", KEYS, DEFAULTS),
        "hf": parts.hf_style("bert", "BertForPreTraining"),
        "uer": uer.BERT_STYLE,
        "gguf": gguf.BERT_STYLE,
    }
    styles["paddle"] = paddle.style(styles["hf"])

    def embed(self, inputs, cache, index):
        """Token + segment + position embeddings, normalised, at the hidden size; and what attention shares."""
        h = tokens = self.token_embedding(masks_padding=True)(inputs["token_ids"])
        if self.config.segment_vocab_size:
            h = self.add("Embedding-Token-Segment", h, self.segment_embedding()(inputs["segment_ids"]))
        h = self.position_embedding(h, inputs, index, cached=cache is not None)
        h = self.norm_embeddings(h)
        if self.config.embedding_mapping:
            h = self.dense("Embedding-Mapping", self.config.hidden_size)(h)
        return h, self.attend(tokens, inputs, self.application, cache, index)

    def norm_embeddings(self, h):
        """The sum of the embeddings, normalised, after dropout."""
        return self.dropout("Embedding-Dropout", self.norm("Embedding-Norm", h))

    def block(self, name, h, context):
        """Attention, then the feed-forward network; each is added to its input, then normalised."""
        attention = f"{name}-MultiHeadSelfAttention"
        a = self.dropout(f"{attention}-Dropout", self.attention(attention, h, context))
        h = self.add(f"{attention}-Add", h, a)
        h = self.norm(f"{attention}-Norm", h)

        ffn = f"{name}-FeedForward"
        f = self.dropout(f"{ffn}-Dropout", self.feed_forward(ffn, h))
        h = self.add(f"{ffn}-Add", h, f)
        return self.norm(f"{ffn}-Norm", h)

    def heads(self, h, last=False):
        """The pooler, next-sentence and masked-language-model heads that were asked for."""
        outputs = []
        if self.with_pool or self.with_nsp:
            pooled = self.layer(L.FirstToken, "Pooler")(h)
            activation = self.pooler_activation() if self.with_pool in (True, False) else self.with_pool
            pooled = self.dense("Pooler-Dense", self.config.hidden_size, activation)(pooled)
            if self.with_nsp:
                activation = "softmax" if self.with_nsp is True else self.with_nsp
                pooled = self.dense("NSP-Proba", 2, activation)(pooled)
            outputs.append(pooled)
        if self.with_mlm:
            outputs.append(self.masked_language_model(h, last))
        return self.simplify(outputs or [h])

    def pooler_activation(self) -> str:
        """That of the pooler: "linear" in configs of RoFormer-Sim."""
        return self.config.extra.get("pooler_activation", "tanh")

    def masked_language_model(self, h, last=False):
        """Shape: (B, T, D) -> (B, T or 1, V)"""
        m = self.before_output(h[:, -1:] if last else h)
        m = self.token_embedding(masks_padding=True)(m, reverse=True)
        return self.scores("MLM-Activation", self.layer(L.Bias, "MLM-Bias")(m))

    def before_output(self, h):
        """What the table of tokens multiplies. Shape: (B, T, D) -> (B, T, E)"""
        m = self.dense("MLM-Dense", self.config.embedding_size, self.mlm_activation or self.config.hidden_act)(h)
        return self.norm("MLM-Norm", m)
