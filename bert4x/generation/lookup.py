"""Drafts copied from the prompt: what followed the last tokens when they stood there before is proposed, and a single
pass of the model says how much of it is what it would have written.

Greedy texts are the same as without, token for token; where they repeat their prompt (extraction, titles, few-shot),
they are written in fewer passes. Source: prompt lookup decoding (Saxena 2023), a form of speculative decoding without
a second model (Leviathan et al. 2023, arXiv 2211.17192).
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation import rules, sampling
from bert4x.generation.batch import Prompt
from bert4x.generation.options import GenerationOptions
from bert4x.generation.output import Output

LONGEST = 3  # tokens by which a place of the text is found again; shorter ones where those are not there


def draft_of(ids: np.ndarray, size: int) -> np.ndarray:
    """What followed the last tokens where they stood before, at most `size` tokens; none where they did not.

    Shape: (T,) -> (up to size,)
    """
    for n in range(min(LONGEST, len(ids) - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], n)
        places = np.flatnonzero((windows == ids[-n:]).all(axis=1))
        if len(places):
            start = places[-1] + n
            return ids[start : start + size]
    return ids[:0]


def decode_by_lookup(
    engine,
    prompts: Sequence[Prompt],
    options: GenerationOptions,
    ended: Callable[[int, np.ndarray], bool] | None = None,
) -> Output:
    """`Engine.decode` of greedy texts, a prompt at a time."""
    rows = [list(tokens(engine, prompt, options, number, ended)) for number, prompt in enumerate(prompts)]
    longest = max(map(len, rows))
    ids, log_probabilities = np.full((len(rows), longest), -1, "int32"), np.zeros((len(rows), longest), "float32")
    for row, found in enumerate(rows):
        for place, (token_id, log_probability) in enumerate(found):
            ids[row, place], log_probabilities[row, place] = token_id, log_probability
    return Output(ids, log_probabilities.sum(axis=1), log_probabilities)


def tokens(engine, prompt: Prompt, options: GenerationOptions, number: int, ended: Callable | None):
    """The tokens that continue a prompt, each with its log-probability."""
    search, arrays, given, _ = engine.prepare([prompt], options)
    start, _ = engine.functions(search)
    kind = "lookup", search
    if kind not in engine.compiled:
        engine.compiled[kind] = (engine.compile(functools.partial(read_ahead, engine, search)),)
    (read,) = engine.compiled[kind]
    state = start(arrays, given)
    token, cache = int(state.token[0]), state.cache
    written, first = [token], engine.ops.convert_to_numpy(state.log_probabilities)[0, 0]
    if engine.ops.convert_to_numpy(state.ids)[0, -search.room] < 0:
        return  # no token was allowed
    yield token, float(first)
    length = state.ids.shape[1] - search.room  # slots of the prompt
    text = np.asarray(prompt.ids, "int32")
    while len(written) < options.max_new_tokens and written[-1] not in (options.stop_ids or ()):
        if ended is not None and ended(number, np.array(written, "int32")):
            return
        done = len(written)
        # Two sizes only are compiled: near the end of the cache, where a whole draft has no slots, it is one token.
        size = options.prompt_lookup if done + options.prompt_lookup <= search.room else 0
        draft = draft_of(np.concatenate([text, written]), min(size, options.max_new_tokens - done))
        given_tokens = np.concatenate([written[-1:], draft, np.zeros(size - len(draft), "int32")])
        real = np.arange(size + 1) <= len(draft)
        best, said, cache = read(
            engine.ops.convert_to_tensor(given_tokens[None].astype("int32")),
            engine.ops.convert_to_tensor(real[None]),
            cache,
            engine.scalar(length + done - 1),
            engine.scalar(done - 1),
            given,
        )
        best, said = (engine.ops.convert_to_numpy(x)[0] for x in (best, said))
        right = int(np.cumprod(best[: len(draft)] == draft).sum())
        for place in range(min(right + 1, options.max_new_tokens - done)):
            if best[place] < 0:
                return  # no token was allowed
            written.append(int(best[place]))
            yield written[-1], float(said[place])
            if written[-1] in (options.stop_ids or ()):
                return


def check_lookup(engine, options: GenerationOptions) -> None:
    """Raises: GenerationError for what drafts do not go with."""
    if engine.encodes:
        raise GenerationError("prompt_lookup copies from the text before, and an encoder-decoder's target has none")
    others = {
        "repetition_penalty": options.repetition_penalty != 1,
        "no_repeat_ngram_size": options.no_repeat_ngram_size,
        "forced_ids": options.forced_ids,
        "min_new_tokens": options.min_new_tokens,
        "num_beams": options.num_beams > 1,
        "sampling": options.samples,
        "sliding_window": options.sliding_window,
        f"{options.form}": options.form,
    }
    wrong = [name for name, given in others.items() if given]
    if wrong:
        raise GenerationError(f"prompt_lookup is for greedy texts, and does not go with {wrong[0]}")


def read_ahead(engine, search, tokens, real, cache, index, done, given):
    """The likeliest token after each of some, -1 where none is allowed, with its log-probability; and the cache.

    Shape: (1, K), (1, K) bool, a cache, (), () -> (1, K) int32, (1, K) float32, a cache
    """
    ops, places = engine.ops, engine.ops.arange(tokens.shape[1], dtype="int32")[None]
    inputs = {
        "token_ids": tokens,
        "padding_mask": real,
        "segment_ids": ops.broadcast_to(given["segments"][:1, None], tokens.shape),
        "position_ids": given["lengths"][:1, None] + done + places,
    }
    logits, cache = engine.logits(inputs, cache, index, given.get("head"), every=True)
    scores = rules.forbid(logits[0], given["suppressed"])[None] if search.rules.suppress else logits
    best = sampling.likeliest(scores[0])[None]
    chosen = ops.take_along_axis(logits, best[..., None], axis=-1)[..., 0] - ops.logsumexp(logits, axis=-1)
    return ops.where(rules.possible(ops.max(scores, axis=-1)), best, -1), chosen, cache
