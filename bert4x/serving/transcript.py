"""Written texts in the forms of OpenAI's completions and chat: choices, deltas, log-probabilities."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bert4x.generation.detokenize import byte_characters
from bert4x.serving.writing import Piece

UNKNOWN = "\ufffd"  # stands for half of a character
OF_BYTE = byte_characters()
BYTE = re.compile("<0x[0-9A-F]{2}>")  # a piece of SentencePiece that is one byte


@dataclass
class Text:
    """What was written so far: its pieces that have a token."""

    pieces: list[Piece] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None

    @property
    def length(self) -> int:
        """Characters."""
        return len(self.text)

    def add(self, piece: Piece) -> None:
        """One more piece."""
        self.text += piece.text
        self.finish_reason = reason_of(piece)
        if piece.token is not None:
            self.pieces.append(piece)


def reason_of(piece: Piece) -> str | None:
    """As OpenAI says it: a text also stops where no token is allowed."""
    return "stop" if piece.finish_reason == "forbidden" else piece.finish_reason


class Form:
    """What both have in common.

    Args:
        candidates: how many of the likeliest tokens are told of each; None for no log-probabilities at all.
    """

    prefix: str
    object: str
    chunk: str

    def __init__(self, tokenizer, candidates: int | None):
        self.tokenizer, self.candidates = tokenizer, candidates

    def token(self, token_id: int) -> str:
        """What a token says; of one that says nothing by itself, its name."""
        return self.tokenizer.decode([token_id]) or self.tokenizer.id_to_token(token_id)

    def bytes_of(self, token_id: int, said: str) -> list[int]:
        """The bytes of what a token says; of one that is a part of a character, its own."""
        name = self.tokenizer.id_to_token(token_id)
        if UNKNOWN in said and BYTE.fullmatch(name):
            return [int(name[3:5], 16)]
        if UNKNOWN in said and all(char in OF_BYTE for char in name):
            return [OF_BYTE[char] for char in name]
        return list(said.encode("utf-8", "replace"))

    def beginning(self, number: int) -> list[dict[str, Any]]:
        """Choices that come before the first piece of a stream."""
        return []


class CompletionForm(Form):
    """Of /v1/completions.

    Args:
        echoed: the prompt of each text, where they are wanted before what is written.
    """

    prefix, object, chunk = "cmpl", "text_completion", "text_completion"

    def __init__(self, tokenizer, candidates: int | None, echoed: Sequence[str] = ()):
        super().__init__(tokenizer, candidates)
        self.echoed = echoed

    def beginning(self, number):
        if not self.echoed:
            return []
        return [{"index": number, "text": self.echoed[number], "logprobs": None, "finish_reason": None}]

    def choice(self, number: int, text: Text) -> dict[str, Any]:
        """The whole of a text."""
        return {
            "index": number,
            "text": (self.echoed[number] if self.echoed else "") + text.text,
            "logprobs": self.logprobs(text.pieces, 0),
            "finish_reason": text.finish_reason,
        }

    def delta(self, number: int, piece: Piece, before: int) -> dict[str, Any]:
        """A piece that comes after so many characters."""
        return {
            "index": number,
            "text": piece.text,
            "logprobs": self.logprobs([piece] if piece.token else [], before),
            "finish_reason": reason_of(piece),
        }

    def logprobs(self, pieces: list[Piece], offset: int) -> dict[str, Any] | None:
        """The log-probability of each token, and of the likeliest in its place."""
        if self.candidates is None:
            return None
        offsets = []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece.text)
        return {
            "tokens": [self.token(piece.token.token_id) for piece in pieces],
            "token_logprobs": [piece.token.log_probability for piece in pieces],
            "top_logprobs": [self.likeliest(piece) for piece in pieces],
            "text_offset": offsets,
        }

    def likeliest(self, piece: Piece) -> dict[str, float]:
        """The likeliest tokens by what they say; of several that say the same, the likeliest."""
        found: dict[str, float] = {}
        for token_id, log_probability in piece.token.candidates[: self.candidates]:
            found.setdefault(self.token(token_id), log_probability)
        return found


class ChatForm(Form):
    """Of /v1/chat/completions."""

    prefix, object, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def beginning(self, number):
        delta = {"role": "assistant", "content": ""}
        return [{"index": number, "delta": delta, "logprobs": None, "finish_reason": None}]

    def choice(self, number: int, text: Text) -> dict[str, Any]:
        """The whole of an answer."""
        return {
            "index": number,
            "message": {"role": "assistant", "content": text.text, "refusal": None},
            "logprobs": self.logprobs(text.pieces),
            "finish_reason": text.finish_reason,
        }

    def delta(self, number: int, piece: Piece, before: int) -> dict[str, Any]:
        """A piece."""
        return {
            "index": number,
            "delta": {"content": piece.text} if piece.text else {},
            "logprobs": self.logprobs([piece] if piece.token else []),
            "finish_reason": reason_of(piece),
        }

    def logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        """The log-probability of each token, and of the likeliest in its place."""
        if self.candidates is None:
            return None
        return {
            "content": [
                self.one(piece.token.token_id, piece.token.log_probability)
                | {"top_logprobs": [self.one(*pair) for pair in piece.token.candidates[: self.candidates]]}
                for piece in pieces
            ],
            "refusal": None,
        }

    def one(self, token_id: int, log_probability: float) -> dict[str, Any]:
        """A token with its log-probability."""
        said = self.token(token_id)
        return {"token": said, "logprob": log_probability, "bytes": self.bytes_of(token_id, said)}
