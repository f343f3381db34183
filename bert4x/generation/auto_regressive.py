"""bert4keras' decoder: a class whose `predict` the user writes, for any model and any inputs.

`model.generate` is faster, as it remembers what it has read; this class is for scripts that exist, and for what a
model alone does not express: several inputs at once, scores put together from several models, constraints.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.sampling import draw

RTYPES = ("probas", "logits")


class AutoRegressiveDecoder:
    """Beam search and sampling around a `predict` of your own; a subclass of bert4keras' class runs unchanged.

        class AutoTitle(AutoRegressiveDecoder):
            @AutoRegressiveDecoder.wraps(default_rtype="probas")
            def predict(self, inputs, output_ids, states):
                token_ids, segment_ids = inputs
                token_ids = np.concatenate([token_ids, output_ids], 1)
                segment_ids = np.concatenate([segment_ids, np.ones_like(output_ids)], 1)
                return self.last_token(model).predict([token_ids, segment_ids])

        title = AutoTitle(start_id=None, end_id=tokenizer._token_end_id, maxlen=32)
        ids = title.beam_search([token_ids, segment_ids], topk=3)

    `start_id` (None for none) begins every output. An output ends at `end_id`, has at most `maxlen` tokens after
    `start_id`, and at least `minlen` tokens, `start_id` and `end_id` counted.

    What differs from bert4keras, on purpose:

    - An output that ends among the `topk` best is remembered, and `topk` others go on; there, one that ended was
      forgotten unless it was the best at that moment, and the beams became fewer. The search is over when none can
      still overtake the best that has ended. Scores are sums of log-probabilities, as there, which favours short
      outputs: `minlen` forbids what is too short.
    - `states` follow their beams: arrays (also in tuples, lists and dicts) whose first axis is as long as there are
      beams are reordered; anything else, a counter for example, is handed on as it is. So are `inputs`.
    - Before `minlen`, an output does not end; there, it went on after its `end_id`.
    - A token of probability 0 is never chosen; there, it had log 1e-12.
    - `random_sample` returns the samples in their order, not in the order of their ends.

    Raises: GenerationError for sizes that cannot be, and for a `predict` whose result is no distribution.
    """

    def __init__(self, start_id: int | None, end_id: int | None, maxlen: int, minlen: int = 1):
        if maxlen < 1 or minlen > maxlen + (start_id is not None):
            raise GenerationError(f"maxlen={maxlen}, minlen={minlen}; expected maxlen from 1, and minlen within it")
        self.start_id, self.end_id, self.maxlen, self.minlen = start_id, end_id, maxlen, minlen
        self.models: dict[int, Any] = {}
        self.first_output_ids = np.array([[start_id]]) if start_id is not None else np.empty((1, 0), dtype=int)

    @staticmethod
    def wraps(default_rtype: str = "probas", use_states: bool = False) -> Callable:
        """Makes a `predict(self, inputs, output_ids, states)` one that takes a temperature and a result type as well.

        `default_rtype` is what the function returns: "probas", which need not sum to 1, or "logits", of any offset.
        With `use_states` it returns `(result, states)`. The new function is
        `predict(inputs, output_ids, states, temperature=1, rtype=default_rtype) -> (result, states)`, the result
        probabilities or, with rtype "logits", their logarithms.

        Shape: inputs (N, ...) each, output_ids (N, t) -> (N, V)
        """
        _check_rtype(default_rtype)

        def decorate(predict: Callable) -> Callable:
            @functools.wraps(predict)
            def predict_as(self, inputs, output_ids, states=None, temperature=1, rtype=default_rtype):
                _check_rtype(rtype)
                result = predict(self, inputs, output_ids, states)
                result, states = result if use_states else (result, None)
                scores = _scores(np.asarray(result), default_rtype, temperature)
                return (np.exp(scores) if rtype == "probas" else scores), states

            return predict_as

        return decorate

    def last_token(self, model):
        """The model's prediction for its last token: an object whose `predict(inputs)` gives (N, V).

        For a model of bert4x the head is computed for that token only. Made once for each model.
        """
        if id(model) not in self.models:
            from bert4x.generation.last_token import LastToken

            self.models[id(model)] = LastToken(model)
        return self.models[id(model)]

    def predict(self, inputs, output_ids, states=None, temperature=1, rtype="probas"):
        """What comes next; a subclass writes it, under `wraps`."""
        raise NotImplementedError(f"{type(self).__name__} has no predict(self, inputs, output_ids, states)")

    def beam_search(self, inputs, topk: int, states=None, temperature=1, min_ends: int = 1) -> np.ndarray:
        """The likeliest output that `topk` beams find, start and end tokens included.

        `inputs` are those of one sample, without a batch axis; `predict` gets them with one: of 1 at first, then of
        one row for each beam. An output ends with its `min_ends`-th `end_id`.

        Shape: any list of arrays -> (T,) ids
        """
        _check_count("topk", topk)
        inputs, outputs, totals = _one_row(inputs), np.array(self.first_output_ids), np.zeros(1)
        ended, ended_score = None, -np.inf
        for _ in range(self.maxlen):
            scores, states = self._next(inputs, outputs, states, temperature, "logits", min_ends)
            totals = totals[:, None] + scores
            is_end = self._ending(outputs, totals.shape[1], min_ends)
            best = highest(totals.ravel(), topk)
            for row, token in zip(*np.divmod(best[is_end.flat[best]], totals.shape[1]), strict=True):
                if totals[row, token] > ended_score:
                    ended, ended_score = np.append(outputs[row], token), totals[row, token]
            totals[is_end] = -np.inf
            best = highest(totals.ravel(), topk)
            best = best[totals.flat[best] > ended_score]
            if not len(best):  # none goes on, or none can still overtake: scores only fall
                break
            rows, tokens = np.divmod(best, totals.shape[1])
            outputs = np.concatenate([outputs[rows], tokens[:, None]], axis=1)
            inputs, states = take_rows([inputs, states], rows, len(totals))
            totals = totals[rows, tokens]
        return outputs[0] if ended is None or len(best) else ended

    def random_sample(
        self,
        inputs,
        n: int,
        topk: int | None = None,
        topp: float | None = None,
        states=None,
        temperature=1,
        min_ends: int = 1,
    ) -> list[np.ndarray]:
        """`n` outputs drawn at random, from the `topk` likeliest tokens, or from those that have probability `topp`
        together (of the `topk`, when both are given); 1 or more leaves none out. `np.random.seed` makes them come out
        the same, and the same as bert4keras', which returns those that ended first before the others.

        Shape: any list of arrays -> n times (T,) ids
        """
        _check_count("n", n)
        if topk is not None:
            _check_count("topk", topk)
        if topp is not None and not topp > 0:
            raise GenerationError(f"topp={topp}; expected a number above 0")
        inputs, outputs = _one_row(inputs), np.array(self.first_output_ids)
        results: list[np.ndarray] = [outputs[0]] * n
        numbers = np.arange(n)  # of the samples that go on
        for step in range(self.maxlen):
            probabilities, states = self._next(inputs, outputs, states, temperature, "probas", min_ends)
            if step == 0:
                rows = np.zeros(n, int)
                inputs, states = take_rows([inputs, states], rows, 1)
                outputs, probabilities = outputs[rows], probabilities[rows]
            ids, weights = candidates(probabilities, topk, topp)
            drawn = draw(weights, np.random.random_sample(len(weights)))
            tokens = np.take_along_axis(ids, drawn[:, None], axis=1)[:, 0]
            outputs = np.concatenate([outputs, tokens[:, None]], axis=1)
            going = (tokens != self.end_id) | (self._ends(outputs) < min_ends)
            for number, output in zip(numbers, outputs, strict=True):
                results[number] = output
            rows = np.flatnonzero(going)
            if not len(rows):
                break
            inputs, states = take_rows([inputs, states], rows, len(outputs))
            outputs, numbers = outputs[rows], numbers[rows]
        return results

    def _next(self, inputs, outputs, states, temperature, rtype: str, min_ends: int) -> tuple[np.ndarray, Any]:
        """What `predict` says, without the end that would come before `minlen`."""
        scores, states = self.predict(inputs, outputs, states, temperature, rtype)
        scores = np.array(scores, np.float64)
        if scores.ndim != 2 or len(scores) != len(outputs):
            raise GenerationError(
                f"predict returned shape {scores.shape} for {len(outputs)} outputs; expected ({len(outputs)}, V): "
                "the scores of the next token only"
            )
        if self.end_id is not None and not 0 <= self.end_id < scores.shape[1]:
            raise GenerationError(f"end_id={self.end_id} is none of the {scores.shape[1]} tokens that predict scores")
        if self.end_id is not None and outputs.shape[1] + 1 < self.minlen:
            scores[self._ending(outputs, scores.shape[1], min_ends)] = 0 if rtype == "probas" else -np.inf
        return scores, states

    def _ending(self, outputs: np.ndarray, vocab_size: int, min_ends: int) -> np.ndarray:
        """Which next tokens would end which outputs. Shape: (N, t) -> (N, V) bool"""
        ending = np.zeros((len(outputs), vocab_size), bool)
        if self.end_id is not None:
            ending[:, self.end_id] = self._ends(outputs) + 1 >= min_ends
        return ending

    def _ends(self, outputs: np.ndarray) -> np.ndarray:
        """How often each output has the end token."""
        return (outputs == self.end_id).sum(axis=1)


def highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Where the highest scores are, the highest first, of equal ones the first.

    Shape: (S,) -> (min(count, S),) int
    """
    best = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    return best[np.lexsort((best, -scores[best]))]


def take_rows(values, rows: np.ndarray, count: int):
    """The rows of every array in a nest whose first axis has `count`; everything else as it is.

    Shape: (`count`, ...) -> (len(`rows`), ...)
    """
    if isinstance(values, dict):
        return {key: take_rows(value, rows, count) for key, value in values.items()}
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(take_rows(value, rows, count) for value in values))
    if isinstance(values, list | tuple):
        return type(values)(take_rows(value, rows, count) for value in values)
    shape = getattr(values, "shape", ())
    if len(shape) == 0 or shape[0] != count:
        return values
    if isinstance(values, np.ndarray):
        return values[rows]
    from keras import ops

    return ops.take(values, rows, axis=0)


def candidates(probabilities: np.ndarray, topk: int | None, topp: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that are drawn from, and their weights: of the k likeliest the fewest that have probability p
    together. They stand in the order of bert4keras, on which it depends what a random number draws.

    Shape: (N, V) -> (N, C) int, (N, C)
    Raises: GenerationError for a row without any probability.
    """
    sums = probabilities.sum(axis=1, keepdims=True)
    if not (sums > 0).all():
        raise GenerationError("predict left no token to choose from: all probabilities are 0")
    weights = probabilities / sums
    tokens = np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    orders = weights.astype(np.float32)  # NumPy orders float64 otherwise, on some processors
    if topk is not None and topk < weights.shape[1]:
        tokens = np.argpartition(orders, -topk, axis=1)[:, -topk:]
        weights, orders = (np.take_along_axis(each, tokens, axis=1) for each in (weights, orders))
    if topp is not None:
        falling = np.argsort(orders, axis=1)[:, ::-1]
        tokens, weights = (np.take_along_axis(each, falling, axis=1) for each in (tokens, weights))
        sums = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
        weights[:, 1:][(sums[:, :-1] >= topp) & (topp < 1)] = 0
    return tokens, weights


def _scores(result: np.ndarray, rtype: str, temperature: float) -> np.ndarray:
    """Logarithms of what `predict` returned; normalised unless they are probabilities left as they are."""
    result = result.astype(np.float64)
    if np.isnan(result).any():
        raise GenerationError("predict returned NaN")
    if not temperature > 0:
        raise GenerationError(f"temperature={temperature}; expected a number above 0")
    if rtype == "probas":
        if (result < 0).any():
            raise GenerationError(
                "predict returned negative numbers as probabilities; if they are logits, decorate it with "
                "wraps(default_rtype='logits')"
            )
        with np.errstate(divide="ignore"):
            result = np.log(result)
        if temperature == 1:
            return result
    result = result / temperature
    total = np.logaddexp.reduce(result, axis=-1, keepdims=True)
    return result - np.where(np.isfinite(total), total, 0)


def _one_row(inputs) -> list[np.ndarray]:
    """Each input with a batch axis of 1, copied, so that `predict` may write into it."""
    return [np.array(values)[None] for values in inputs]


def _check_rtype(rtype: str) -> None:
    if rtype not in RTYPES:
        raise GenerationError(f"rtype {rtype!r}; expected 'probas' or 'logits'")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise GenerationError(f"{name}={value}; expected at least 1")
