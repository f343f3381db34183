"""The parts models are assembled from. All are serializable; none is a Lambda.

They are imported, and Keras with them, when the first of them is asked for: converting and inspecting read what a
family says of itself, which needs no Keras. `ops`, `tree`, `Activation`, `Input` and `Model` are Keras' own.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras import Input, Model, ops, tree
    from keras.layers import Activation, GlobalAveragePooling1D

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
    from bert4x.layers.dilated import AttentionPooling, DilatedGatedConv
    from bert4x.layers.discrete import FiniteScalarQuantizer, VectorQuantizer, gumbel_softmax
    from bert4x.layers.disentangled import DisentangledAttention, DistanceTable, LocalConvolution
    from bert4x.layers.embeddings import Bias, Embedding, RowEmbedding
    from bert4x.layers.ffn import FeedForward
    from bert4x.layers.gau import GatedAttentionUnit
    from bert4x.layers.generative import SelfModulation, SpectralNorm
    from bert4x.layers.joining import BatchConcat, BatchSplit, Concatenate1D, GlobalMaxPooling1D
    from bert4x.layers.keras2 import integerize_shape
    from bert4x.layers.loss import Loss, with_loss
    from bert4x.layers.norm import LayerNorm, RMSNorm, ScaleNorm
    from bert4x.layers.ordered_neurons import OrderedNeurons
    from bert4x.layers.places import PlaceScores, SpanStates, TakePlaces, WrittenTokens
    from bert4x.layers.pointer import EfficientGlobalPointer, GlobalPointer
    from bert4x.layers.pooling import FirstToken, LastToken, MeanOfTokens, Pooling
    from bert4x.layers.position_embeddings import PositionEmbedding, RealPositions, SinusoidalPosition
    from bert4x.layers.positions import (
        Disentangled,
        DynamicRotary,
        LinearRotary,
        Llama3Rotary,
        Positions,
        RelativeBias,
        RelativeVectors,
        Rotary,
        YarnRotary,
    )
    from bert4x.layers.projection import TiedProjection
    from bert4x.layers.scale_offset import LayerNormalization, ScaleOffset
    from bert4x.layers.slots import write_slots
    from bert4x.layers.theseus import BinaryRandomChoice
    from bert4x.layers.visibility import PlacesInTexts, Visibility

_HOME = {
    "keras": "Input Model ops tree",
    "keras.layers": "Activation GlobalAveragePooling1D",
    "bert4x.layers.attention": "MultiHeadAttention",
    "bert4x.layers.base": "Add Dense Dropout Layer LoadsWeights Scale activation initializer weights_from",
    "bert4x.layers.crf": "ConditionalRandomField MaximumEntropyMarkovModel",
    "bert4x.layers.cross_attention": "CrossAttention",
    "bert4x.layers.disentangled": "DisentangledAttention DistanceTable LocalConvolution",
    "bert4x.layers.dilated": "AttentionPooling DilatedGatedConv",
    "bert4x.layers.discrete": "FiniteScalarQuantizer VectorQuantizer gumbel_softmax",
    "bert4x.layers.equations": "EquationCell",
    "bert4x.layers.embeddings": "Bias Embedding RowEmbedding",
    "bert4x.layers.position_embeddings": "PositionEmbedding RealPositions SinusoidalPosition",
    "bert4x.layers.ffn": "FeedForward",
    "bert4x.layers.generative": "SelfModulation SpectralNorm",
    "bert4x.layers.joining": "BatchConcat BatchSplit Concatenate1D GlobalMaxPooling1D",
    "bert4x.layers.keras2": "integerize_shape",
    "bert4x.layers.loss": "Loss with_loss",
    "bert4x.layers.gau": "GatedAttentionUnit",
    "bert4x.layers.norm": "LayerNorm RMSNorm ScaleNorm",
    "bert4x.layers.ordered_neurons": "OrderedNeurons",
    "bert4x.layers.places": "PlaceScores SpanStates TakePlaces WrittenTokens",
    "bert4x.layers.pointer": "EfficientGlobalPointer GlobalPointer",
    "bert4x.layers.pooling": "FirstToken LastToken MeanOfTokens Pooling",
    "bert4x.layers.positions": (
        "Disentangled DynamicRotary LinearRotary Llama3Rotary Positions RelativeBias RelativeVectors Rotary YarnRotary"
    ),
    "bert4x.layers.projection": "TiedProjection",
    "bert4x.layers.slots": "write_slots",
    "bert4x.layers.theseus": "BinaryRandomChoice",
    "bert4x.layers.scale_offset": "LayerNormalization ScaleOffset",
    "bert4x.layers.variational": "ReparametrizedNormal normal_divergence",
    "bert4x.layers.visibility": "PlacesInTexts Visibility",
}

__all__ = [
    "Activation",
    "Add",
    "AttentionPooling",
    "BatchConcat",
    "BatchSplit",
    "Bias",
    "BinaryRandomChoice",
    "Concatenate1D",
    "ConditionalRandomField",
    "CrossAttention",
    "Dense",
    "DilatedGatedConv",
    "Disentangled",
    "DisentangledAttention",
    "DistanceTable",
    "Dropout",
    "DynamicRotary",
    "EfficientGlobalPointer",
    "Embedding",
    "EquationCell",
    "FeedForward",
    "FiniteScalarQuantizer",
    "FirstToken",
    "GatedAttentionUnit",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "GlobalPointer",
    "Input",
    "LastToken",
    "Layer",
    "LayerNorm",
    "LayerNormalization",
    "LinearRotary",
    "Llama3Rotary",
    "LoadsWeights",
    "LocalConvolution",
    "Loss",
    "MaximumEntropyMarkovModel",
    "MeanOfTokens",
    "Model",
    "MultiHeadAttention",
    "OrderedNeurons",
    "PlaceScores",
    "PlacesInTexts",
    "Pooling",
    "PositionEmbedding",
    "Positions",
    "RMSNorm",
    "RealPositions",
    "RelativeBias",
    "RelativeVectors",
    "ReparametrizedNormal",
    "Rotary",
    "RowEmbedding",
    "Scale",
    "ScaleNorm",
    "ScaleOffset",
    "SelfModulation",
    "SinusoidalPosition",
    "SpanStates",
    "SpectralNorm",
    "TakePlaces",
    "TiedProjection",
    "VectorQuantizer",
    "Visibility",
    "WrittenTokens",
    "YarnRotary",
    "activation",
    "gumbel_softmax",
    "initializer",
    "integerize_shape",
    "normal_divergence",
    "ops",
    "tree",
    "weights_from",
    "with_loss",
    "write_slots",
]


# Names of bert4keras.layers that are not here, and what to write.
INSTEAD = {
    "SinusoidalPositionEmbedding": "from bert4x.backend.layers import SinusoidalPositionEmbedding",
    "RelativePositionEmbedding": "from bert4x.backend.layers import RelativePositionEmbedding",
    "RelativePositionEmbeddingT5": "from bert4x.backend.layers import RelativePositionEmbeddingT5",
    "custom_objects": "nothing: all layers of bert4x are registered, and files with them load by themselves",
    "recompute_grad": "build_transformer_model(..., recompute=True)",
    "sequence_masking": "from bert4x.backend import sequence_masking",
}


def __getattr__(name: str):
    if name in INSTEAD:
        raise ImportError(f"bert4x.layers has no {name}; write instead: {INSTEAD[name]}")
    if name.startswith("_"):
        raise AttributeError(f"module 'bert4x.layers' has no attribute {name!r}")
    if name not in __all__:  # of Keras', which bert4keras.layers gave, too
        keras_layers = importlib.import_module("keras.layers")
        if not hasattr(keras_layers, name):
            raise AttributeError(f"module 'bert4x.layers' has no attribute {name!r}")
        return getattr(keras_layers, name)
    for module, names in _HOME.items():  # all at once: files with any of the layers can be loaded from then on
        home = importlib.import_module(module)
        globals().update({known: getattr(home, known) for known in names.split()})
    return globals()[name]
