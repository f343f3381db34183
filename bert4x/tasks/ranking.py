"""Training of rerankers: a right answer and wrong ones, each read together with the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from keras import ops

from bert4x.errors import DataError
from bert4x.metrics.vectors import ranks_of_first
from bert4x.tasks import compared
from bert4x.tasks.text_classification import Example, TextClassification
from bert4x.training.report import watched


@dataclass(frozen=True)
class Listed:
    """A question with each of its answers, encoded; the right one is the first."""

    pairs: tuple[Example, ...]

    @property
    def length(self) -> int:
        return max(pair.length for pair in self.pairs)


class Ranking(TextClassification):
    """A classifier of pairs with one label that learns which of several answers is right. What it saves is such a
    classifier, which `bert4x.reranker` opens, and transformers and sentence-transformers (`format="hf"`).

    Rows are (question, right answer, wrong answer, wrong answer ...), all of them with as many.

    Args:
        listwise: whether the loss is the cross-entropy of finding the right answer among all of its row (ListNet, Cao
            et al. 2007; with one right answer also the first factor of ListMLE); otherwise each pair is right or wrong
            by itself, by binary cross-entropy.
    """

    settings = (*TextClassification.settings, "listwise")

    def __init__(self, backbone, labels: Sequence[str] = ("score",), listwise: bool = False, **options):
        self.listwise = listwise
        options = {"long": "first"} | options | {"problem_type": "multi_label_classification"}
        super().__init__(backbone, labels, **options)
        self.best = "mrr"

    def check(self, rows):
        rows = compared.checked(rows)
        if rows and (compared.kind_of(rows[0], 0) != "answers" or len(rows[0]) < 3):
            raise DataError(
                f"row 0: found {rows[0]!r:.80}; expected (question, right answer, wrong answers ...); wrong ones are "
                "found by bert4x.mine_negatives"
            )

    def prepare(self, rows):
        self.check(rows)
        pairs = [(row[0], answer) for row in rows for answer in row[1:]]
        encoded = [Example(ids, segments, (), number) for number, ids, segments in self.windows(pairs, "rows")]
        size = len(rows[0]) - 1 if rows else 1
        return [Listed(tuple(encoded[start : start + size])) for start in range(0, len(encoded), size)]

    def batch(self, examples, length, draw=None):
        """Shape: the pairs of B rows of K answers, (B K, T); which of them are right, (B, K)"""
        right = np.zeros((len(examples), len(examples[0].pairs)), "float32")
        right[:, 0] = 1
        return self.inputs([pair for example in examples for pair in example.pairs], length), (right,)

    def loss(self, outputs, targets):
        scores = ops.reshape(outputs, ops.shape(targets[0]))
        if self.listwise:
            return ops.mean(ops.logsumexp(scores, axis=-1) - scores[:, 0])
        return ops.mean(ops.binary_crossentropy(targets[0], scores, from_logits=True))

    @watched
    def evaluate(self, rows, batch_size=32):
        """The mean of 1 / the rank of the right answer (MRR), and how often it is the first. Raises: DataError"""
        listed = self.prepare(rows)
        if not listed:
            raise DataError("no rows to score")
        scores = self.scores([pair for one in listed for pair in one.pairs], batch_size)
        ranks = ranks_of_first(scores.reshape(len(listed), -1))
        return {"mrr": float((1 / ranks).mean()), "recall@1": float((ranks == 1).mean())}

    def held_head(self):
        """That of the classifier, for which `listwise` means nothing."""
        head = super().held_head()
        return replace(head, settings={name: value for name, value in head.settings.items() if name != "listwise"})
