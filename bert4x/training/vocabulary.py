"""A small vocabulary trimmed from a large one by how often a corpus uses its tokens."""

import itertools
import os
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from bert4x.training.corpus import CorpusFile

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LOST = "□"  # what a converter left where it lost a character: not worth a token
ASCII_PIECES = [p + c for p in ("", "##") for c in string.ascii_lowercase + string.digits] + list(string.punctuation)


# A rare word can still be spelled by its letters, a rare character by nothing: a word counts for less.
WORD_WEIGHT = 0.2


def corpus_vocabulary(sources: Sequence[CorpusFile], base_vocab: str | os.PathLike, size: int) -> list[str]:
    """A vocabulary of `size` tokens for weighted sources: their characters, and a large vocabulary's Latin pieces.

    Raises: TokenizerError when the large vocabulary cannot be read.
    """
    from bert4x.tokenizers import Tokenizer

    base = Tokenizer(base_vocab, do_lower_case=True)
    latin = {i for token, i in base.token_dict.items() if len(token) > 1 and token.isascii() and token[0] != "["}
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for source in sources:
        documents = source.training_documents()
        while group := list(itertools.islice(documents, 4000)):
            texts = [paragraph for document in group for paragraph in document]
            for character, count in count_characters(texts).items():
                characters[character] += source.weight * count
            ids = Counter(i for row in base.encode_batch(texts)[0] for i in row)
            for i in ids.keys() & latin:
                words[base.id_to_token(i)] += WORD_WEIGHT * source.weight * ids[i]
    return trim_vocabulary(characters, words, size)


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """How often each character that a lower-casing, accent-stripping WordPiece can produce occurs."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.lower())
    for character in list(counts):
        category = unicodedata.category(character)
        whole = unicodedata.normalize("NFD", character) == character
        if category[0] in "ZC" or category == "Mn" or not whole or character == LOST:
            del counts[character]
    return counts


def trim_vocabulary(characters: dict[str, float], words: dict[str, float], size: int) -> list[str]:
    """The `size` most frequent tokens, led by the special ones.

    Every ASCII letter, digit and sign is kept, alone and as a continuation, so that no Latin word is unknown.

    Args:
        characters: (weighted) counts of characters; those absent from the large vocabulary may be among them.
        words: (weighted) counts of the large vocabulary's longer tokens, such as "the" or "##ing".
        size: number of tokens of the result.

    Returns:
        special tokens, ASCII, then single characters and longer tokens, each in code point order.
    """
    fixed = [*SPECIALS, *ASCII_PIECES]
    candidates = Counter({**words, **characters})
    for token in fixed:
        candidates.pop(token, None)
    # Rounded, because equal counts may differ in their last bits by the order in which they were added up.
    ranked = sorted(candidates, key=lambda token: (-round(candidates[token], 6), token))
    chosen = [token for token in ranked[: size - len(fixed)] if candidates[token] > 0]
    return fixed + sorted(chosen, key=lambda token: (len(token) > 1, token))
