"""What `bert4keras.backend` holds, under its names: `from bert4x.backend import keras, K, search_layer, ...`.

`K` has the functions of Keras 2's backend, as Keras 2 has them, on all three backends; see docs/bert4keras.md.
"""

import keras

from bert4x.backend import keras2 as K
from bert4x.backend.attention import (
    apply_rotary_position_embeddings,
    attention_normalize,
    sequence_masking,
    sinusoidal_embeddings,
)
from bert4x.backend.calls import symbolic
from bert4x.backend.functions import (
    batch_gather,
    divisible_temporal_padding,
    get_available_gpus,
    leaky_relu,
    pool1d,
    recompute_grad,
    root_mean_square,
    set_gelu,
    swish,
)
from bert4x.backend.losses import multilabel_categorical_crossentropy, sparse_multilabel_categorical_crossentropy
from bert4x.backend.numbers import where
from bert4x.backend.shapes import align, dtype, flatten, reshape
from bert4x.layers.base import gelu_erf, gelu_tanh
from bert4x.optimizers.schedules import piecewise_linear
from bert4x.snippets.layers import search_layer

is_tf_keras = False  # it is Keras 3, whatever it computes with

__all__ = [
    "K",
    "align",
    "apply_rotary_position_embeddings",
    "attention_normalize",
    "batch_gather",
    "divisible_temporal_padding",
    "dtype",
    "flatten",
    "gelu_erf",
    "gelu_tanh",
    "get_available_gpus",
    "is_tf_keras",
    "keras",
    "leaky_relu",
    "multilabel_categorical_crossentropy",
    "piecewise_linear",
    "pool1d",
    "recompute_grad",
    "reshape",
    "root_mean_square",
    "search_layer",
    "sequence_masking",
    "set_gelu",
    "sinusoidal_embeddings",
    "sparse_multilabel_categorical_crossentropy",
    "swish",
    "symbolic",
    "where",
]
