"""Drafts of greedy texts: some tokens are proposed, and a single pass of the model says how many of them are what it
would have written. The texts are the same as without, token for token, in fewer passes.

A draft is copied from the prompt, what followed the last tokens when they stood there before (prompt lookup decoding,
Saxena 2023): it pays where texts repeat their prompt (extraction, titles, few-shot). Or a smaller model of the same
vocabulary writes it (speculative decoding, Leviathan et al. 2023, arXiv 2211.17192): it pays where that model is much
faster, and often right.
"""

import functools
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation import rules, sampling
from bert4x.generation.batch import Prompt
from bert4x.generation.engine import engine_of
from bert4x.generation.options import GenerationOptions
from bert4x.generation.output import Output
from bert4x.generation.window import check_positions

DRAFT = 4  # tokens that a drafter writes, by default
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


class Reader:
    """A model that has read a prompt, and reads new tokens after it, some at a time: any of them may be taken back, by
    reading others in their place.
    """

    def __init__(self, engine, prompt: Prompt, options: GenerationOptions):
        self.engine = engine
        search, arrays, self.given, _ = engine.prepare([prompt], options)
        self.state = engine.functions(search)[0](arrays, self.given)
        self.room, self.cache = search.room, self.state.cache
        self.length = self.state.ids.shape[1] - search.room  # slots of the prompt
        kind = "drafts", search
        if kind not in engine.compiled:
            engine.compiled[kind] = (engine.compile(functools.partial(read_ahead, engine, search)),)
        (self.function,) = engine.compiled[kind]

    def first(self) -> tuple[int, float]:
        """The token after the prompt, -1 where none is allowed, and its log-probability."""
        to_numpy = self.engine.ops.convert_to_numpy
        return int(to_numpy(self.state.ids)[0, -self.room]), float(to_numpy(self.state.log_probabilities)[0, 0])

    def read(self, ids: np.ndarray, slots: int, before: int) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest token after each of some, which come after `before` new ones, and its log-probability. As many
        slots are written as are given, so that little is compiled.

        Shape: (up to slots,) -> 2 x (slots,)
        """
        to_tensor, count = self.engine.ops.convert_to_tensor, len(ids)
        tokens = np.concatenate([ids, np.zeros(slots - count, "int32")]).astype("int32")[None]
        real, place = (np.arange(slots) < count)[None], self.engine.scalar(self.length + before)
        best, said, self.cache = self.function(
            to_tensor(tokens), to_tensor(real), self.cache, place, self.engine.scalar(before), self.given
        )
        return tuple(self.engine.ops.convert_to_numpy(x)[0] for x in (best, said))


class Copies:
    """Drafts from the text before."""

    def __init__(self, prompt: Prompt, options: GenerationOptions):
        self.ids, self.size = np.asarray(prompt.ids, "int32"), options.prompt_lookup

    def draft(self, written: list[int], size: int) -> np.ndarray:
        """What may follow, at most `size` tokens. Shape: -> (N,), N <= `size`"""
        return draft_of(np.concatenate([self.ids, written]), size)


class Drafter(Reader):
    """Drafts by another model, greedy ones."""

    def __init__(self, prompt: Prompt, options: GenerationOptions):
        super().__init__(engine_of(options.drafter), prompt, options)
        self.size, self.known = options.draft_tokens or DRAFT, np.zeros(0, "int32")  # new tokens that it has read

    def draft(self, written: list[int], size: int) -> np.ndarray:
        """What may follow, at most `size` tokens. Of its last draft it has read all but the last token, so that one or
        two are new to it: what the larger model chose, and before it that last one, where all of them were right.
        """
        found, text = np.zeros(0, "int32"), np.array(written, "int32")
        if not size:
            return found
        both = min(len(text), len(self.known))
        same = np.cumprod(self.known[:both] == text[:both]).sum()
        self.known, new, slots = text, text[same:], 2
        while len(found) < size:
            best = int(self.read(new, slots, len(self.known) - len(new))[0][len(new) - 1])
            if best < 0:
                break
            found = np.append(found, np.int32(best))
            new, slots = found[-1:], 1
            self.known = np.append(self.known, new) if len(found) < size else self.known
        return found


def decode_by_drafts(
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
    model = Reader(engine, prompt, options)
    drafts = (Copies if options.drafter is None else Drafter)(prompt, options)
    token, log_probability = model.first()
    if token < 0:
        return  # no token was allowed
    written = [token]
    yield token, log_probability
    while len(written) < options.max_new_tokens and written[-1] not in (options.stop_ids or ()):
        if ended is not None and ended(number, np.array(written, "int32")):
            return
        done = len(written)
        # Two sizes only are compiled: near the end of the cache, where a whole draft has no slots, it is one token.
        size = drafts.size if done + drafts.size <= model.room else 0
        draft = drafts.draft(written, min(size, options.max_new_tokens - done))
        best, said = model.read(np.concatenate([written[-1:], draft]), size + 1, done - 1)
        right = int(np.cumprod(best[: len(draft)] == draft).sum())
        for place in range(min(right + 1, options.max_new_tokens - done)):
            if best[place] < 0:
                return  # no token was allowed
            written.append(int(best[place]))
            yield written[-1], float(said[place])
            if written[-1] in (options.stop_ids or ()):
                return


def check_drafts(engine, prompts: Sequence[Prompt], options: GenerationOptions) -> None:
    """Raises: GenerationError for what drafts do not go with."""
    name = options.drafts
    if engine.encodes:
        raise GenerationError(f"{name} continues the text before, and an encoder-decoder's target has none")
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
        raise GenerationError(f"{name} is for greedy texts, and does not go with {wrong[0]}")
    if options.drafter is not None:
        check_drafter(engine.builder, options.drafter, prompts, options)


def check_drafter(builder, drafter, prompts: Sequence[Prompt], options: GenerationOptions) -> None:
    """Raises: GenerationError for a drafter whose ids mean something else, or that has no room for the texts."""
    other = engine_of(drafter)
    sizes = builder.config.vocab_size, other.builder.config.vocab_size
    if other.encodes or sizes[0] != sizes[1]:
        what = "an encoder-decoder" if other.encodes else f"a model of {sizes[1]} tokens"
        raise GenerationError(f"drafter is {what}; expected one that continues texts, with this vocabulary: {sizes[0]}")
    try:
        check_positions(other.builder, prompts, options)
    except GenerationError as error:
        raise GenerationError(f"drafter: {error}") from error


_SAME: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # tokenizer -> others with the same tokens


def check_same_tokens(model, options: GenerationOptions) -> None:
    """Raises: GenerationError where an id is not the same token in the vocabularies of a model and its drafter."""
    tokenizer, other = model.tokenizer, getattr(options.drafter, "tokenizer", None)
    if tokenizer is None or other is None or tokenizer is other:
        return
    same = _SAME.setdefault(tokenizer, weakref.WeakSet())
    if other in same:
        return
    for token_id in range(min(tokenizer.vocab_size, other.vocab_size)):
        ours, theirs = tokenizer.id_to_token(token_id), other.id_to_token(token_id)
        if ours != theirs:
            raise GenerationError(
                f"drafter has another vocabulary: its token {token_id} is {theirs!r}, the model's {ours!r}"
            )
    same.add(other)


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
