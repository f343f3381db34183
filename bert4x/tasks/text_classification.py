"""One label, or several, for a text or a pair of texts."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bert4x import layers as L
from bert4x.errors import ConfigError, DataError, nearest
from bert4x.families import family_of
from bert4x.metrics.regression import regression_scores
from bert4x.numpy_ops import softmax
from bert4x.tasks.given import check_fields, label_list, states_of, texts_or_pairs
from bert4x.tasks.readers.table import is_missing
from bert4x.tasks.task import Task
from bert4x.tasks.text import batches_by_length, check_texts, values_of
from bert4x.tasks.windows import encode_windows
from bert4x.training.report import watched

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")  # transformers' names
# What the scores of a long text are, by those of its windows. Shape: (windows, labels) -> (labels,)
POOLS = {
    "average": lambda scores: scores.mean(0),
    "maximum": lambda scores: scores.max(0),
    "first": lambda scores: scores[0],
}


@dataclass(frozen=True)
class Label:
    """An answer: the label and its probability, and those of all labels. Of a regression, the values themselves."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Example:
    """An encoded text, or a window of a long one, with the numbers of its labels (of a
    regression, its values), and which of the texts it is of.
    """

    token_ids: list[int]
    segment_ids: list[int]
    labels: tuple[int | float, ...]
    text: int = 0

    @property
    def length(self) -> int:
        return len(self.token_ids)


class TextClassification(Task):
    """A dense layer on the first token's hidden state, as in BERT (Devlin et al. 2018, section 4.1), without pooler; of
    a causal model on the last one's, without bias.

    With `multi_label=True` a text has any number of labels, by the loss of kexue.fm/archives/7359: one is given where
    its score is above 0.

    Rows are (text, label) or (text, second text, label); a label is a str, with several labels a list of them (or a
    single one alone), for a regression a number.

    A text of more than `maxlen` tokens is divided in windows, at the ends of sentences, in training too, where each
    window is an example of the text's label. `long` says what becomes of their scores (before the softmax, or the
    sigmoids): "average", or for each label the "maximum"; or only the "first" `maxlen` tokens are read, with a warning.

    Args:
        problem_type: as in the config files of transformers. "multi_label_classification": any number of labels, each
            by a sigmoid of its score and binary cross-entropy; "regression": the scores are values, by the mean
            squared error; "single_label_classification": the default.
        pooler: whether the dense layer is on the pooler's output, as in a BertForSequenceClassification. By default, if
            the backbone has one (`bert4x.load(..., with_pool=True)`).
        hidden_act: the activation of a dense layer of the head's own before that of the scores, as in an
            ElectraForSequenceClassification; none by default.
    Raises: ConfigError for labels that are none, and for a pooler where the backbone has none.
    """

    name = "text-classification"
    best = "accuracy"
    settings = ("labels", "multi_label", "dropout", "long", "problem_type", "pooler", "hidden_act")

    def __init__(
        self,
        backbone,
        labels: Sequence[str],
        multi_label: bool = False,
        dropout: float = 0.1,
        maxlen: int = 128,
        long: str = "average",
        problem_type: str | None = None,
        pooler: bool | None = None,
        hidden_act: str | None = None,
    ):
        if not isinstance(long, str) or long not in POOLS:
            raise ConfigError(f"no way {long!r} to read long texts; {nearest(str(long), POOLS)}")
        labels = label_list(labels)
        if problem_type is not None and problem_type not in PROBLEMS:
            raise ConfigError(f"no problem_type {problem_type!r}; {nearest(str(problem_type), PROBLEMS)}")
        if multi_label and problem_type not in (None, "multi_label_classification"):
            raise ConfigError(f"multi_label=True contradicts problem_type = {problem_type!r}; leave one of them out")
        multi_label = multi_label or problem_type == "multi_label_classification"
        least = 1 if problem_type in ("regression", "multi_label_classification") else 2
        if len(labels) < least or len(set(labels)) < len(labels):
            raise ConfigError(f"labels {labels}; expected {'one' if least == 1 else 'two'} or more, each of them once")
        if multi_label:
            self.best = "f1"
        elif problem_type == "regression":
            self.best = "pearson"
        self.told: set[str] = set()  # for what it was said that texts are cut
        super().__init__(
            backbone, maxlen, labels=labels, multi_label=multi_label, dropout=dropout, long=long,
            problem_type=problem_type, pooler=pooler, hidden_act=hidden_act,
        )  # fmt: skip

    @classmethod
    def backbone_options(cls, settings):
        return super().backbone_options(settings) | ({"with_pool": True} if settings.get("pooler") else {})

    @property
    def causal(self) -> bool:
        """Whether a token sees those before it only: the last one stands for the text."""
        return family_of(self.config.model).causal

    def build(self):
        if self.backbone.builder.application == "lm" and not self.causal:
            first = "the first token, by which texts are classified, sees itself only"
            raise ConfigError(f"as application='lm' {first}; load the model as an encoder")
        first, inputs = states_of(self.backbone, pooled=True), self.backbone.inputs
        if self.pooler not in (None, pooled := len(first.shape) == 2):
            raise ConfigError(f"pooler = {self.pooler}, but the model was loaded with with_pool={pooled}")
        self.pooler = pooled
        if self.causal:
            first = L.LastToken(self.known_pad_id, name="Label-Last-Token", dtype="float32")([first, inputs[0]])
        elif not self.pooler:
            first = L.FirstToken(name="Label-First-Token", dtype="float32")(first)
        first = L.Dropout(self.dropout, name="Label-Dropout", dtype="float32")(first)
        start, use_bias = L.initializer(0.02), not self.causal
        if self.hidden_act:
            options = {"kernel_initializer": start, "name": "Label-Hidden", "dtype": "float32"}
            first = L.Dense(first.shape[-1], L.activation(self.hidden_act), **options)(first)
            first = L.Dropout(self.dropout, name="Label-Hidden-Dropout", dtype="float32")(first)
        scores = L.Dense(len(self.labels), None, use_bias, start, name="Label-Scores", dtype="float32")(first)
        return L.Model(inputs, scores)

    def check(self, rows):
        check_fields(rows, "(text, label), or (text, text, label)", 2, 3)
        if len({len(row) for row in rows}) > 1:
            raise DataError("some rows have one text, others two; expected (text, label), or (text, text, label)")
        for number, row in enumerate(rows):
            check_texts(row[:-1], number)

    def prepare(self, rows):
        self.check(rows)
        numbers, examples = {label: i for i, label in enumerate(self.labels)}, []
        for text, token_ids, segment_ids in self.windows([row[:-1] for row in rows], "rows"):
            row = rows[text]
            if self.problem_type == "regression":
                examples.append(Example(token_ids, segment_ids, values_of(row, len(self.labels)), text))
                continue
            several = self.multi_label and isinstance(row[-1], Collection) and not isinstance(row[-1], str | Mapping)
            labels = row[-1] if several else [row[-1]]
            unknown = [label for label in labels if is_missing(label) or str(label) not in numbers]
            if unknown:
                raise DataError(f"row {text}: label {unknown[0]!r} of {row[0][:30]!r}; expected one of {self.labels}")
            examples.append(Example(token_ids, segment_ids, tuple(numbers[str(label)] for label in labels), text))
        return examples

    def windows(self, texts: Sequence[Sequence[str]], what: str):
        """The windows of texts, (text,) or (text, second text). Where they are cut instead, one warning says so."""
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
        if self.problem_type == "regression":
            labels = np.array([example.labels for example in examples], "float32")
        elif self.multi_label:
            labels = np.zeros((len(examples), len(self.labels)), "float32")
            for i, example in enumerate(examples):
                labels[i, list(example.labels)] = 1
        else:
            labels = np.array([example.labels[0] for example in examples], "int32")
        return self.inputs(examples, length), (labels,)

    def packed_model(self):
        if self.multi_label or self.problem_type == "regression" or self.pooler or self.hidden_act:
            raise ConfigError("texts are packed for one label each, without pooler or hidden layer; leave out pack")
        model = self.backbone.builder.over_the_same_layers(packed=True).build().model
        places = L.Input((None,), dtype="int32", name="Input-Places")
        first = L.TakePlaces(name="Take-Places", dtype="float32")(model.output, places)
        dropout, scores = (self.model.get_layer(name) for name in ("Label-Dropout", "Label-Scores"))
        return L.Model([*model.inputs, places], scores(dropout(first)))

    def parts(self, example):
        place = example.length - 1 if self.causal else 0
        return example.token_ids, example.segment_ids, [place], example.labels

    def inputs(self, examples, length=None):
        """Token and segment ids. Shape: -> 2 x (B, T)"""
        tokens = self.padded([example.token_ids for example in examples], length, self.pad_id)
        return self.model_inputs(tokens, self.padded([e.segment_ids for e in examples], tokens.shape[1]))

    def loss(self, outputs, targets):
        from bert4x.training.losses import masked_crossentropy, multilabel_categorical_crossentropy

        if self.problem_type == "regression":
            return L.ops.mean(L.ops.square(outputs - targets[0]))
        if self.multi_label and self.problem_type:
            return L.ops.mean(L.ops.binary_crossentropy(targets[0], outputs, from_logits=True))
        if self.multi_label:
            return L.ops.mean(multilabel_categorical_crossentropy(targets[0], outputs))
        return L.ops.mean(masked_crossentropy(targets[0], outputs))

    def divergence(self, outputs, others):
        """With several labels, that of whether each is given; for a regression, the mean squared difference."""
        if self.problem_type == "regression":
            return L.ops.mean(L.ops.square(outputs - others))
        from bert4x.training.losses import binary_divergence

        if self.multi_label and self.problem_type:
            outputs, others = outputs / 2, others / 2  # the probability is sigmoid(x), not sigmoid(2 x)
        return binary_divergence(outputs, others) if self.multi_label else super().divergence(outputs, others)

    def scores(self, examples: Sequence[Example], batch_size: int = 32) -> np.ndarray:
        """The scores of all labels. Shape: N examples -> (N, labels) float32"""
        scores = np.zeros((len(examples), len(self.labels)), "float32")
        for chosen in batches_by_length([example.length for example in examples], batch_size):
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

    @watched
    def evaluate(self, rows, batch_size=32):
        if not rows:
            raise DataError("no rows to score")
        scores, examples = self.scores_of_texts(self.prepare(rows), batch_size)
        if self.problem_type == "regression":
            return regression_scores(scores, np.array([example.labels for example in examples]))
        if not self.multi_label:
            return {"accuracy": float(np.mean(scores.argmax(-1) == [example.labels[0] for example in examples]))}
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
        one, pairs = texts_or_pairs(texts)
        examples = [Example(ids, segments, (), text) for text, ids, segments in self.windows(pairs, "texts")]
        answers = [self.answer(row) for row in self.scores_of_texts(examples, batch_size)[0].astype("float64")]
        return answers[0] if one else answers

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """The probabilities that scores stand for; of a regression, the scores.

        Shape: (..., labels) -> the same, float64
        """
        scores = np.asarray(scores, "float64")
        if self.problem_type == "regression":
            return scores
        if self.multi_label:
            steepness = 1 if self.problem_type else 2  # the optimum of the loss: kexue.fm/archives/9064
            with np.errstate(over="ignore"):
                return 1 / (1 + np.exp(-steepness * scores))
        return softmax(scores, -1)

    def answer(self, scores: np.ndarray):
        """The answer that the scores of one text give. Shape: (labels,)"""
        named = dict(zip(self.labels, self.probabilities(scores).tolist(), strict=True))
        best = sorted(named, key=named.get, reverse=True)
        if not self.multi_label or len(self.labels) == 1:
            return Label(best[0], named[best[0]], named)
        return [Label(label, named[label], named) for label in best if named[label] > 0.5]
