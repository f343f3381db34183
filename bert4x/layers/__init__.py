"""The parts models are assembled from. All are serializable; none is a Lambda."""

from bert4x.layers.attention import CrossAttention, MultiHeadAttention, Visibility
from bert4x.layers.base import Add, Dense, Dropout, Layer, LoadsWeights, activation, initializer, weights_from
from bert4x.layers.crf import ConditionalRandomField, MaximumEntropyMarkovModel
from bert4x.layers.embeddings import Bias, Embedding, FirstToken, PositionEmbedding, SinusoidalPosition
from bert4x.layers.ffn import FeedForward
from bert4x.layers.norm import LayerNorm
from bert4x.layers.pointer import EfficientGlobalPointer, GlobalPointer

__all__ = [
    "Add",
    "Bias",
    "ConditionalRandomField",
    "CrossAttention",
    "Dense",
    "Dropout",
    "EfficientGlobalPointer",
    "Embedding",
    "FeedForward",
    "FirstToken",
    "GlobalPointer",
    "Layer",
    "LayerNorm",
    "LoadsWeights",
    "MaximumEntropyMarkovModel",
    "MultiHeadAttention",
    "PositionEmbedding",
    "SinusoidalPosition",
    "Visibility",
    "activation",
    "initializer",
    "weights_from",
]
