"""What `generate`, `generate_ids` and `stream` of a model do: prompts in, text or ids out."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.batch import Prompt, read_prompts
from bert4x.generation.detokenize import Detokenizer
from bert4x.generation.engine import Engine, engine_of
from bert4x.generation.grammar import decode_in_form, form_of
from bert4x.generation.lookup import check_drafts, check_same_tokens, decode_by_drafts
from bert4x.generation.options import GenerationOptions, read_options
from bert4x.generation.prompt import default_stop_ids, encode_prompt, stop_id
from bert4x.generation.stop_strings import StopWatch, decode_beams
from bert4x.generation.window import check_positions, decode_in_windows, stream_in_windows
from bert4x.tokenizers import TokenizerBase


class Piece(NamedTuple):
    """A part of a streamed text. The texts of all pieces together are the whole; one may be empty, while a character
    is half written or a stop string half seen.

    `finish_reason` is None but in the last piece: "stop" (a stop token or string), "length" (max_new_tokens) or
    "forbidden" (the options allow no token here; this piece has the rest of the text, and the token_id -1).
    """

    text: str
    token_id: int
    log_probability: float
    tokens_per_second: float
    finish_reason: str | None


class Continuation(NamedTuple):
    """A text, its ids and their log-probabilities, the token that ended it included; why it ended, as in `Piece`; and
    its score, the sum of the log-probabilities, of beams divided by length ** length_penalty.
    """

    text: str
    token_ids: list[int]
    log_probabilities: list[float]
    finish_reason: str
    score: float


def generate(model, text: str | Sequence[str], **options) -> str | list:
    """The texts with which a model continues prompts; `model.generate`.

    One text gives a str, several a list. With `num_return_sequences` above 1 there is a list for every prompt.

    Raises: GenerationError before anything is computed.
    """
    found = continuations(model, as_texts(text), **options)
    several = options.get("num_return_sequences", 1) > 1
    groups = [[one.text for one in group] if several else group[0].text for group in found]
    return groups[0] if isinstance(text, str) else groups


def continuations(model, texts: Sequence[str | Prompt], **options) -> list[list[Continuation]]:
    """What `generate` gives, and all that is known of it: for every prompt `num_return_sequences` continuations; of
    beams fewer, where the options allow no more.

    Raises: GenerationError before anything is computed; and where the options allow no beam at all.
    """
    engine = engine_of(model)
    settings = read_text_options(model, with_forced(model, options))
    check_same_tokens(model, settings)
    prompts = [encode(model, prompt) for prompt in texts]
    if not prompts:
        return []
    if form := form_of(model, settings):
        output = decode_in_form(engine, checked(engine, prompts, settings), settings, form)
    else:
        output = decode(engine, prompts, settings, new_writer(model.tokenizer, settings) if settings.stop else None)
    n, found = settings.num_return_sequences, []
    for number, row in enumerate(zip(*output, strict=True)):
        if number % n == 0:
            found.append([])
        if np.isfinite(row[1]):  # else there are no more sequences that the options allow
            one = continuation(model.tokenizer, *row, settings)
            found[-1].append(one if form is None else one._replace(text=form.text(row[0]), finish_reason="stop"))
    return found


def generate_ids(model, ids, segment_ids=None, padding_mask=None, return_scores: bool = False, **options):
    """The ids with which a model continues prompts of ids; `model.generate_ids`. No text is involved: nothing ends a
    row but `stop_ids`.

    Shape: (B, T) or B lists of ids -> (B * num_return_sequences, new) int32, `pad_id` (or else the first stop id, or 0)
    after the end of a row; with `return_scores=True` also (B * num_return_sequences,) float32: the log-probability of
    the row, of beams divided by length ** length_penalty. Where the options allow fewer beams than are asked for, the
    others have no token, and the score -inf
    Raises: GenerationError before anything is computed; and where the options allow no beam at all.
    """
    engine = engine_of(model)
    settings = only_tokens(model, read_options(with_forced(model, options)))
    if settings.stop:
        raise GenerationError("generate_ids knows no text; give stop_ids, or use generate")
    if settings.form:
        raise GenerationError(f"generate_ids knows no text, and so no {settings.form}; use generate")
    check_same_tokens(model, settings)
    prompts = read_prompts(ids, segment_ids, padding_mask, settings.pad_id)
    if engine.encodes:
        prompts = started(engine, prompts, model.builder.target_start(model.tokenizer))
    new, scores, _ = decode(engine, prompts, settings)
    fill = settings.pad_id if settings.pad_id is not None else (*(settings.stop_ids or ()), 0)[0]
    new = np.where(new < 0, np.int32(fill), new)
    return (new, scores) if return_scores else new


def stream(model, text: str | Prompt, **options) -> Iterator[Piece]:
    """The text with which a model continues a prompt, as it comes; `model.stream`.

    Together the pieces are what `generate` gives for the same options. It may be left at any time.

    Raises: GenerationError before anything is computed.
    """
    engine = engine_of(model)
    settings = read_text_options(model, with_forced(model, options))
    if settings.num_beams > 1 or settings.num_return_sequences > 1:
        raise GenerationError("only one sequence can be streamed; num_beams and num_return_sequences must be 1")
    if settings.form or settings.drafts:
        raise GenerationError(f"with {settings.form or settings.drafts} no text can be streamed; use generate")
    prompts = started(engine, [encode(model, text)], settings.start_id)
    check(engine, prompts, settings)
    return pieces(engine, model.tokenizer, prompts[0], settings)


def pieces(engine: Engine, tokenizer, prompt: Prompt, options: GenerationOptions) -> Iterator[Piece]:
    """The pieces of `stream`."""
    writer, number = new_writer(tokenizer, options), 0
    start = time.perf_counter()
    for number, token in enumerate(stream_in_windows(engine, prompt, options), start=1):
        text = "" if token.is_stop else writer.add(token.id)
        reason = "length" if number == options.max_new_tokens else None
        reason = "stop" if token.is_stop or writer.stopped is not None else reason
        text += writer.finish() if reason else ""
        yield Piece(text, token.id, token.log_probability, number / (time.perf_counter() - start), reason)
        if reason:
            return
    yield Piece(writer.finish(), -1, 0.0, number / (time.perf_counter() - start), "forbidden")


def as_texts(texts: str | Iterable[str]) -> list[str]:
    """The texts of one or several prompts. Raises: GenerationError."""
    if isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable):
        raise GenerationError(f"prompts are a str or a list of str, not {type(texts).__name__}")
    return [texts] if isinstance(texts, str) else list(texts)


def with_forced(model, given: dict) -> dict:
    """The options of a call, with the tokens that the model's config forces unless the call says which are."""
    length = given.get("max_new_tokens", GenerationOptions.max_new_tokens)
    return {"forced_ids": model.builder.forced_ids(length)} | given


def read_text_options(model, given: dict) -> GenerationOptions:
    """The options of a call on text: stop tokens may be named, and are by default those of the vocabulary."""
    tokenizer, stop_ids = model.tokenizer, given.get("stop_ids")
    if stop_ids is None:
        return only_tokens(model, read_options(given | {"stop_ids": default_stop_ids(tokenizer)}))
    listed = [stop_ids] if isinstance(stop_ids, str | int | np.integer) else list(stop_ids)
    named = [stop_id(tokenizer, token) if isinstance(token, str) and tokenizer else token for token in listed]
    return only_tokens(model, read_options(given | {"stop_ids": named}))


def only_tokens(model, options: GenerationOptions) -> GenerationOptions:
    """The same options, by which no row of the model is chosen to which its vocabulary has no token."""
    if not isinstance(model.tokenizer, TokenizerBase):
        return options
    empty = model.tokenizer.ids_without_token(model.builder.config.vocab_size)
    empty = [i for i in empty if i not in options.forced_ids.values()]
    return dataclasses.replace(options, suppress_ids=(*options.suppress_ids, *empty)) if empty else options


def encode(model, text: str | Prompt) -> Prompt:
    """The prompt of a text; one that is made stays. Raises: GenerationError."""
    if isinstance(text, Prompt):
        return text
    builder = model.builder
    application = {"seq2seq": "unilm", "encoder": "lm"}.get(builder.application, builder.application)
    ids = np.array(encode_prompt(model.tokenizer, application, builder.bare_prompts, text), "int32")
    return Prompt(ids, np.zeros_like(ids), builder.target_start(model.tokenizer))


def new_writer(tokenizer, options: GenerationOptions) -> Detokenizer:
    """What writes the text of a sequence up to a stop string, which ends no text of fewer tokens than asked for."""
    return Detokenizer(tokenizer, options.stop, options.min_new_tokens)


def started(engine: Engine, prompts: list[Prompt], start_id: int | None) -> list[Prompt]:
    """Prompts with another start token: of a target, or of the text of a GPT2, which has none by itself.

    Raises: GenerationError for other models.
    """
    if start_id is None:
        return prompts
    if engine.encodes:
        return [dataclasses.replace(prompt, start=start_id) for prompt in prompts]
    if not engine.builder.bare_prompts or engine.builder.application == "unilm":
        raise GenerationError("start_id is for targets and for GPT2; prompts of this model have their start token")
    return [
        Prompt(np.append([start_id], prompt.ids), np.append(prompt.segments[:1], prompt.segments)) for prompt in prompts
    ]


def decode(engine: Engine, prompts: list[Prompt], options: GenerationOptions, writer: Detokenizer | None = None):
    """`Engine.decode` after all checks; a writer is of a text that stop strings end. Raises: GenerationError."""
    prompts = checked(engine, prompts, options)
    if options.drafts:
        check_drafts(engine, prompts, options)
        return decode_by_drafts(engine, prompts, options, None if writer is None else StopWatch(writer))
    if writer is not None and options.num_beams > 1:
        return decode_beams(engine, prompts, options, writer)
    return decode_in_windows(engine, prompts, options, None if writer is None else StopWatch(writer))


def checked(engine: Engine, prompts: list[Prompt], options: GenerationOptions) -> list[Prompt]:
    """Prompts as the engine takes them. Raises: GenerationError"""
    prompts = started(engine, prompts, options.start_id)
    check(engine, prompts, options)
    return prompts


def check(engine: Engine, prompts: list[Prompt], options: GenerationOptions) -> None:
    """Raises: GenerationError for ids and lengths that the model does not have."""
    config = engine.builder.config
    sizes = {"id": config.vocab_size, "segment id": config.segment_rows or 2}
    options.check_ids(config.vocab_size)
    if engine.encodes and any(prompt.start is None for prompt in prompts):
        raise GenerationError("start_id is missing: the token that the targets of this encoder-decoder begin with")
    for number, prompt in enumerate(prompts):
        for (what, size), ids in zip(sizes.items(), (prompt.ids, prompt.segments), strict=True):
            if ids.min() < 0 or ids.max() >= size:
                bad = ids[(ids < 0) | (ids >= size)][0]
                raise GenerationError(f"prompt {number} has {what} {bad}; the model has those from 0 to {size - 1}")
    check_positions(engine.builder, prompts, options)


def continuation(tokenizer, ids: np.ndarray, score, log_probabilities, options: GenerationOptions) -> Continuation:
    """A row up to a stop token or string. Shape: (N,) with -1 after the end, (), (N,)"""
    writer, texts, length, ended = new_writer(tokenizer, options), [], 0, False
    while length < (ids >= 0).sum() and not ended:
        token_id, length = ids[length], length + 1
        is_stop = token_id in options.stop_ids
        texts.append("" if is_stop else writer.add(token_id))
        ended = is_stop or writer.stopped is not None
    reason = "stop" if ended else "length" if length == options.max_new_tokens else "forbidden"
    text, log_probabilities = "".join(texts) + writer.finish(), log_probabilities[:length]
    score = score if options.num_beams > 1 else log_probabilities.sum()
    return Continuation(text, ids[:length].tolist(), log_probabilities.tolist(), reason, float(score))
