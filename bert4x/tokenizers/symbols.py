"""Characters or words of a corpus as numbers, for models that start from nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

PADDING, OTHER = 0, 1


class Symbols:
    """The frequent symbols of a corpus, numbered from 2 on, the most frequent first; 0 is padding, 1 any other.

    Args:
        texts: each a string of characters, or a list of words.
        least: how often a symbol must be there.
        most: how many symbols are kept.
    """

    def __init__(self, texts: Iterable[Sequence[str]], least: int = 1, most: int | None = None):
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        self.symbols = [symbol for symbol, count in counts.most_common(most) if count >= least]
        self.numbers = {symbol: number for number, symbol in enumerate(self.symbols, OTHER + 1)}

    def __len__(self) -> int:
        """Numbers there are, with padding and the one of all others."""
        return len(self.symbols) + OTHER + 1

    def rows(self, texts: Sequence[Sequence[str]], length: int) -> np.ndarray:
        """The numbers of texts; what is longer is read up to there. Shape: N texts -> (N, length) int32"""
        found = np.full((len(texts), length), PADDING, "int32")
        for row, text in zip(found, texts, strict=True):
            numbers = [self.numbers.get(symbol, OTHER) for symbol in text[:length]]
            row[: len(numbers)] = numbers
        return found
