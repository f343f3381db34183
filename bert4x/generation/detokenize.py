"""From tokens to text as they come: what is shown never changes, and never ends in half a character.

Each kind of tokenizer has its reason to hold something back: WordPiece strips the spaces at the end of a text,
SentencePiece and byte-level BPE spell rare characters as several byte tokens. Every token costs the same, however
long the text before it.
"""

import codecs
import copy
from collections.abc import Iterable

from tokenizers.decoders import DecodeStream

from bert4x.errors import GenerationError
from bert4x.tokenizers import BackendTokenizer, BpeTokenizer, SpTokenizer, Tokenizer, TokenizerBase
from bert4x.tokenizers.decoding import _wants_space


class Detokenizer:
    """The text of one sequence, token by token; `"".join(pieces)` is `tokenizer.decode(ids)`, up to a stop string.

    `add(token_id)` returns the text that is now final ("" while it is held back), `finish()` the rest. Text is also
    held back while it may be the beginning of a string of `stop`; once one is complete, the text before it has been
    returned, `stopped` is that string, and nothing more comes. Strings within the first `least` tokens stop nothing.

    Raises: GenerationError for a tokenizer of an unknown kind and for an empty stop string; TokenizerError from `add`
    for an id outside the vocabulary.
    """

    def __init__(self, tokenizer: TokenizerBase, stop: str | Iterable[str] = (), least: int = 0):
        kind = next((kind for kind in _KINDS if isinstance(tokenizer, kind)), None)
        if kind is None:
            names = ", ".join(kind.__name__ for kind in _KINDS)
            raise GenerationError(
                f"a {type(tokenizer).__name__} cannot be decoded token by token; it is none of {names}"
            )
        self._tokens = _KINDS[kind](tokenizer)
        self._stops = StopStrings(stop)
        self._least = least  # how many more tokens

    @property
    def stopped(self) -> str | None:
        """The stop string that has been seen, None if none has."""
        return self._stops.stopped

    def add(self, token_id: int) -> str:
        """Takes one more id; gives the characters that are certain now."""
        text, may_stop = self._tokens.add(int(token_id)), self._least <= 0
        self._least -= 1
        return self._stops.add(text, may_stop)

    def finish(self) -> str:
        """The characters that are left at the end."""
        return self._stops.add(self._tokens.finish()) + self._stops.finish()

    def copy(self) -> "Detokenizer":
        """Another one of the same text, which may go on otherwise."""
        other = copy.copy(self)
        other._tokens, other._stops = self._tokens.copy(), self._stops.copy()
        return other


class StopStrings:
    """Passes text on up to the first stop string, holding back what may be the beginning of one.

    The first to be complete counts; of several that end at one place, the longest. How the text is cut into pieces
    makes no difference. Each character takes one step of Knuth, Morris and Pratt's matcher for each string
    (SIAM J. Comput. 6, 1977).

    Raises: GenerationError for an empty stop string and for what is no string.
    """

    def __init__(self, stops: str | Iterable[str] = ()):
        self.stops = (stops,) if isinstance(stops, str) else tuple(stops)
        for stop in self.stops:
            if not isinstance(stop, str) or not stop:
                raise GenerationError(f"stop={self.stops!r}: {stop!r} is no text to stop at; give non-empty strings")
        self._borders = [_borders(stop) for stop in self.stops]
        self._matched = [0] * len(self.stops)  # characters of each that the text ends in
        self._held = ""
        self.stopped: str | None = None

    def add(self, text: str, may_stop: bool = True) -> str:
        """The text that is final with this one; unless it may stop, whatever strings it completes."""
        if self.stopped is not None:
            return ""
        held = self._held + text
        for end, char in enumerate(text, len(self._held) + 1):
            complete = [stop for number, stop in enumerate(self.stops) if self._step(number, char)]
            if complete and may_stop:
                self.stopped = max(complete, key=len)
                self._held = ""
                return held[: end - len(self.stopped)]
        final = len(held) - max(self._matched, default=0)
        self._held = held[final:]
        return held[:final]

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def copy(self) -> "StopStrings":
        """Another one in the same state."""
        other = copy.copy(self)
        other._matched = self._matched.copy()
        return other

    def _step(self, number: int, char: str) -> bool:
        """Reads a character; whether the stop string of this number is now complete."""
        stop, length = self.stops[number], self._matched[number]
        if length == len(stop):  # one that stopped nothing
            length = self._borders[number][-1]
        while length and stop[length] != char:
            length = self._borders[number][length - 1]
        self._matched[number] = length + (stop[length] == char)
        return self._matched[number] == len(stop)


def _borders(pattern: str) -> list[int]:
    """For each prefix of the pattern, the length of its longest proper suffix that is a prefix too."""
    borders, length = [0], 0
    for char in pattern[1:]:
        while length and pattern[length] != char:
            length = borders[length - 1]
        length += pattern[length] == char
        borders.append(length)
    return borders


class _WordPieces:
    """Spaces depend on the two characters before a token; those at both ends of the text are stripped."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._end = ""  # last two characters of the text, spaces included
        self._begun = False
        self._spaces: list[str] = []

    def add(self, token_id: int) -> str:
        token = self._tokenizer.id_to_token(token_id)
        token = self._tokenizer._token_translate_inv.get(token, token)
        if self._tokenizer.is_special(token):
            return ""
        if token.startswith("##") and len(token) > 2:
            text = token[2:]
        else:
            text = " " + token if self._end and _wants_space(self._end, token) else token
        self._end = (self._end + text)[-2:]
        return self._stripped(text)

    def _stripped(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._spaces.append(text)
            return ""
        shown = "".join([*self._spaces, body])
        self._spaces, self._begun = [text[len(body) :]], True
        return shown

    def finish(self) -> str:
        return ""

    def copy(self) -> "_WordPieces":
        other = copy.copy(self)
        other._spaces = self._spaces.copy()
        return other


class _SentencePieces:
    """The first piece may lose its leading space; a byte piece waits for the others of its character."""

    _ANCHOR = "x"  # what follows an ordinary piece is decoded as in the middle of a text

    def __init__(self, tokenizer: SpTokenizer):
        self._tokenizer = tokenizer
        self._begun = False
        self._before: list[str] = []  # the piece before, while all were empty
        self._bytes: list[str] = []
        self._is_byte = tokenizer.sp_model.is_byte

    def add(self, token_id: int) -> str:
        token = self._tokenizer.id_to_token(token_id)
        if self._is_byte(token_id):
            self._bytes.append(token)
            return self._characters(final=False)
        if not self._middle(token):  # a special token, which does not even end a character
            return ""
        text = self._characters(final=True)
        if self._begun:
            return text + self._middle(token)
        text = self._tokenizer.decode([], tokens=[*self._before, token])
        self._begun, self._before = bool(text), [token]
        return text

    def _middle(self, *tokens: str) -> str:
        return self._tokenizer.decode([], tokens=[self._ANCHOR, *tokens])[len(self._ANCHOR) :]

    def _characters(self, final: bool) -> str:
        """What the bytes spell so far; with `final` none of them waits for another."""
        text = ""
        while self._bytes:
            values = bytes(int(token[1:-1], 16) for token in self._bytes)
            length = _utf8_length(values)
            if length > len(values) and not final:
                break
            text += self._middle(*self._bytes[:length])
            del self._bytes[:length]
            self._begun = True
        return text

    def finish(self) -> str:
        return self._characters(final=True)

    def copy(self) -> "_SentencePieces":
        other = copy.copy(self)
        other._before, other._bytes = self._before.copy(), self._bytes.copy()
        return other


def _utf8_length(values: bytes) -> int:
    """Bytes that the first one announces; 1 when what follows already breaks the character off."""
    length = next((n for n, first in ((4, 0xF0), (3, 0xE0), (2, 0xC0)) if values[0] >= first), 1)
    return length if all(0x80 <= byte < 0xC0 for byte in values[1:length]) else 1


class _Bytes:
    """Byte-level tokens through Python's incremental decoder; every byte has its character (Radford et al. 2019)."""

    def __init__(self, tokenizer: BpeTokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        if not self._tokenizer.decode([token_id]):  # "<|endoftext|>"
            return ""
        token = self._tokenizer.id_to_token(token_id)
        try:
            return self._decoder.decode(bytes(_BYTES[char] for char in token))
        except KeyError:  # a token added as it is written
            return self._decoder.decode(token.encode("utf-8"))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)

    def copy(self) -> "_Bytes":
        other = _Bytes(self._tokenizer)
        other._decoder.setstate(self._decoder.getstate())
        return other


class _Stream:
    """What `tokenizers` decodes as it comes; at the end, what it still held back."""

    def __init__(self, tokenizer: BackendTokenizer):
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._shown = 0

    def add(self, token_id: int) -> str:
        self._tokenizer.id_to_token(token_id)
        self._ids.append(token_id)
        text = self._decoder.step(self._tokenizer._backend, token_id) or ""
        self._shown += len(text)
        return text

    def finish(self) -> str:
        return self._tokenizer.decode(self._ids)[self._shown :]


def byte_characters() -> dict[str, int]:
    """The character of each byte: of a printable one its own, of the others those from U+0100 on."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = byte_characters()
_KINDS = {Tokenizer: _WordPieces, SpTokenizer: _SentencePieces, BpeTokenizer: _Bytes, BackendTokenizer: _Stream}
