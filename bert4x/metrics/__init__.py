"""Measures of what models say."""

from bert4x.metrics.bleu import bleu, characters

__all__ = ["bleu", "characters"]
