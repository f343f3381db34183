"""Tokenizers of pretrained Chinese models, under bert4keras' interface."""

from .backend import BackendTokenizer
from .base import TokenizerBase
from .bpe import BpeTokenizer
from .folder import load_tokenizer
from .sentencepiece import CpmTokenizer, SpTokenizer
from .vocab import load_vocab, save_vocab
from .wordpiece import Tokenizer

__all__ = [
    "BackendTokenizer",
    "BpeTokenizer",
    "CpmTokenizer",
    "SpTokenizer",
    "Tokenizer",
    "TokenizerBase",
    "load_tokenizer",
    "load_vocab",
    "save_vocab",
]
