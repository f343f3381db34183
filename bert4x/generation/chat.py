"""Answers in a dialogue, by the chat template beside a model."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.batch import Prompt
from bert4x.generation.text import Piece, continuations, stream


def chat(model, messages: Sequence[dict], variables: dict[str, Any] | None = None, **options) -> str | list[str]:
    """The answer to messages; `model.chat`. With `num_return_sequences` above 1 a list of answers.

    Raises: TokenizerError without a chat template, and for messages that it refuses; GenerationError.
    """
    found = continuations(model, [prompt_of(model, messages, variables)], **options)[0]
    return [one.text for one in found] if options.get("num_return_sequences", 1) > 1 else found[0].text


def stream_chat(model, messages: Sequence[dict], variables: dict[str, Any] | None = None, **options) -> Iterator[Piece]:
    """The same as it comes: the pieces of `stream`."""
    return stream(model, prompt_of(model, messages, variables), **options)


def prompt_of(model, messages: Sequence[dict], variables: dict[str, Any] | None = None) -> Prompt:
    """The prompt after which a model answers messages; `variables` are those of its template ("enable_thinking").

    Raises: GenerationError without a tokenizer, and for a template that writes nothing.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise GenerationError("this model has no tokenizer, and so no chat template; set model.tokenizer")
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, **variables or {})
    if not ids:
        raise GenerationError(f"the chat template writes nothing for these messages: {str(list(messages))[:80]}")
    ids = np.array(ids, "int32")
    return Prompt(ids, np.zeros_like(ids), tokenizer.start_id)
