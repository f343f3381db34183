"""Where each token of WordPiece stands in the text."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .base import without_surrogates


class Piece(NamedTuple):
    """A token, its id, and where it stands in the text: `text[begin:end]`."""

    token: str
    id: int
    begin: int
    end: int


class Offsets:
    """The part of `Tokenizer` that looks at one text: its tokens and their places."""

    # tokens and offsets of one text

    def _tokenize(self, text: str) -> list[str]:
        return [piece.token for piece in self._pieces(text)]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """`(start, end)` in `text` of each token of `tokenize(text)`; (0, 0) for the added start and end tokens."""
        return self.encode_with_offsets(text)[1]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The token ids of `encode(text)`, and for each where it stands: `text[start:end]`."""
        pieces = self._pieces(text)
        start = [] if self.start_id is None else [self.start_id]
        end = [] if self.end_id is None else [self.end_id]
        ids = [self._translated(piece) for piece in pieces]
        offsets = [(piece.begin, piece.end) for piece in pieces]
        return start + ids + end, [(0, 0)] * len(start) + offsets + [(0, 0)] * len(end)

    def _translated(self, piece: Piece) -> int:
        if piece.token not in self._token_translate:
            return piece.id
        return self.token_to_id(self._token_translate[piece.token])

    def _pieces(self, text: str) -> list[Piece]:
        """Tokens with their offsets; an unknown word is given as the word itself, normalised."""
        text = without_surrogates(text)
        if self._pre_tokenize is None:
            return list(self._backend_pieces(text))
        normalized, origins = self._normalize(text)
        pieces, position = [], 0
        for word in self._pre_tokenize(normalized):
            position = max(position, normalized.find(word, position))
            here = origins[position : position + len(word)]
            if word in self.token_dict:
                pieces.append(Piece(word, self.token_dict[word], here[0], here[-1] + 1))
            else:
                found = self._backend_pieces(word)
                pieces += [Piece(token, number, here[a], here[b - 1] + 1) for token, number, a, b in found]
            position += len(word)
        return pieces

    def _backend_pieces(self, text: str) -> Iterator[Piece]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        for token_id, (begin, end) in zip(self._own_ids(encoding.ids), encoding.offsets, strict=True):
            token, source = self._tokens_by_id[token_id], text[begin:end]
            if token_id == self.unk_id and source.strip() != token:
                word = self._normalize(source)[0]  # empty where NFD reordered marks across the offsets
                token = word if word and word not in self.token_dict else token
            yield Piece(token, token_id, begin, end)

    def _normalize(self, text: str) -> tuple[str, list[int]]:
        """The text as WordPiece sees it (verbatim tokens untouched), and for each character its index in `text`."""
        chars, origins, begin = [], [], 0
        for start, end in [*self._verbatim_spans(text), (len(text), len(text))]:
            for index in range(begin, start):
                normalized = self._normalize_char(text[index])
                chars.append(normalized)
                origins += [index] * len(normalized)
            chars.append(text[start:end])
            origins += range(start, end)
            begin = end
        return "".join(chars), origins

    def _verbatim_spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where special and added tokens stand that are found as they are written, spaces around them left out."""
        if not any(content in text for content in self._context_sensitive):
            yield from (match.span() for match in self._plain_pattern.finditer(text))
            return
        encoding = self._backend.encode(text, add_special_tokens=False)
        for token_id, (begin, end) in zip(self._own_ids(encoding.ids), encoding.offsets, strict=True):
            token = self._tokens_by_id[token_id]
            start = text.find(token, begin, end) if token in self._verbatim else -1
            if start >= 0:
                yield start, start + len(token)

    def _normalize_char(self, char: str) -> str:
        known = self._normalized_chars.get(char)
        if known is None:
            padded = self._backend.normalizer.normalize_str(without_surrogates(char))
            known = self._normalized_chars[char] = padded.strip(" ") or padded[:1]
        return known

    def rematch(self, text: str, tokens: Sequence[str]) -> list[list[int]]:
        """For each token the indices of its characters in `text`; empty for a token that does not stand in it.

        `tokens` come from `tokenize(text)` or are a part of it. The first and last count as added when they
        are the start and end tokens. Several pieces of one character (a Hangul syllable) all have its index.
        """
        normalized, origins = self._normalize(text)
        mapping, position = [], 0
        for number, token in enumerate(tokens):
            token = self._token_translate_inv.get(token, token)
            is_added = (number == 0 and token == self._token_start) or (
                number == len(tokens) - 1 and token == self._token_end
            )
            while position < len(normalized) and normalized[position] == " ":
                position += 1
            if token in self._verbatim:
                found = position if not is_added and normalized.startswith(token, position) else -1
            else:
                token = self._as_in_normalized_text(token)
                found = normalized.find(token, position)
            if found < 0:
                mapping.append([])
                continue
            position = found + len(token)
            mapping.append(sorted(set(origins[found:position])))
        return mapping

    def _as_in_normalized_text(self, token: str) -> str:
        if token in self.added_tokens:
            return "".join(map(self._normalize_char, token)).strip(" ")
        return token[2:] if token.startswith("##") and token in self.token_dict else token
