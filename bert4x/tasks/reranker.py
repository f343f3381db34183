"""How well texts answer a query, by a model that reads both together (a cross-encoder)."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert4x.checkpoints.sentence_vectors import longest
from bert4x.checkpoints.task_file import FILE
from bert4x.errors import ConfigError, InputError
from bert4x.hub.names import local
from bert4x.tasks.judge import Judge
from bert4x.tasks.text_classification import Example, TextClassification
from bert4x.tasks.yes_no import YesNoReranker, is_language_model


class Reranker(Judge):
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

    def judged(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> np.ndarray:
        """The scores of pairs before any activation. Shape: N pairs -> (N,)"""
        windows = self.task.windows(pairs, "pairs")
        examples = [Example(ids, segments, (), number) for number, ids, segments in windows]
        scores = self.task.scores_of_texts(examples, batch_size)[0].astype("float64")
        if scores.shape[1] == 1:
            return scores[:, 0]
        if not self.task.multi_label:
            return scores[:, 1] - scores[:, 0]
        sure = np.clip(self.task.probabilities(scores)[:, 1], 1e-12, 1 - 1e-12)
        return np.log(sure / (1 - sure))


def reranker(source: str | os.PathLike, **options) -> Reranker:
    """What says how well texts answer a query: `reranker("BAAI/bge-reranker-base")("怎么退款", ["...", "..."])`.

    Args:
        source: the folder or the name of a classifier of pairs with one label or two, of transformers,
            sentence-transformers (CrossEncoder), a run of recipes/reranker.py, or one of
            recipes/text_classification.py --pairs; or of a causal language model without such a head, which then is
            asked for "yes" or "no", as Qwen3-Reranker (`bert4x.tasks.yes_no.YesNoReranker`).
        options: of `bert4x.load`, such as `dtype`, and `maxlen`; for a language model also `instruction`.
    Raises: ConfigError for another number of labels; InputError without a source; the errors of `load`.
    """
    if source is None:
        raise InputError("no reranker is inside the package; give a folder or a name, such as BAAI/bge-reranker-base")
    if is_language_model(source):
        return YesNoReranker.load(source, **options)
    return judge_of(TextClassification.load(source, **options), source, **options)


def judge_of(task: TextClassification, source: str | os.PathLike, **options) -> Reranker:
    """A classifier that was loaded as a reranker: it reads only the beginning of a pair that is too long, by what the
    files of another program say of lengths; by `options` otherwise.
    """
    task, folder = copy.copy(task), Path(local(source)).expanduser()
    task.long = options.get("long", "first")
    most = None if (folder / FILE).is_file() or not folder.is_dir() else longest(folder, folder)
    if most and "maxlen" not in options:
        task.maxlen = min(max(most, 8), task.config.max_position)
    return Reranker(task)
