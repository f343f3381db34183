"""Beam search, as transformers 5 defines it: its results and scores are the same."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from bert4x.generation.options import GenerationOptions
from bert4x.generation.rules import NEVER, possible
from bert4x.generation.sampling import highest
from bert4x.generation.search import Rules, is_any, with_room
from bert4x.models.cache import Cache, repeated
from bert4x.numpy_ops import ops_of


class Beams(NamedTuple):
    """What beam search carries from step to step: K running and K finished sequences for each of B prompts.

    Shape: step () int32, token (B * K,) int32, finished (B,) bool, ids (B * K, S) int32 with -1 in empty slots,
    scores (B, K) float32, log_probabilities (B * K, N) float32 of the new tokens; of the finished sequences, best
    first: ended (B, K) bool, ended_ids (B, K, N) int32, ended_scores (B, K) float32, log p / length ** penalty,
    ended_log_probabilities (B, K, N) float32
    """

    step: Any
    token: Any
    finished: Any
    ids: Any
    scores: Any
    log_probabilities: Any
    ended: Any
    ended_ids: Any
    ended_scores: Any
    ended_log_probabilities: Any
    cache: Cache


class Candidates(NamedTuple):
    """The likeliest continuations of all beams of each prompt, best first: which beam goes on with which token.

    Shape: scores (B, M) float32, the log-probability of the whole; beam (B, M) int32, token (B, M) int32
    """

    scores: Any
    beam: Any
    token: Any


@dataclass(frozen=True)
class BeamSearch:
    """The K likeliest sequences of each prompt; fewer where the rules allow no more.

    Each step ranks the continuations of all running beams. Enough of them are looked at that K can go on even if the
    best all end. A prompt is finished when its K sequences have ended and none running can become better: by its
    score at its length now (`early_stopping=False`), at the greatest length ("never"), or in any case (True).
    """

    room: int
    rules: Rules
    beams: int
    early_stopping: bool | str

    @classmethod
    def of(cls, options: GenerationOptions, room: int) -> "BeamSearch":
        """As the options ask for."""
        return cls(room, Rules.of(options), options.num_beams, options.early_stopping)

    def begin(self, logits, cache: Cache, prompt: dict[str, Any], given: dict[str, Any]) -> Beams:
        """The state after the first tokens."""
        return self.choose(*self.begun(logits, cache, prompt, given), given)

    def begun(self, logits, cache: Cache, prompt: dict[str, Any], given: dict[str, Any]) -> tuple[Beams, Any]:
        """The state before the first tokens, and the logits of each beam; all beams of a prompt start alike, so only
        the first one counts.
        """
        ops = ops_of(logits)
        batch, beams = logits.shape[0], self.beams
        ids, logits = (repeated(x, beams) for x in (with_room(prompt, self.room), logits))
        first = ops.arange(beams)[None, :] == 0
        state = Beams(
            step=ops.zeros((), "int32"),
            token=ops.zeros((batch * beams,), "int32"),
            finished=ops.logical_not(given["real"]),
            ids=ids,
            scores=ops.broadcast_to(ops.where(first, 0.0, NEVER), (batch, beams)),
            log_probabilities=ops.zeros((batch * beams, self.room), "float32"),
            ended=ops.zeros((batch, beams), "bool"),
            ended_ids=ops.full((batch, beams, self.room), -1, "int32"),
            ended_scores=ops.full((batch, beams), NEVER, "float32"),
            ended_log_probabilities=ops.zeros((batch, beams, self.room), "float32"),
            cache=cache.repeated(beams),
        )
        return state, logits

    def choose(self, state: Beams, logits, given: dict[str, Any]) -> Beams:
        """The state with one more token in every beam.

        Shape: logits (B * K, V)
        """
        return self.take(state, self.rank(state, logits, given), given)[0]

    def rank(self, state: Beams, logits, given: dict[str, Any]) -> Candidates:
        """The likeliest continuations: so many that K can go on even if as many end as there are stop tokens.

        Shape: logits (B * K, V)
        """
        ops = ops_of(logits)
        (batch, beams), vocabulary = state.scores.shape, logits.shape[1]
        start = state.ids.shape[1] - self.room
        scores = self.rules(ops.log_softmax(logits, axis=-1), state.ids, state.step, start + state.step, given)
        scores = ops.reshape(ops.reshape(scores, (batch, beams, vocabulary)) + state.scores[:, :, None], (batch, -1))
        looked_at = min(max(2, 1 + given["stop_ids"].shape[0]) * beams, beams * vocabulary)
        scores, place = highest(scores, looked_at)
        return Candidates(scores, place // vocabulary, place % vocabulary)

    def take(self, state: Beams, found: Candidates, given: dict[str, Any], stopped=None) -> tuple[Beams, Any]:
        """The state with one more token in every beam, and which candidates went on; `stopped` says which of them end
        for other reasons than their token and their length.

        Shape: stopped (B, M) bool -> Beams, (B, K) int32
        """
        ops = ops_of(state.scores)
        (batch, beams), start = state.scores.shape, state.ids.shape[1] - self.room
        scores, beam, token = found
        length = state.step + 1
        ends = ops.logical_or(is_any(token, given["stop_ids"]), length >= given["max_new_tokens"])
        ends = ends if stopped is None else ops.logical_or(ends, stopped)
        gained = scores - pick(state.scores, beam)
        new = [(state.ids[:, start:], token), (state.log_probabilities, gained)]
        new = [
            ops.slice_update(
                pick(ops.reshape(old, (batch, beams, self.room)), beam), (0, 0, state.step), at[:, :, None]
            )
            for old, at in new
        ]
        ended, ended_scores, *ended_values = self.keep_ended(state, new, scores, ends, length, given)

        running, going_on = ops.top_k(scores + ops.where(ends, NEVER, 0.0), beams)
        rows = ops.reshape(pick(beam, going_on) + beams * ops.arange(batch, dtype="int32")[:, None], (-1,))
        token = ops.reshape(pick(token, going_on), (-1,))
        ids, log_probabilities = (ops.reshape(pick(x, going_on), (batch * beams, self.room)) for x in new)
        ids = ops.concatenate([state.ids[:, :start], ids], axis=1)
        hopeless = ops.logical_not(self.can_improve(running, ended, ended_scores, length, given))
        after = Beams(
            step=length,
            token=token,
            finished=ops.logical_or(state.finished, hopeless),
            ids=ids,
            scores=running,
            log_probabilities=log_probabilities,
            ended=ended,
            ended_ids=ended_values[0],
            ended_scores=ended_scores,
            ended_log_probabilities=ended_values[1],
            cache=state.cache.reordered(rows, start),
        )
        return after, going_on

    def keep_ended(self, state: Beams, new, scores, ends, length, given: dict[str, Any]):
        """The K best of the sequences that ended before and those that end now among the K likeliest; none of those
        with a token that must not come.

        Shape: two (B, M, N), (B, M), (B, M), () -> (B, K), (B, K), and two (B, K, N)
        """
        ops = ops_of(scores)
        beams = self.beams
        among_best = ops.arange(ends.shape[1])[None, :] < beams
        ends = ops.logical_and(ends, ops.logical_and(among_best, ops.logical_not(state.finished)[:, None]))
        ends = ops.logical_and(ends, possible(scores))
        penalized = scores / self.penalty(length, given)
        all_scores = ops.concatenate([state.ended_scores, ops.where(ends, penalized, NEVER)], axis=1)
        kept_scores, kept = ops.top_k(all_scores, beams)
        before = state.ended, state.ended_ids, state.ended_log_probabilities
        pools = (ops.concatenate(pair, axis=1) for pair in zip(before, (ends, *new), strict=True))
        ended, *values = (pick(pool, kept) for pool in pools)
        return ended, kept_scores, *values

    def penalty(self, length, given: dict[str, Any]):
        """What the log-probability of a sequence of this length is divided by.

        Shape: () int32 -> () float32
        """
        return ops_of(length).cast(length, "float32") ** given["length_penalty"]

    def can_improve(self, running, ended, ended_scores, length, given: dict[str, Any]):
        """Whether the best running beam can still become one of the K.

        Shape: (B, K), (B, K), (B, K), () -> (B,) bool
        """
        ops = ops_of(running)
        full = ops.all(ended, axis=1)
        longest = given["max_new_tokens"] if self.early_stopping == "never" else length
        reach = ops.where(given["length_penalty"] > 0, longest, length)
        reachable = running[:, 0] / self.penalty(reach, given)
        better = reachable > ops.where(full, ops.min(ended_scores, axis=1), NEVER)
        better = ops.logical_and(better, possible(running[:, 0]))
        return ops.logical_and(better, ops.logical_not(full)) if self.early_stopping is True else better


def pick(values, index):
    """Items of each row.

    Shape: (B, M, ...), (B, K) -> (B, K, ...)
    """
    ops = ops_of(values)
    batch, count = values.shape[:2]
    rows = index + count * ops.arange(batch, dtype="int32")[:, None]
    return ops.take(ops.reshape(values, (batch * count, *values.shape[2:])), rows, axis=0)
