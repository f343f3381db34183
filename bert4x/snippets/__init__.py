"""bert4keras' odds and ends under their names: `from bert4x.snippets import sequence_padding, DataGenerator, ...`.

What differs, and why, is in docs/bert4keras.md.
"""

from bert4x.generation.auto_regressive import AutoRegressiveDecoder
from bert4x.snippets.arguments import delete_arguments, insert_arguments
from bert4x.snippets.arrays import orthogonally_resize, sequence_padding, softmax, to_array, truncate_sequences
from bert4x.snippets.corpus import open
from bert4x.snippets.data_generator import DataGenerator
from bert4x.snippets.layers import search_layer
from bert4x.snippets.parallel import parallel_apply, parallel_apply_generator
from bert4x.snippets.strings import (
    is_string,
    longest_common_subsequence,
    longest_common_substring,
    lowercase_and_normalize,
    string_matching,
    strQ2B,
    text_segmentate,
)
from bert4x.snippets.viterbi import ViterbiDecoder
from bert4x.snippets.web import WebServing

__all__ = [
    "AutoRegressiveDecoder",
    "DataGenerator",
    "ViterbiDecoder",
    "WebServing",
    "delete_arguments",
    "insert_arguments",
    "is_string",
    "longest_common_subsequence",
    "longest_common_substring",
    "lowercase_and_normalize",
    "open",
    "orthogonally_resize",
    "parallel_apply",
    "parallel_apply_generator",
    "search_layer",
    "sequence_padding",
    "softmax",
    "strQ2B",
    "string_matching",
    "text_segmentate",
    "to_array",
    "truncate_sequences",
]
