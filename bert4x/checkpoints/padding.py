"""Rows that Megatron-LM adds to a vocabulary, so that every model-parallel rank has as many."""

import math
from dataclasses import replace

import numpy as np

from bert4x.checkpoints.layout import SAME
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.tensors import LazyTensor, Tensors

PADDED = 128  # the rows of every rank are a multiple of this, where a run does not ask otherwise
OF_VOCABULARY = ("Embedding-Token/embeddings", "MLM-Bias/bias")  # our variables with a row for each token


def without_padding(table: Table, tensors: Tensors, size: int) -> tuple[Table, Tensors]:
    """A table and the tensors of all ranks without the rows that are added to a vocabulary of this `size`; then every
    rank has all of it.
    """
    rules, held = list(table.rules), dict(tensors)
    for place, rule in enumerate(rules):
        if rule.ours not in OF_VOCABULARY:
            continue
        parts = [t for name, t in tensors.items() if table.canonical_name(name.partition("/")[2]) == rule.theirs]
        rows = sum(part.shape[0] for part in parts if part.shape)
        if rows > size and rows == PADDED * len(parts) * math.ceil(size / PADDED / len(parts)):

            def read(parts=parts) -> np.ndarray:
                return np.concatenate([part.read() for part in parts])[:size]

            whole = LazyTensor("", (size, *parts[0].shape[1:]), parts[0].dtype, read)
            held |= {part.name: replace(whole, name=part.name) for part in parts}
            rules[place] = replace(rule, layout=SAME)
    return replace(table, rules=tuple(rules)), held
