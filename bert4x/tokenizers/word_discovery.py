"""Words of a corpus without a dictionary, by how much more often characters meet than chance has it.

Source: Su, kexue.fm/archives/5476 and 6920. A text is cut between two characters unless some n-gram over both of them
is solid; what stands between two cuts is a candidate, and it stays if all of it is made of solid n-grams.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bert4x.errors import ConfigError, InputError

CHUNK = 4_000_000  # characters counted at a time
ORDER = 4  # characters of the longest n-gram: as many as fit a number of 64 bits
CHARACTERS = re.compile(r"[㐀-䶿一-鿿0-9a-zA-Z]")  # all else ends a word


@dataclass(frozen=True)
class Counts:
    """How often each n-gram occurs: `keys` in order, and as many `counts`."""

    keys: np.ndarray
    counts: np.ndarray

    def __add__(self, other: "Counts") -> "Counts":
        keys, counts = np.concatenate([self.keys, other.keys]), np.concatenate([self.counts, other.counts])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.zeros(0, int)
        return Counts(keys[first], np.add.reduceat(counts, first) if len(first) else counts)

    def of(self, keys: np.ndarray) -> np.ndarray:
        """The counts, (N,), of some n-grams, 0 of those that never occurred."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.counts[place], 0)

    def at_least(self, count: int) -> "Counts":
        kept = self.counts >= count
        return Counts(self.keys[kept], self.counts[kept])


class WordDiscovery:
    """Counts n-grams of up to four characters, and finds words by them.

    Args:
        min_count: how often an n-gram, and a word, has to occur.
        min_pmi: for n-grams of 2, 3 and 4 characters, the least pointwise mutual information, in nats, of their two
            parts, wherever they are parted.

    Raises: ConfigError for settings that cannot be.
    """

    def __init__(self, min_count: int = 32, min_pmi: Sequence[float] = (2, 4, 6)):
        if min_count < 1 or len(min_pmi) != ORDER - 1:
            raise ConfigError(
                f"min_count = {min_count!r}, min_pmi = {min_pmi!r}; expected a count of at least 1, and three numbers"
            )
        self.min_count, self.min_pmi = min_count, tuple(min_pmi)
        self.codes: dict[str, int] = {}
        self.solid: list[np.ndarray] = []  # of 2, 3 and 4 characters: their keys, in order

    def encode(self, text: str) -> np.ndarray:
        """A number for each character, from 1; 0 for what is in no word. Shape: -> (T,) uint64"""
        for character in sorted(set(text).difference(self.codes)):
            if CHARACTERS.match(character) and len(self.codes) < (1 << 16) - 1:
                self.codes[character] = len(self.codes) + 1
        table = np.zeros(0x110000, np.uint64)
        table[[ord(character) for character in self.codes]] = list(self.codes.values())
        return table[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]

    def fit(self, texts: Iterable[str]) -> "WordDiscovery":
        """Counts a corpus, which may be of any size: texts are read once. Returns itself.

        Raises: InputError for a corpus without a character that is counted.
        """
        empty = Counts(np.zeros(0, np.uint64), np.zeros(0, np.int64))
        counts = [empty] * ORDER
        for text in in_chunks(texts):
            codes = self.encode(text)
            for n in range(1, ORDER + 1):
                keys, _ = ngrams(codes, n)
                found, times = np.unique(keys, return_counts=True)
                counts[n - 1] += Counts(found, times)
        total = int(counts[0].counts.sum())
        if not total:
            raise InputError(
                "no characters to count: the corpus is empty, or has neither Chinese nor letters nor digits"
            )
        self.solid = []
        for n in range(2, ORDER + 1):
            kept = counts[n - 1].at_least(self.min_count)
            least = np.full(len(kept.keys), np.inf)
            for head in range(1, n):
                first = counts[head - 1].of(kept.keys >> np.uint64(16 * (n - head)))
                second = counts[n - head - 1].of(kept.keys & np.uint64((1 << 16 * (n - head)) - 1))
                least = np.minimum(least, np.log(kept.counts) + math.log(total) - np.log(first) - np.log(second))
            self.solid.append(kept.keys[least >= self.min_pmi[n - 2]])
        return self

    def joined(self, codes: np.ndarray) -> np.ndarray:
        """Whether a character belongs together with the one after it. Shape: (T,) -> (T,) bool"""
        joined = np.zeros(len(codes), bool)
        for n, solid in enumerate(self.solid, 2):
            keys, places = ngrams(codes, n)
            places = places[is_in(keys, solid)]
            for offset in range(n - 1):
                joined[places + offset] = True
        return joined

    def cut(self, text: str) -> list[str]:
        """A text in candidates of words, and all else, which is a piece of its own. Together they are the text."""
        codes = self.encode(text)
        other = codes == 0
        together = self.joined(codes) | (other & np.append(other[1:], False))
        ends = np.flatnonzero(~together) + 1
        return [text[start:end] for start, end in itertools.pairwise([0, *ends.tolist()])]

    def words(self, texts: Iterable[str]) -> dict[str, int]:
        """The words of a corpus, most frequent first, with how often they stand in it."""
        found: Counter[str] = Counter()
        for text in in_chunks(texts):
            found.update(self.cut(text))
        kept = {word: count for word, count in found.items() if count >= self.min_count and self.is_solid(word)}
        return dict(sorted(kept.items(), key=lambda item: (-item[1], item[0])))

    def is_solid(self, word: str) -> bool:
        """Whether all of a word is made of solid n-grams: one of its length, or of the longest length."""
        codes = self.encode(word)
        if not len(codes) or not codes.all():
            return False
        n = min(len(codes), ORDER)
        return n == 1 or bool(is_in(ngrams(codes, n)[0], self.solid[n - 2]).all())


def ngrams(codes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """All n-grams of characters that are in words, each as a number, and where they begin.

    Shape: (T,) -> 2 x (N,)
    """
    count = max(len(codes) - n + 1, 0)
    keys, real = np.zeros(count, np.uint64), np.ones(count, bool)
    for offset in range(n):
        part = codes[offset : offset + count]
        keys = keys << np.uint64(16) | part
        real &= part > 0
    places = np.flatnonzero(real)
    return keys[places], places


def is_in(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which keys are among others that are in order. Shape: (N,), (M,) -> (N,) bool"""
    if not len(known):
        return np.zeros(len(keys), bool)
    return known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys


def in_chunks(texts: Iterable[str]) -> Iterator[str]:
    """Texts, line by line, put together to about CHUNK characters."""
    held, size = [], 0
    for text in texts:
        held.append(text)
        size += len(text) + 1
        if size >= CHUNK:
            yield "\n".join(held)
            held, size = [], 0
    if held:
        yield "\n".join(held)
