"""Sources and targets: what is held out, a vocabulary for both, and a small model of them."""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from bert4x.errors import DataError
from bert4x.training.vocabulary import count_characters, trim_vocabulary

Pairs = list[tuple[str, str]]
Tests = list[tuple[str, list[str]]]


def hold_out(pairs: Pairs, count: int) -> tuple[Pairs, Tests]:
    """Pairs to train on, and held-out sources with all their targets, drawn at random, the same ones every time. No
    source is among both, whatever its case or spaces.

    Raises: DataError when there are no more sources than are to be held out.
    """
    groups: dict[str, Pairs] = defaultdict(list)
    for source, target in pairs:
        groups[" ".join(source.lower().split())].append((source, target))
    if len(groups) <= count:
        raise DataError(f"{len(groups)} different sources; expected more than the {count} to hold out")
    keys = sorted(groups)
    random.Random(0).shuffle(keys)
    tests = [(groups[key][0][0], [target for _, target in groups[key]]) for key in keys[:count]]
    return [pair for key in keys[count:] for pair in groups[key]], tests


def pair_tokenizer(pairs: Sequence[tuple[str, str]], base_vocab: str | os.PathLike, size: int):
    """A WordPiece tokenizer for both sides: the characters that come twice in the targets, and the Latin words and
    pieces of a larger vocabulary that come four times in the sources; other words are spelled.
    """
    from bert4x.tokenizers import Tokenizer

    base = Tokenizer(base_vocab, do_lower_case=True)
    counts = Counter(i for row in base.encode_batch([source for source, _ in pairs])[0] for i in row)
    words = {base.id_to_token(i): count for i, count in counts.items() if count >= 4}
    words = {word: count for word, count in words.items() if len(word) > 1 and word.isascii() and word[0] != "["}
    tokens = trim_vocabulary(frequent(count_characters(target for _, target in pairs), 2), words, size)
    return Tokenizer({token: i for i, token in enumerate(tokens)}, do_lower_case=True)


def pair_config(tokenizer, hidden: int, layers: int, dropout: float) -> dict:
    """A small Transformer that translates pairs, encoder and decoder alike (Vaswani et al. 2017, arXiv 1706.03762)."""
    return {
        "vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id, "segment_vocab_size": 0,
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 512,
        "hidden_act": "relu", "dropout_rate": dropout, "initializer_range": hidden**-0.5, "layer_norm_eps": 1e-6,
    }  # fmt: skip


def frequent(counts: dict[str, int], least: int) -> dict[str, int]:
    """What occurs at least so often."""
    return {one: count for one, count in counts.items() if count >= least}


def encode(tokenizer, texts: Iterable[str], longest: int) -> list[list[int]]:
    """The ids of texts with the tokenizer's special tokens, cut to a length."""
    return tokenizer.encode_batch(list(texts), maxlen=longest)[0]
