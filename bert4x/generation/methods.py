"""What models are asked to write: methods of Keras' models of ours, and of exported ones."""

from collections.abc import Sequence

import numpy as np


def generate(self, text: str | Sequence[str], **options):
    """The texts with which the model continues prompts: a str for one, a list for several; a list for every prompt
    with `num_return_sequences` above 1. The options are those of `bert4x.generation.GenerationOptions`.

    Raises: GenerationError before anything is computed.
    """
    from bert4x.generation.text import generate

    return generate(self, text, **options)


def generate_ids(self, ids, segment_ids=None, padding_mask=None, return_scores: bool = False, **options):
    """`generate` without text.

    Shape: (B, T) -> (B * num_return_sequences, new) int32[, (B * num_return_sequences,) float32 scores]
    Raises: GenerationError before anything is computed.
    """
    from bert4x.generation.text import generate_ids

    return generate_ids(self, ids, segment_ids, padding_mask, return_scores, **options)


def stream(self, text: str, **options):
    """An iterator over the pieces of a continuation (`bert4x.generation.Piece`) while it is written.

    Raises: GenerationError before anything is computed.
    """
    from bert4x.generation.text import stream

    return stream(self, text, **options)


def chat(self, messages: Sequence[dict], variables: dict | None = None, stream: bool = False, **options):
    """The answer to messages, `{"role": "user", "content": "..."}`, of a model that was trained for dialogue; with
    `stream=True` an iterator over its pieces. `variables` are those of the chat template beside its vocabulary,
    such as `{"enable_thinking": False}`; the options are those of `generate`.

    Raises: TokenizerError without a chat template, and for messages that it refuses; GenerationError.
    """
    from bert4x.generation.chat import chat, stream_chat

    return (stream_chat if stream else chat)(self, messages, variables, **options)


def score(self, prompts: str | Sequence[str], choices: Sequence[str], normalize: bool = False) -> np.ndarray:
    """The log-probability of each choice as the continuation of each prompt; of its mean token if normalized.

    Shape: P prompts, C choices -> (P, C) float32; for one prompt (C,)
    Raises: GenerationError before anything is computed.
    """
    from bert4x.generation.score import score

    return score(self, prompts, choices, normalize)


ALL = generate, generate_ids, stream, chat, score
