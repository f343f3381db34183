"""Universal extraction: entities, relations, events and choices by what a schema names, asked one prompt at a time."""

import functools
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bert4x import layers as L
from bert4x.errors import ConfigError, InputError
from bert4x.layers.means import token_mean
from bert4x.metrics.spans import count, count_triples
from bert4x.tasks.given import check_keys, check_sees_all, check_shares, is_number, states_of
from bert4x.tasks.heads import assign_head
from bert4x.tasks.prompted import Encoded, Window, gold_of, prompt_windows, with_negatives
from bert4x.tasks.schema import Answers, Prompt, Wanted, found_in, parse_schema, prompt, related_in, spelled
from bert4x.tasks.task import Task
from bert4x.tasks.text import as_texts, batches_by_length, check_texts, encode_with_offsets
from bert4x.tasks.windows import specials
from bert4x.training.report import watched

BEGIN = -4.0  # of the scores of a new head: a probability of .018, about the share of tokens that are a start or an end
LEAST_HEAD_RATE = 1e-3  # learning rate of a new head, which cannot rise from BEGIN in few updates at that of the model
QUESTIONS = 4096  # prompts whose tokens are remembered
PROMPT = 0.75  # of the room in an input, what a prompt fills at most


class UniversalExtraction(Task):
    """UIE (Lu et al. 2022, arXiv 2203.12277, as PaddleNLP builds it on ERNIE 3.0): the model reads a prompt, which
    names what to look for, beside the text, and gives each token a probability of being the first, and one of being the
    last, of a span that is such. What is asked of a span (`{"电影": ["导演"]}`) is a prompt of its own, `无间道的导演`;
    of a choice, `情感倾向[正向，负向]`, the span is an option, in the prompt.

    An end goes with the nearest start before it that no other end has. A text that is longer than an input is read in
    windows that overlap; a choice is the option that most of them choose.

    Rows are `{"text": str, "answers": {...}}`, the answers as the task gives them (`bert4x.tasks.schema`), but without
    probabilities: what `readers.read_answers` gives. The head is that of the model's checkpoint, where that is a UIE,
    such that training goes on with it.

    Args:
        schema: what to look for; a published model has none of its own, and takes any.
        threshold: the probability that a start, and an end, must pass.
        negatives: of training, prompts about what a text does not have, for each about what it has, at most.
    Raises: DataError for a schema that is none; ConfigError for a model that reads in one direction.
    """

    name = "universal-extraction"
    best = "f1"
    settings = ("schema", "threshold", "negatives", "dropout")
    least_head_rate = LEAST_HEAD_RATE

    def __init__(
        self,
        backbone,
        schema: str | dict | Sequence | None = None,
        threshold: float = 0.5,
        negatives: float = 5,
        dropout: float = 0.1,
        maxlen: int = 512,
    ):
        check_shares(threshold=threshold)
        if not is_number(negatives) or not negatives >= 0:
            raise ConfigError(f"negatives = {negatives!r}; expected a number of prompts, from 0")
        check_sees_all(backbone.config)
        self.wanted = parse_schema(schema) if schema else ()
        self.question = functools.lru_cache(QUESTIONS)(self.encoded)  # prompts are asked of many texts
        report = getattr(backbone, "load_report", None)
        held = report.head if report and not report.head_in_use and report.head else None
        held = held if held and held.task == self.name else None
        if held:
            report.head_in_use = True
        super().__init__(
            backbone, maxlen, schema=spelled(self.wanted), threshold=threshold, negatives=negatives, dropout=dropout
        )
        if held:
            assign_head(self.head, held, "the checkpoint of the model")
        self.check_schema(self.wanted)

    def build(self):
        h = L.Dropout(self.dropout, name="Span-Dropout", dtype="float32")(states_of(self.backbone))
        begin = {"kernel_initializer": L.initializer(0.02), "bias_initializer": keras.initializers.Constant(BEGIN)}
        scores = [L.Dense(1, name=f"Span-{end}", dtype="float32", **begin)(h) for end in ("Start", "End")]
        return keras.Model(self.backbone.inputs, keras.layers.Concatenate(name="Span-Scores", dtype="float32")(scores))

    def check_schema(self, wanted: Sequence[Wanted]) -> None:
        """Raises: InputError for a name that is too long to be asked; DataError for a choice of nothing."""
        for one in wanted:
            length = len(self.question(prompt(one).text).token_ids)
            if length > self.longest_prompt:
                raise InputError(
                    f"{one.name!r:.80} has {length} tokens; at maxlen = {self.maxlen} a prompt has up to "
                    f"{self.longest_prompt}"
                )
            self.check_schema(one.parts)

    @property
    def longest_prompt(self) -> int:
        """Tokens of a prompt at most."""
        return int(PROMPT * (self.maxlen - sum(map(len, specials(self.tokenizer)))))

    def encoded(self, text: str) -> Encoded:
        return Encoded(text, *encode_with_offsets(self.tokenizer, text))

    def windows(self, text: Encoded, asked: Prompt, spans: Sequence[tuple[int, int]] = ()) -> list[Window]:
        return prompt_windows(self.tokenizer, self.maxlen, text, self.question(asked.text), asked, spans)

    def check(self, rows):
        check_keys(rows, "text", "answers")
        for number, row in enumerate(rows):
            check_texts([row["text"]], number)

    def prepare(self, rows):
        """The prompts of each row: about what it has, and some about what it has not. `skipped` counts the spans left
        out: "span that is no run of tokens, or in no window"; and "no text".

        Raises: DataError for answers that the schema does not name, or that are not in their text.
        """
        self.check(rows)
        generator, examples = np.random.default_rng(0), []
        for row in rows:
            text = self.encoded(row["text"])
            if not text.token_ids:
                self.skipped["no text"] += 1
                continue
            for asked, spans in with_negatives(gold_of(row, self.wanted), self.negatives, generator):
                if len(self.question(asked.text).token_ids) > self.longest_prompt:
                    self.skipped["prompt that is too long"] += 1
                    continue
                windows = self.windows(text, asked, spans)
                held = {span for window in windows for span in window.spans}
                examples += windows
                self.skipped["span that is no run of tokens, or in no window"] += max(0, len(spans) - len(held))
        self.skipped += Counter()  # without what was counted 0 times
        return examples

    def batch(self, examples, length, draw=None):
        """Shape: token and segment ids (B, T); what is a start or an end (B, T, 2), which tokens are real (B, T)"""
        labels, real = np.zeros((len(examples), length, 2), "int8"), np.zeros((len(examples), length), "int8")
        for row, window in enumerate(examples):
            real[row, : window.length] = 1
            for first, last in window.spans:
                labels[row, first, 0] = labels[row, last, 1] = 1
        return self.inputs(examples, length), (labels, real)

    def inputs(self, windows: Sequence[Window], length: int | None = None) -> list[np.ndarray]:
        """What the model takes. Shape: -> 1 or 2 x (B, T)"""
        ids = self.padded([window.token_ids for window in windows], length, self.pad_id)
        segments = [[0] * window.first + [1] * (window.length - window.first) for window in windows]
        return self.model_inputs(ids, self.padded(segments, ids.shape[1]))

    def loss(self, outputs, targets):
        """The mean over tokens of the binary cross-entropies of starts and ends."""
        scores, labels = ops.cast(outputs, "float32"), ops.cast(targets[0], "float32")
        each = ops.mean(ops.softplus(scores) - labels * scores, axis=-1)
        return ops.mean(token_mean(each, ops.cast(targets[1], "bool")))

    def divergence(self, outputs, others):
        """The mean over tokens of the Kullback-Leibler divergences of starts and ends."""
        ours, theirs = (ops.cast(scores, "float32") for scores in (outputs, others))
        each = ops.sigmoid(ours) * (ours - theirs) + ops.softplus(theirs) - ops.softplus(ours)
        return ops.mean(ops.sum(each, axis=-1))

    def read(self, window: Window, text: str, asked: Prompt, odds: np.ndarray) -> list[dict[str, Any]]:
        """What a window answers, from its probabilities (T, 2)."""
        if asked.options:
            chosen = [
                {"text": asked.text[slice(*place)], "probability": float(odds[first, 0] * odds[last, 1])}
                for place, (first, last) in zip(asked.options, window.options, strict=True)
                if min(odds[first, 0], odds[last, 1]) > self.threshold
            ]
            return sorted(chosen, key=lambda one: -one["probability"])
        odds = odds[window.first : window.first + len(window.offsets)]
        starts, ends = (np.flatnonzero(odds[:, i] > self.threshold) for i in (0, 1))
        found, before = [], -1
        for last in ends.tolist():
            possible = starts[(starts > before) & (starts <= last)]
            before = last
            if len(possible) and window.owned[0] <= possible[-1] < window.owned[1]:
                first = int(possible[-1])
                start, end = window.offsets[first][0], window.offsets[last][1]
                place = {"text": text[start:end], "start": start, "end": end}
                found.append(place | {"probability": float(odds[first, 0] * odds[last, 1])})
        return found

    def ask(self, asked: Sequence[tuple[Encoded, Prompt]], batch_size: int = 32) -> list[list[dict[str, Any]]]:
        """The answers to each prompt about a text, by where they stand."""
        windows = [(n, window) for n, pair in enumerate(asked) for window in self.windows(*pair)]
        answers: list[list[dict]] = [[] for _ in windows]
        for chosen in batches_by_length([window.length for _, window in windows], batch_size):
            scores = self.predict(self.model, self.inputs([windows[place][1] for place in chosen]))
            for place, odds in zip(chosen, np.exp(-np.logaddexp(0, -np.asarray(scores, "float32"))), strict=True):
                n, window = windows[place]
                answers[place] = self.read(window, asked[n][0].text, asked[n][1], odds)
        found: list[list[list[dict]]] = [[] for _ in asked]
        for (n, _), answer in zip(windows, answers, strict=True):
            found[n].append(answer)
        return [
            chosen_by_most(each) if question.options else [span for spans in each for span in spans]
            for (_, question), each in zip(asked, found, strict=True)
        ]

    def __call__(self, texts: str | Sequence[str], batch_size: int = 32, schema=None):
        """The answers about a text; of a list, one for each: `{name: [{"text", "start", "end", "probability",
        "relations": {name: [...]}}]}`, with the characters `text[start:end]` of the original, by where they stand.

        Args:
            schema: another than the task's own, this time.
        Raises: InputError for what is no text; ConfigError without a schema; those of a schema that is none.
        """
        one, several = as_texts(texts)
        wanted = parse_schema(schema) if schema else self.wanted
        if not wanted:
            raise ConfigError(
                "nothing to look for: give a schema, as in pipeline('universal-extraction', folder, schema=['人物'])"
            )
        if schema:
            self.check_schema(wanted)
        roots: list[dict] = [{} for _ in several]  # of which all else is a relation
        encoded = [self.encoded(text) for text in several]
        written = [(i, root) for i, root in enumerate(roots) if encoded[i].token_ids]
        asked = [(i, root, prompt(each), each) for i, root in written for each in wanted]
        while asked:
            unique = list(dict.fromkeys((i, question) for i, _, question, _ in asked))
            answers = self.ask([(encoded[i], question) for i, question in unique], batch_size)
            found, following = dict(zip(unique, answers, strict=True)), []
            for i, of, question, each in asked:
                spans = [dict(span) for span in found[i, question]]
                if spans:
                    of.setdefault("relations", {})[each.name] = spans
                following += [(i, span, prompt(part, span["text"]), part) for span in spans for part in each.parts]
            asked = [question for question in following if self.can_ask(question[2])]
        results: list[Answers] = [root.get("relations", {}) for root in roots]
        return results[0] if one else results

    def can_ask(self, question: Prompt) -> bool:
        """Whether a prompt leaves room for a text; of one that does not it warns."""
        fits = len(self.question(question.text).token_ids) <= self.longest_prompt
        if not fits:
            warnings.warn(
                f"not asked, as it has more than {self.longest_prompt} tokens: {question.text[:40]!r} ... A larger "
                "maxlen leaves room for it",
                stacklevel=3,
            )
        return fits

    @watched
    def evaluate(self, rows, batch_size=32):
        """Micro precision, recall and F1 of all that is answered; and the F1 of what is found by itself (by its
        characters; of choices by their words), and of relations alone (by the tokens of both sides, as for triples).
        """
        self.check(rows)
        for row in rows:
            gold_of(row, self.wanted)
        ours, gold = self([row["text"] for row in rows], batch_size), [row["answers"] for row in rows]
        found = count([found_in(one) for one in ours], [found_in(one) for one in gold])
        related = count_triples(
            [list(related_in(one)) for one in ours], [list(related_in(one)) for one in gold], self.tokenizer.tokenize
        )
        total = found + related
        scores = {name: getattr(total, name) for name in ("f1", "precision", "recall")}
        parts = {"entity_f1": found, "relation_f1": related}
        return {k: float(v) for k, v in (scores | {k: c.f1 for k, c in parts.items() if c.gold}).items()}


def chosen_by_most(windows: Sequence[list[dict]]) -> list[dict]:
    """The option that most windows of a text choose first, with the mean of its probabilities; of as many the likelier.
    None where none chooses.
    """
    odds: dict[str, list[float]] = {}
    for first in (chosen[0] for chosen in windows if chosen):
        odds.setdefault(first["text"], []).append(first["probability"])
    best = sorted(odds, key=lambda option: (-len(odds[option]), -sum(odds[option])))
    return [{"text": option, "probability": sum(odds[option]) / len(odds[option])} for option in best[:1]]
