"""One label, or several, for a text or a pair of texts."""

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from bert4x import layers as L
from bert4x.errors import ConfigError, DataError, InputError, nearest
from bert4x.tasks.task import Task
from bert4x.tasks.windows import encode_windows
from bert4x.training.losses import binary_divergence, masked_crossentropy, multilabel_categorical_crossentropy

# What the scores of a long text are, by those of its windows. Shape: (windows, labels) -> (labels,)
POOLS = {
    "average": lambda scores: scores.mean(0),
    "maximum": lambda scores: scores.max(0),
    "first": lambda scores: scores[0],
}


@dataclass(frozen=True)
class Label:
    """An answer: the label and its probability, and those of all labels."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Example:
    """An encoded text, or a window of a long one, with the numbers of its labels, and which of the texts it is of."""

    token_ids: list[int]
    segment_ids: list[int]
    labels: tuple[int, ...]
    text: int = 0

    @property
    def length(self) -> int:
        return len(self.token_ids)


class TextClassification(Task):
    """A dense layer on the first token's hidden state, as in BERT (Devlin et al. 2018, section 4.1), without pooler.

    With `multi_label=True` a text has any number of labels, by the loss of kexue.fm/archives/7359: one is given where
    its score is above 0.

    Rows are (text, label) or (text, second text, label); a label is a str, with several labels a list of them (or a
    single one alone).

    A text of more than `maxlen` tokens is divided in windows, at the ends of sentences, in training too, where each
    window is an example of the text's label. `long` says what becomes of their scores (before the softmax, or the
    sigmoids): "average", or for each label the "maximum"; or only the "first" `maxlen` tokens are read at all, of which
    a warning tells once.
    """

    name = "text-classification"
    best = "accuracy"
    settings = ("labels", "multi_label", "dropout", "long")

    def __init__(
        self,
        backbone,
        labels: Sequence[str],
        multi_label: bool = False,
        dropout: float = 0.1,
        maxlen: int = 128,
        long: str = "average",
    ):
        if long not in POOLS:
            raise ConfigError(f"no way {long!r} to read long texts; {nearest(str(long), POOLS)}")
        labels = [str(label) for label in labels]
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ConfigError(f"labels {labels}; expected two or more, each of them once")
        if backbone.config.model == "gpt2":
            raise ConfigError("the first token of a gpt2 sees no other; expected an encoder, such as bert or albert")
        if multi_label:
            self.best = "f1"
        self.told: set[str] = set()  # for what it was said that texts are cut
        super().__init__(backbone, maxlen, labels=labels, multi_label=multi_label, dropout=dropout, long=long)

    def build(self):
        h = self.backbone.output
        first = L.FirstToken(name="Label-First-Token", dtype="float32")(h)
        first = L.Dropout(self.dropout, name="Label-Dropout", dtype="float32")(first)
        scores = L.Dense(
            len(self.labels), kernel_initializer=L.initializer(0.02), name="Label-Scores", dtype="float32"
        )(first)
        return keras.Model(self.backbone.inputs, scores)

    def prepare(self, rows):
        numbers = {label: i for i, label in enumerate(self.labels)}
        if len({len(row) for row in rows}) > 1:
            raise DataError("some rows have one text, others two; expected (text, label), or (text, text, label)")
        examples = []
        for text, token_ids, segment_ids in self.windows([row[:-1] for row in rows], "rows"):
            row = rows[text]
            several = self.multi_label and isinstance(row[-1], Collection) and not isinstance(row[-1], str)
            labels = row[-1] if several else [row[-1]]
            unknown = [label for label in labels if str(label) not in numbers]
            if unknown:
                raise DataError(f"label {unknown[0]!r} of {row[0][:30]!r}; expected one of {self.labels}")
            examples.append(Example(token_ids, segment_ids, tuple(numbers[str(label)] for label in labels), text))
        return examples

    def windows(self, texts: Sequence[Sequence[str]], what: str):
        """The windows of texts, (text,) or (text, second text). Where they are to be cut instead, it is said once."""
        windows, long = encode_windows(self.tokenizer, texts, self.maxlen, split=self.long != "first")
        if long and self.long == "first" and what not in self.told:
            self.told.add(what)
            warnings.warn(
                f"{long} of {len(texts)} texts have more than {self.maxlen} tokens; what is beyond is not read, by "
                "long='first'",
                stacklevel=3,
            )
        return windows

    def batch(self, examples, length, draw=None):
        if self.multi_label:
            labels = np.zeros((len(examples), len(self.labels)), "float32")
            for i, example in enumerate(examples):
                labels[i, list(example.labels)] = 1
        else:
            labels = np.array([example.labels[0] for example in examples], "int32")
        return self.inputs(examples, length), (labels,)

    def inputs(self, examples, length=None):
        """Token and segment ids. Shape: -> 2 x (B, T)"""
        tokens = self.padded([example.token_ids for example in examples], length, self.pad_id)
        return self.model_inputs(tokens, self.padded([e.segment_ids for e in examples], tokens.shape[1]))

    def loss(self, outputs, targets):
        if self.multi_label:
            return ops.mean(multilabel_categorical_crossentropy(targets[0], outputs))
        return ops.mean(masked_crossentropy(targets[0], outputs))

    def divergence(self, outputs, others):
        """With several labels, that of whether each is given."""
        return binary_divergence(outputs, others) if self.multi_label else super().divergence(outputs, others)

    def scores(self, examples: Sequence[Example], batch_size: int = 32) -> np.ndarray:
        """The scores of all labels. Shape: N examples -> (N, labels) float32"""
        scores = np.zeros((len(examples), len(self.labels)), "float32")
        order = sorted(range(len(examples)), key=lambda i: examples[i].length)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            scores[chosen] = self.predict(self.model, self.inputs([examples[i] for i in chosen]))
        return scores

    def scores_of_texts(self, examples: Sequence[Example], batch_size: int = 32) -> tuple[np.ndarray, list[Example]]:
        """The scores of texts, by those of their windows; and of each text the first window.

        Shape: N examples of M texts -> (M, labels) float32
        """
        scores = self.scores(examples, batch_size)
        starts = [i for i, example in enumerate(examples) if i == 0 or example.text != examples[i - 1].text]
        parts = np.split(scores, starts[1:]) if starts else []
        pooled = [POOLS[self.long](part) if len(part) > 1 else part[0] for part in parts]
        return np.array(pooled, "float32").reshape(-1, len(self.labels)), [examples[i] for i in starts]

    def evaluate(self, rows, batch_size=32):
        if not rows:
            raise DataError("no rows to score")
        scores, examples = self.scores_of_texts(self.prepare(rows), batch_size)
        if not self.multi_label:
            right = scores.argmax(-1) == [example.labels[0] for example in examples]
            return {"accuracy": float(np.mean(right))}
        truth = np.zeros(scores.shape, bool)
        for i, example in enumerate(examples):
            truth[i, list(example.labels)] = True
        found, both = scores > 0, (scores > 0) & truth
        total = found.sum() + truth.sum()
        return {
            "f1": float(2 * both.sum() / total) if total else 0.0,
            "exact": float(np.mean((found == truth).all(-1))),
        }

    def __call__(self, texts, batch_size=32):
        """The `Label` of a text, of a pair (a tuple), or of each of a list of them; with several labels, a list of
        those above 0, likeliest first. Of a text that is too long all windows are read, unless `long` is "first".

        Raises: InputError for anything else.
        """
        one = isinstance(texts, str | tuple)
        if not (one or isinstance(texts, Iterable)):
            raise InputError(f"found {texts!r:.60}; expected a text, a pair of texts, or a list of these")
        rows = [texts] if one else list(texts)
        pairs = [(row,) if isinstance(row, str) else row for row in rows]
        for pair in pairs:
            if not (isinstance(pair, tuple | list) and len(pair) in (1, 2) and all(isinstance(t, str) for t in pair)):
                raise InputError(f"found {pair!r:.60}; expected a text, or a pair of texts")
        examples = [Example(ids, segments, (), text) for text, ids, segments in self.windows(pairs, "texts")]
        answers = [self.answer(row) for row in self.scores_of_texts(examples, batch_size)[0].astype("float64")]
        return answers[0] if one else answers

    def answer(self, scores: np.ndarray):
        """The answer that the scores of one text give."""
        if self.multi_label:
            probabilities = 1 / (1 + np.exp(-2 * scores))  # the optimum of the loss: kexue.fm/archives/9064
        else:
            probabilities = np.exp(scores - scores.max())
            probabilities /= probabilities.sum()
        named = dict(zip(self.labels, probabilities.tolist(), strict=True))
        best = sorted(named, key=named.get, reverse=True)
        if not self.multi_label:
            return Label(best[0], named[best[0]], named)
        return [Label(label, named[label], named) for label in best if named[label] > 0.5]
