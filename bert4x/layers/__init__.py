"""The parts models are assembled from. All are serializable; none is a Lambda.

They are imported, and Keras with them, when the first of them is asked for: converting and inspecting read what a
family says of itself, which needs no Keras. `ops`, `tree`, `Activation` and `Input` are Keras' own.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras import Input, ops, tree
    from keras.layers import Activation

    from bert4x.layers.attention import MultiHeadAttention
    from bert4x.layers.base import (
        Add,
        Dense,
        Dropout,
        Layer,
        LoadsWeights,
        Scale,
        activation,
        initializer,
        weights_from,
    )
    from bert4x.layers.crf import ConditionalRandomField, MaximumEntropyMarkovModel
    from bert4x.layers.cross_attention import CrossAttention
    from bert4x.layers.embeddings import (
        Bias,
        Embedding,
        FirstToken,
        MeanOfTokens,
        PositionEmbedding,
        RealPositions,
        RowEmbedding,
        SinusoidalPosition,
    )
    from bert4x.layers.ffn import FeedForward
    from bert4x.layers.gau import GatedAttentionUnit
    from bert4x.layers.loss import Loss
    from bert4x.layers.norm import LayerNorm, RMSNorm, ScaleNorm
    from bert4x.layers.pointer import EfficientGlobalPointer, GlobalPointer
    from bert4x.layers.pooling import LastToken, Pooling
    from bert4x.layers.positions import (
        DynamicRotary,
        LinearRotary,
        Llama3Rotary,
        Positions,
        RelativeBias,
        RelativeVectors,
        Rotary,
        YarnRotary,
    )
    from bert4x.layers.theseus import BinaryRandomChoice
    from bert4x.layers.visibility import Visibility

_HOME = {
    "keras": "Input ops tree",
    "keras.layers": "Activation",
    "bert4x.layers.attention": "MultiHeadAttention",
    "bert4x.layers.base": "Add Dense Dropout Layer LoadsWeights Scale activation initializer weights_from",
    "bert4x.layers.crf": "ConditionalRandomField MaximumEntropyMarkovModel",
    "bert4x.layers.cross_attention": "CrossAttention",
    "bert4x.layers.embeddings": "Bias Embedding FirstToken MeanOfTokens PositionEmbedding RealPositions RowEmbedding "
    "SinusoidalPosition",
    "bert4x.layers.ffn": "FeedForward",
    "bert4x.layers.loss": "Loss",
    "bert4x.layers.gau": "GatedAttentionUnit",
    "bert4x.layers.norm": "LayerNorm RMSNorm ScaleNorm",
    "bert4x.layers.pointer": "EfficientGlobalPointer GlobalPointer",
    "bert4x.layers.pooling": "LastToken Pooling",
    "bert4x.layers.positions": (
        "DynamicRotary LinearRotary Llama3Rotary Positions RelativeBias RelativeVectors Rotary YarnRotary"
    ),
    "bert4x.layers.theseus": "BinaryRandomChoice",
    "bert4x.layers.visibility": "Visibility",
}

__all__ = [
    "Activation",
    "Add",
    "Bias",
    "BinaryRandomChoice",
    "ConditionalRandomField",
    "CrossAttention",
    "Dense",
    "Dropout",
    "DynamicRotary",
    "EfficientGlobalPointer",
    "Embedding",
    "FeedForward",
    "FirstToken",
    "GatedAttentionUnit",
    "GlobalPointer",
    "Input",
    "LastToken",
    "Layer",
    "LayerNorm",
    "LinearRotary",
    "Llama3Rotary",
    "LoadsWeights",
    "Loss",
    "MaximumEntropyMarkovModel",
    "MeanOfTokens",
    "MultiHeadAttention",
    "Pooling",
    "PositionEmbedding",
    "Positions",
    "RMSNorm",
    "RealPositions",
    "RelativeBias",
    "RelativeVectors",
    "Rotary",
    "RowEmbedding",
    "Scale",
    "ScaleNorm",
    "SinusoidalPosition",
    "Visibility",
    "YarnRotary",
    "activation",
    "initializer",
    "ops",
    "tree",
    "weights_from",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'bert4x.layers' has no attribute {name!r}")
    for module, names in _HOME.items():  # all at once: files with any of the layers can be loaded from then on
        home = importlib.import_module(module)
        globals().update({known: getattr(home, known) for known in names.split()})
    return globals()[name]
