"""How well texts answer a query, by a model that reads both together (a cross-encoder)."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert4x.errors import ConfigError, InputError
from bert4x.tasks.text import as_texts
from bert4x.tasks.text_classification import Example, TextClassification


class Reranked(NamedTuple):
    """The score of each text, from 0 to 1, in the order they were given, and the numbers of the best, best first."""

    scores: np.ndarray
    order: list[int]


class Reranker:
    """A classifier of pairs as a judge of answers: of one label, the sigmoid of its score; of two, the probability of
    the second. Source: Nogueira and Cho 2019 (arXiv 1901.04085).

    Args:
        task: the classifier, of one or two labels.
    Raises: ConfigError for another number of labels.
    """

    def __init__(self, task: TextClassification):
        if len(task.labels) > 2:
            raise ConfigError(f"{len(task.labels)} labels, {', '.join(task.labels[:5])} ...; a reranker has one or two")
        self.task = task

    def __call__(self, query: str, texts: Sequence[str], top_k: int | None = None, batch_size: int = 32) -> Reranked:
        """Scores each text as an answer to the query; a pair with more tokens than the model takes is cut, of which a
        warning tells once.

        Raises: InputError for an empty query, an empty list, and what is no text.
        """
        _, texts = as_texts(texts)
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"found {query!r:.60} for a query; expected a text")
        if not texts:
            raise InputError("no texts to compare; expected a list of texts")
        scores = self.scores([(query, text) for text in texts], batch_size)
        order = np.argsort(-scores, kind="stable").tolist()
        return Reranked(scores, order[:top_k])

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> np.ndarray:
        """The scores of pairs of a query and a text. Shape: -> (N,) float32"""
        windows = self.task.windows(pairs, "pairs")
        examples = [Example(ids, segments, (), number) for number, ids, segments in windows]
        scores = self.task.scores_of_texts(examples, batch_size)[0]
        if not np.isfinite(scores).all():
            raise InputError("the scores that this model gives hold NaN or infinity")
        if scores.shape[1] == 1:
            scores = np.exp(-np.logaddexp(0, -scores.astype("float64")))[:, 0]
        else:
            scores = self.task.probabilities(scores)[:, 1]
        return scores.astype("float32")


def reranker(source: str | os.PathLike, **options) -> Reranker:
    """What says how well texts answer a query: `reranker("BAAI/bge-reranker-base")("怎么退款", ["...", "..."])`.

    Args:
        source: the folder or the name of a classifier of pairs with one label or two, of transformers,
            sentence-transformers (CrossEncoder) or a run of recipes/text_classification.py --pairs.
        options: of `bert4x.load`, such as `dtype`, and `maxlen`.
    Raises: ConfigError for another number of labels; the errors of `load`.
    """
    return Reranker(TextClassification.load(source, **{"long": "first"} | options))
