"""Which tokens are one word, for whole-word masking."""

import logging
from collections.abc import Sequence

import numpy as np


class Words:
    """Tells the words of rows of ids: the pieces of a word of Latin letters, and, where jieba is installed, the
    characters of a Chinese word (whole-word masking of Chinese: Cui et al. 2019, arXiv 1906.08101).

    Args:
        tokens: the vocabulary.
    """

    def __init__(self, tokens: Sequence[str]):
        self.tokens = list(tokens)
        self.cut = None
        try:
            import jieba
        except ImportError:
            return
        jieba.setLogLevel(logging.WARNING)
        self.cut = jieba.Tokenizer().cut

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        """The number of each token's word. Shape: (T,) -> (T,) int, rising"""
        tokens = [self.tokens[i] for i in ids]
        fresh = np.array([not token.startswith("##") for token in tokens], bool)
        if self.cut is None or not tokens:
            return np.cumsum(fresh)
        # Each token as it stands in a text; special ones as what is in no word.
        written = [self.written(token) for token in tokens]
        lengths = [len(word) for word in self.cut("".join(written), HMM=False)]
        word_of_character = np.repeat(np.arange(len(lengths)), lengths)
        last = np.cumsum([len(text) for text in written]) - 1
        words = word_of_character[last]
        return np.cumsum(np.append(True, (words[1:] != words[:-1]) & fresh[1:]))

    def written(self, token: str) -> str:
        if token.startswith("##"):
            return token[2:] or " "
        if len(token) > 1:
            return "\n" if token.startswith("[") and token.endswith("]") else " " + token
        return " " + token if token.isascii() and token.isalnum() else token
