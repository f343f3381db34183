"""ALBERT: BERT whose blocks share one set of weights (Lan et al. 2019, arXiv 1909.11942)."""

from bert4x.models.bert import Bert
from bert4x.models.registry import register


@register("albert")
class Albert(Bert):
    """Every block is the same block."""

    def block_name(self, i: int) -> str:
        return "Transformer"


@register("albert_unshared")
class AlbertUnshared(Bert):
    """Every block starts as a copy of ALBERT's block and learns on its own (Su, kexue.fm/archives/7187)."""
