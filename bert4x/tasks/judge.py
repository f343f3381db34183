"""What every reranker is: scores of texts as answers to a query, and the order of the best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert4x.errors import InputError
from bert4x.tasks.text import as_texts
from bert4x.tasks.vectors import check_count


class Reranked(NamedTuple):
    """The score of each text, from 0 to 1, in the order they were given, and the numbers of the best, best first."""

    scores: np.ndarray
    order: list[int]


class Judge:
    """Base of rerankers: a subclass says `judged`."""

    def __call__(
        self,
        query: str,
        texts: Sequence[str],
        top_k: int | None = None,
        batch_size: int = 32,
        *,
        raw_scores: bool = False,
    ) -> Reranked:
        """Scores each text as an answer to the query; a pair with more tokens than the model takes is cut, of which a
        warning tells once.

        Args:
            raw_scores: give log-odds, of any size, in the place of scores from 0 to 1: what a reranker of one label
                computes before the sigmoid. The order is the same.

        Raises: InputError for an empty query, an empty list, and what is no text.
        """
        _, texts = as_texts(texts)
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"found {query!r:.60} for a query; expected a text")
        if not texts:
            raise InputError("no texts to compare; expected a list of texts")
        if top_k is not None:
            check_count("top_k", top_k)
        scores = self.scores([(query, text) for text in texts], batch_size, raw_scores)
        order = np.argsort(-scores, kind="stable").tolist()
        return Reranked(scores, order[:top_k])

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, raw_scores: bool = False) -> np.ndarray:
        """The scores of pairs of a query and a text. Shape: -> (N,) float32

        Raises: InputError where one is NaN or infinite.
        """
        check_count("batch_size", batch_size)
        scores = np.asarray(self.judged(pairs, batch_size), "float64")
        if not raw_scores:
            scores = np.exp(-np.logaddexp(0, -scores))
        if not np.isfinite(scores).all():
            raise InputError("the scores that this model gives hold NaN or infinity")
        return scores.astype("float32")

    def judged(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> np.ndarray:
        """How well each text answers its query, in log-odds. Shape: -> (N,)"""
        raise NotImplementedError
