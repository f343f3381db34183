"""Similar questions: one model gives their vectors, and writes new ones (SimBERT)."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from bert4x.errors import ConfigError
from bert4x.metrics.vectors import scores_of_ranks
from bert4x.tasks import seq2seq
from bert4x.tasks.given import check_fields
from bert4x.tasks.sentence_embedding import SentenceEmbedding
from bert4x.training.contrastive import NEVER, unit
from bert4x.training.losses import masked_crossentropy
from bert4x.training.report import watched

SCALE = 30.0  # of cosines, as SimBERT has it


@dataclass(frozen=True)
class Both:
    """Two questions of the same meaning, each as the source of the other."""

    there: seq2seq.Example
    back: seq2seq.Example

    @property
    def length(self) -> int:
        return max(self.there.length, self.back.length)


class SimilarQuestions(seq2seq.Seq2Seq):
    """A UniLM that learns two things at once from pairs of questions with the same meaning: to write one as the target
    of the other, and to give both nearly the same vector, the state of [CLS], which sees nothing but the source.

    Source: SimBERT (kexue.fm/archives/7427), RoFormer-Sim (kexue.fm/archives/8454).

    What it saves is a run of `Seq2Seq`, which writes; `encoder()`, or `bert4x.embedder(folder, pooling="cls")`, gives
    vectors. Rows are (question, question). Of several batches in one update, questions are compared within each.
    """

    best = "mrr"
    encoding: SentenceEmbedding | None = None  # what `encoder` gives, once it was asked for

    def build(self):
        return seq2seq.predicting_at_places(self.backbone.builder, with_first=True).build().model

    def packed_model(self):
        raise ConfigError("pairs of questions are compared row by row; leave out pack")

    def check(self, rows):
        check_fields(rows, "two questions of the same meaning", 2)

    def prepare(self, rows):
        self.check(rows)
        kept = [tuple(row) for row in rows if all(isinstance(text, str) and text.strip() for text in row)]
        there = super().prepare([*kept, *(row[::-1] for row in kept)])
        if len(there) < 2 * len(rows):
            self.skipped["empty question"] = len(rows) - len(there) // 2
        return [Both(*pair) for pair in zip(there[: len(kept)], there[len(kept) :], strict=True)]

    def batch(self, examples, length, draw=None):
        """As of Seq2Seq, for 2 B examples: all pairs, and then all turned round; and a number for each source, the same
        for the same text, (2 B,).
        """
        both = [example.there for example in examples] + [example.back for example in examples]
        inputs, targets = super().batch(both, length)
        numbers = {}
        names = [numbers.setdefault(tuple(example.source), len(numbers)) for example in both]
        return inputs, (*targets, np.array(names, "int32"))

    def loss(self, outputs, targets):
        vectors, logits = outputs
        return ops.mean(masked_crossentropy(targets[0], logits)) + of_pairs(vectors, targets[1])

    def divergence(self, outputs, others):
        return super().divergence(outputs[1], others[1])

    @watched
    def evaluate(self, rows, batch_size=32):
        """How near the other question of a pair is, as `SentenceEmbedding` scores answers; and the scores of what is
        written, as of Seq2Seq.
        """
        self.check(rows)
        return scores_of_ranks(self.encoder().ranks(rows)) | super().evaluate(rows, batch_size)

    def encoder(self) -> SentenceEmbedding:
        """What gives the vectors, of the weights that this has: always the same object, over the same layers."""
        if self.encoding is None:
            backbone = self.backbone.builder.over_the_same_layers("encoder", with_mlm=False).build().model
            backbone.tokenizer = self.tokenizer
            self.encoding = SentenceEmbedding(backbone, "cls", [{"kind": "normalize"}], maxlen=self.maxlen)
        return self.encoding

    def similar(self, question: str, count: int = 5, drawn: int = 20, **options) -> list[tuple[str, float]]:
        """Questions that it writes for one, the most similar first, and how similar they are: of several that are
        drawn (`top_p=0.95`, unless options say otherwise), each once, without those that say the same.
        """
        options = {"num_beams": 1, "top_p": 0.95} | options
        texts = dict.fromkeys(text.strip() for text in self(question, num_return_sequences=drawn, **options))
        texts = [text for text in texts if text and letters(text) != letters(question)]
        if not texts:
            return []
        return [(texts[i], score) for i, score in self.encoder().search(question, texts, count)]


def of_pairs(vectors, names):
    """The cross-entropy of finding the partner of each vector among all others: those of the first half are partners of
    those of the second. A vector with the name of its partner, or its own, is not counted as wrong.

    Shape: (2 B, D), (2 B,)
    """
    vectors, rows = unit(vectors), ops.shape(vectors)[0]
    partners = ops.roll(ops.arange(rows), rows // 2)
    right = ops.cast(partners[:, None] == ops.arange(rows)[None, :], "float32")
    partner_names = ops.take(names, partners)
    known = ops.logical_or(names[:, None] == names[None, :], partner_names[:, None] == names[None, :])
    scores = SCALE * ops.matmul(vectors, ops.transpose(vectors))
    scores = scores - ops.cast(known, "float32") * (1 - right) * NEVER
    return ops.mean(ops.logsumexp(scores, axis=-1) - ops.sum(ops.where(right > 0, scores, 0.0), axis=-1))


def letters(text: str) -> str:
    """A text without spaces and punctuation."""
    return "".join(filter(str.isalnum, text.lower()))
