"""How likely a model finds given continuations: few-shot classification."""

import functools
from collections.abc import Sequence

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.batch import Prompt, as_batch, bucket
from bert4x.generation.engine import Engine, engine_of, map_values
from bert4x.generation.options import GenerationOptions
from bert4x.generation.prompt import choice_ids
from bert4x.generation.text import as_texts, check, encode
from bert4x.models.cache import repeated

ROWS = 64  # sequences, prompts times choices, that are computed at once


def score(model, prompts: str | Sequence[str], choices: Sequence[str], normalize: bool = False) -> np.ndarray:
    """The log-probability of each choice as the continuation of each prompt (`model.score`): the sum over its tokens,
    or with `normalize=True` their mean. The prompt is read once, however many choices there are.

    Shape: P prompts, C choices -> (P, C) float32; for one prompt (C,)
    Raises: GenerationError before anything is computed.
    """
    engine = engine_of(model)
    if engine.encodes:
        raise GenerationError("an encoder-decoder scores no choices; load a model with application='lm' or 'unilm'")
    texts = as_texts(prompts)
    if isinstance(choices, str) or not choices:
        raise GenerationError(f"choices are {choices!r}; expected a list of texts, at least one")
    encoded = [encode(model, text) for text in texts]
    answers = [[continuation(model, text, choice) for choice in choices] for text in texts]
    if not encoded:
        return np.zeros((0, len(choices)), "float32")
    longest = max(len(ids) for row in answers for ids in row)
    check(engine, encoded, GenerationOptions(max_new_tokens=longest))
    scores = score_all(engine, encoded, answers)
    if normalize:
        scores = scores / np.array([[len(ids) for ids in row] for row in answers], "float32")
    return scores[0] if isinstance(prompts, str) else scores


def continuation(model, prompt: str, choice: str) -> np.ndarray:
    """The ids of a choice. Shape: (L,) int32"""
    application = "unilm" if model.builder.application == "unilm" else "lm"
    return np.array(choice_ids(model.tokenizer, application, prompt, choice), "int32")


def score_all(engine: Engine, prompts: Sequence[Prompt], answers: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """`score_ids`, a part of the prompts at a time: the logits of all could be more than memory holds.

    Shape: N prompts with C answers each -> (N, C)
    """
    at_once = max(ROWS // len(answers[0]), 1)
    parts = [slice(i, i + at_once) for i in range(0, len(prompts), at_once)]
    return np.concatenate([score_ids(engine, prompts[part], answers[part]) for part in parts])


def score_ids(engine: Engine, prompts: Sequence[Prompt], answers: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The sums of log-probabilities. Shape: P prompts, P x C answers of any length -> (P, C) float32"""
    count, choices = len(prompts), len(answers[0])
    batch = 1 << (count - 1).bit_length()
    room = bucket(max(len(ids) for row in answers for ids in row), least=4)
    ids, real = np.zeros((batch, choices, room), "int32"), np.zeros((batch, choices, room), bool)
    for p, row in enumerate(answers):
        for c, answer in enumerate(row):
            ids[p, c, : len(answer)], real[p, c, : len(answer)] = answer, True
    lengths, segments = np.ones(batch, "int32"), np.zeros(batch, "int32")
    if not engine.encodes:  # whose targets have one token so far
        lengths[:count] = [len(prompt.ids) for prompt in prompts]
    segments[:count] = [1 if engine.builder.application == "unilm" else p.segments[-1] for p in prompts]
    given = {"ids": ids, "real": real, "lengths": lengths, "segments": segments}
    tensors = (
        map_values(engine.ops.convert_to_tensor, values) for values in (as_batch(prompts, batch, engine.encodes), given)
    )
    if "score" not in engine.compiled:
        engine.compiled["score"] = (engine.compile(functools.partial(log_probabilities, engine)),)
    return engine.ops.convert_to_numpy(engine.compiled["score"][0](*tensors))[:count]


def log_probabilities(engine: Engine, prompt: dict, given: dict):
    """Reads the prompts (or sources, and the first token of their targets), then all choices side by side over copies
    of the cache.

    Shape: prompt (B, T), choices (B, C, L) -> (B, C)
    """
    ops, (batch, choices, room) = engine.ops, given["ids"].shape
    length = prompt.get("target_ids", prompt["token_ids"]).shape[1]
    first, cache = engine.logits(prompt, engine.new_cache(batch, length + room), 0)
    ids, real = (ops.reshape(given[name], (batch * choices, room)) for name in ("ids", "real"))
    lengths, segments = (ops.repeat(given[name], choices) for name in ("lengths", "segments"))
    if engine.encodes:
        inputs = {"target_ids": ids, "target_mask": ops.logical_and(real, engine.seen(ids))}
    else:
        segment_ids = ops.broadcast_to(segments[:, None], ids.shape)
        inputs = {"token_ids": ids, "segment_ids": segment_ids, "padding_mask": real}
    positions = lengths[:, None] + ops.arange(room, dtype="int32")[None, :]
    inputs["position_ids"] = ops.where(real, positions, 0)
    logits, _ = engine.logits(inputs, cache.repeated(choices), length, every=True)
    logits = ops.concatenate([repeated(first, choices)[:, None], logits[:, :-1]], axis=1)
    chosen = ops.take_along_axis(logits, ids[:, :, None], axis=2)[:, :, 0] - ops.logsumexp(logits, axis=-1)
    return ops.reshape(ops.sum(ops.where(real, chosen, 0.0), axis=1), (batch, choices))


def next_logits(model, prompts: Sequence[Prompt], ids: Sequence[int]) -> np.ndarray:
    """The logits of some tokens as the one that follows each prompt; the prompts are computed together.

    Shape: P prompts, K ids -> (P, K) float32
    """
    engine = engine_of(model)
    check(engine, list(prompts), GenerationOptions(max_new_tokens=1))
    if "next" not in engine.compiled:
        engine.compiled["next"] = (engine.compile(functools.partial(read_only, engine)),)
    batch = as_batch(prompts, 1 << (len(prompts) - 1).bit_length())
    logits = engine.compiled["next"][0](map_values(engine.ops.convert_to_tensor, batch))
    return engine.ops.convert_to_numpy(logits)[: len(prompts), list(ids)]


def read_only(engine: Engine, prompt: dict):
    """The logits after each prompt. Shape: prompt (B, T) -> (B, V)"""
    return engine.logits(prompt, engine.new_cache(*prompt["token_ids"].shape), 0)[0]
