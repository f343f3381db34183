"""Searches: what decoding carries from step to step, and how it chooses the next token. Here: one sequence a row."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from bert4x.generation import rules, sampling
from bert4x.generation.options import GenerationOptions
from bert4x.models.cache import Cache
from bert4x.numpy_ops import ops_of


@dataclass(frozen=True)
class Rules:
    """Which rules are at work. What they are given (penalties, ids) are tensors, so that new values compile nothing."""

    penalty: bool
    ngram: int
    suppress: bool
    minimum: bool
    force: bool

    @classmethod
    def of(cls, options: GenerationOptions) -> "Rules":
        """Those that the options ask for."""
        return cls(
            penalty=options.repetition_penalty != 1,
            ngram=options.no_repeat_ngram_size,
            suppress=bool(options.suppress_ids or options.form),
            minimum=options.min_new_tokens > 0 and bool(options.stop_ids),
            force=bool(options.forced_ids),
        )

    def __call__(self, scores, ids, step, length, given: dict[str, Any]):
        """The scores after all rules; `step` tokens are new, `length` slots of `ids` in use.

        Shape: (B, V), (B, S), (), () -> (B, V)
        """
        ops = ops_of(scores)
        if self.penalty:
            scores = rules.penalize_repetition(scores, ids, given["repetition_penalty"])
        if self.ngram:
            scores = rules.forbid_repeated_ngrams(scores, ids, length, self.ngram)
        if self.suppress:
            scores = rules.forbid(scores, given["suppressed"])
        if self.minimum:
            stops = is_any(ops.arange(scores.shape[1], dtype="int32"), given["stop_ids"])
            scores = rules.forbid(scores, ops.logical_and(stops, step < given["min_new_tokens"]))
        if self.force:
            scores = rules.force(scores, ops.take(given["forced_ids"], step))
        return scores


class Decoded(NamedTuple):
    """What a decoding of one sequence a row carries from step to step.

    Shape: step () int32, token (B,) int32, finished (B,) bool, ids (B, S) int32 with -1 in empty slots,
    log_probabilities (B, N) float32 of the new tokens
    """

    step: Any
    token: Any
    finished: Any
    ids: Any
    log_probabilities: Any
    cache: Cache


@dataclass(frozen=True)
class Sampling:
    """Takes the likeliest token, or draws one. `room` is for how many new tokens there are slots."""

    room: int
    rules: Rules
    samples: bool
    top_k: bool
    top_p: bool
    min_p: bool

    @classmethod
    def of(cls, options: GenerationOptions, room: int) -> "Sampling":
        """As the options ask for."""
        filters = {name: getattr(options, name) is not None for name in ("top_k", "top_p", "min_p")}
        return cls(room, Rules.of(options), options.samples, **filters)

    def begin(self, logits, cache: Cache, prompt: dict[str, Any], given: dict[str, Any]) -> Decoded:
        """The state with the first tokens chosen."""
        ops = ops_of(logits)
        batch = logits.shape[0]
        state = Decoded(
            step=ops.zeros((), "int32"),
            token=ops.zeros((batch,), "int32"),
            finished=ops.logical_not(given["real"]),
            ids=with_room(prompt, self.room),
            log_probabilities=ops.zeros((batch, self.room), "float32"),
            cache=cache,
        )
        return self.choose(state, logits, given)

    def choose(self, state: Decoded, logits, given: dict[str, Any]) -> Decoded:
        """The state with one more token.

        Shape: logits (B, V)
        """
        ops = ops_of(logits)
        length = state.ids.shape[1] - self.room + state.step
        scores = self.rules(logits, state.ids, state.step, length, given)
        token = self.draw(scores, ops.take(given["uniforms"], state.step, axis=1), given) if self.samples else None
        token = sampling.likeliest(scores) if token is None else token
        chosen = ops.take_along_axis(logits, token[:, None], axis=1)[:, 0] - ops.logsumexp(logits, axis=-1)
        # Where all tokens must not come, the row ends before it has one of them.
        over = ops.logical_or(state.finished, ops.logical_not(rules.possible(ops.max(scores, axis=-1))))
        return Decoded(
            step=state.step + 1,
            token=ops.where(over, 0, token),
            finished=ops.logical_or(over, is_any(token, given["stop_ids"])),
            ids=ops.slice_update(state.ids, (0, length), ops.where(over, -1, token)[:, None]),
            log_probabilities=ops.slice_update(
                state.log_probabilities, (0, state.step), ops.where(over, 0.0, chosen)[:, None]
            ),
            cache=state.cache,
        )

    def draw(self, scores, uniform, given: dict[str, Any]):
        """A token of each row, from the filtered distribution.

        Shape: (B, V), (B,) -> (B,) int32
        """
        ops = ops_of(scores)
        probabilities = ops.softmax(scores / given["temperature"], axis=-1)
        if self.top_k:
            probabilities = sampling.keep_top_k(probabilities, given["top_k"])
        if self.top_p:
            probabilities = sampling.keep_top_p(probabilities, given["top_p"])
        if self.min_p:
            probabilities = sampling.keep_min_p(probabilities, given["min_p"])
        return sampling.draw(probabilities, uniform)


def with_room(prompt: dict[str, Any], room: int):
    """The ids of the prompts, -1 for padding, and empty slots.

    Shape: (B, T) -> (B, T + room)
    """
    ops = ops_of(prompt["token_ids"])
    of_decoder = "target_ids" in prompt
    names = ("target_ids", "target_mask") if of_decoder else ("token_ids", "padding_mask")
    ids, mask = (prompt[name] for name in names)
    ids = ops.where(mask, ids, -1)
    return ops.concatenate([ids, ops.full((ids.shape[0], room), -1, "int32")], axis=1)


def is_any(token, ids):
    """Whether each token is one of some ids.

    Shape: (...,), (N,) -> (...,) bool
    """
    ops = ops_of(token)
    return ops.any(token[..., None] == ids, axis=-1)
