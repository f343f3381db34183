"""Positions: a model has so many, and a text that needs more is an error, or is seen through a sliding window."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.batch import Prompt
from bert4x.generation.engine import Engine
from bert4x.generation.options import GenerationOptions
from bert4x.generation.output import Output, Token
from bert4x.generation.sampling import uniforms


def positions_of(builder) -> int:
    """How many positions a model has."""
    config = builder.config
    return config.max_position**2 if config.hierarchical_position else config.max_position


def check_positions(builder, prompts: Sequence[Prompt], options: GenerationOptions) -> None:
    """Raises: GenerationError when more positions are needed than there are, and no sliding window is allowed."""
    limit, longest = positions_of(builder), max(len(prompt.ids) for prompt in prompts)
    if options.sliding_window:
        if builder.application in ("unilm", "seq2seq"):
            raise GenerationError("only a language model can forget the beginning of its text; shorten the source")
        return
    if longest > limit:
        raise GenerationError(
            f"a prompt has {longest} tokens, the model positions for {limit}; shorten it, or give sliding_window=True"
        )
    if builder.application == "seq2seq":
        longest = 1  # the target has positions of its own, and begins with one token
    if longest + options.max_new_tokens > limit:
        raise GenerationError(
            f"{longest} tokens of prompt and {options.max_new_tokens} new ones need more than the {limit} positions of "
            f"the model; max_new_tokens can be {limit - longest}, or give sliding_window=True"
        )


def fits(engine: Engine, prompts: Sequence[Prompt], options: GenerationOptions) -> bool:
    """Whether one window is enough."""
    longest = max(len(prompt.ids) for prompt in prompts)
    return not options.sliding_window or longest + options.max_new_tokens <= positions_of(engine.builder)


def decode_in_windows(
    engine: Engine, prompts: Sequence[Prompt], options: GenerationOptions, ended: Callable | None = None
) -> Output:
    """`Engine.decode`; rows that need more positions than there are go through windows, one after the other."""
    if fits(engine, prompts, options):
        return engine.decode(prompts, options, ended=ended)
    copies, random = options.num_return_sequences, None
    if options.samples:
        random = uniforms(options.seed, [prompt.ids for prompt in prompts], copies, options.max_new_tokens)
    one = dataclasses.replace(options, num_return_sequences=1, do_sample=options.samples)
    ids = np.full((len(prompts) * copies, options.max_new_tokens), -1, "int32")
    log_probabilities = np.zeros(ids.shape, "float32")
    for row in range(len(ids)):
        tokens = stream_in_windows(engine, prompts[row // copies], one, None if random is None else random[row, None])
        for column, token in enumerate(tokens):
            ids[row, column], log_probabilities[row, column] = token.id, token.log_probability
            if ended is not None and ended(row, ids[row]):
                break
    longest = int((ids >= 0).sum(axis=1).max())
    return Output(ids[:, :longest], log_probabilities.sum(axis=1), log_probabilities[:, :longest])


def stream_in_windows(
    engine: Engine, prompt: Prompt, options: GenerationOptions, random: np.ndarray | None = None
) -> Iterator[Token]:
    """`Engine.stream`; when no positions are left, it goes on from the second half of what there is."""
    if options.samples and random is None:
        random = uniforms(options.seed, [prompt.ids], 1, options.max_new_tokens)
    options, done = dataclasses.replace(options, do_sample=options.samples), 0
    while done < options.max_new_tokens:
        prompt = window(engine, prompt)
        now = part(options, done, positions_of(engine.builder) - len(prompt.ids))
        new = []
        for token in engine.stream(prompt, now, None if random is None else random[:, done:]):
            yield token
            if token.is_stop:
                return
            new.append(token.id)
        if len(new) < now.max_new_tokens:  # no token was allowed
            return
        done, prompt = done + len(new), joined(prompt, np.array(new, "int32"))


def window(engine: Engine, prompt: Prompt) -> Prompt:
    """What is still seen of a text that leaves no positions: as many of its last tokens as half the positions."""
    limit = positions_of(engine.builder)
    if len(prompt.ids) < limit:
        return prompt
    kept = max(limit // 2, 1)
    return Prompt(prompt.ids[-kept:], prompt.segments[-kept:])


def joined(prompt: Prompt, new: np.ndarray) -> Prompt:
    """A prompt and what was written after it."""
    return Prompt(np.append(prompt.ids, new), np.append(prompt.segments, np.full_like(new, prompt.segments[-1])))


def part(options: GenerationOptions, done: int, room: int) -> GenerationOptions:
    """The options for what is left after `done` tokens, at most `room` more."""
    now = min(options.max_new_tokens - done, room)
    forced = {at - done: token for at, token in options.forced_ids.items() if done <= at < done + now}
    least = min(max(options.min_new_tokens - done, 0), now)
    return dataclasses.replace(options, max_new_tokens=now, min_new_tokens=least, forced_ids=forced)
