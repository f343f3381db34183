"""Which tokens are one word, for whole-word masking."""

import logging
from collections.abc import Sequence

import numpy as np

from bert4x.errors import RunError


def cut_words(text: str) -> list[str]:
    """The words of a text. Raises: RunError without jieba."""
    try:
        import jieba
    except ImportError:
        raise RunError("words are cut by jieba: pip install jieba") from None
    jieba.setLogLevel(logging.WARNING)
    return jieba.lcut(text)


def contexts(texts: Sequence[Sequence[str]], words: Sequence[str], window: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the words around each word of texts, `window` on each side, and its own; the first of `words`
    stands for all that are not among them, and for what is beyond a text. Such words have no row of their own.

    Shape: -> (N, 2 window) int32, (N,) int32
    """
    number, reach = {word: i for i, word in enumerate(words)}, np.arange(-window, window + 1)
    around, centre = [np.zeros((0, 2 * window), "int32")], [np.zeros(0, "int32")]
    for text in texts:
        ids = np.pad(np.array([number.get(word, 0) for word in text], "int32"), window)
        places = np.flatnonzero(ids)
        around.append(np.delete(ids[places[:, None] + reach], window, axis=1))
        centre.append(ids[places])
    return np.concatenate(around), np.concatenate(centre)


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
