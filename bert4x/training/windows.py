"""Windows of texts to learn from, of one length or of varying ones, without regard to where sentences end."""

from collections.abc import Iterable, Sequence

import numpy as np

from bert4x.errors import DataError


def windows_of(documents: Iterable[Sequence[str]], tokenizer, size: int, most: int | None = None) -> np.ndarray:
    """Windows of `size` tokens, without [CLS] and [SEP], of documents that have as many; at most `most` of each.

    Args:
        documents: lists of paragraphs, as of `CorpusFile.documents`.

    Shape: -> (N, size) int32
    Raises: DataError where no document is long enough.
    """
    ids = tokenizer.encode_batch(["".join(paragraphs) for paragraphs in documents])[0]
    found = [row[i : i + size] for row in (x[1:-1] for x in ids) for i in range(0, len(row) - size + 1, size)[:most]]
    if not found:
        raise DataError(f"no document has {size} tokens; expected longer ones, separated by empty lines")
    return np.array(found, "int32")


class Windows:
    """Batches of windows, as `Pretrainer` asks for them: each cut at a length that is drawn.

    Args:
        windows: Shape: (N, length)
        shortest: length that is drawn.
        batch: windows of a batch.
    """

    def __init__(self, windows: np.ndarray, shortest: int, batch: int, seed: int = 0):
        self.windows, self.shortest, self.batch, self.seed = windows, shortest, batch, seed
        self.batch_tokens = batch * (windows.shape[1] + 2)

    def rows(self, step: int) -> tuple[int, list[np.ndarray]]:
        """The length of a batch, with [CLS] and [SEP], and its rows without them."""
        rng, longest = np.random.default_rng([self.seed, step]), self.windows.shape[1]
        chosen = rng.integers(len(self.windows), size=self.batch)
        sizes = rng.integers(self.shortest, longest, size=self.batch, endpoint=True)
        return longest + 2, [self.windows[i][:size] for i, size in zip(chosen, sizes, strict=True)]

    def token_counts(self, vocab_size: int) -> np.ndarray:
        return np.bincount(self.windows.ravel(), minlength=vocab_size)
