"""The parts models are assembled from. All are serializable; none is a Lambda."""

from bert4x.layers.attention import CrossAttention, MultiHeadAttention, Visibility
from bert4x.layers.base import Dense, Layer, LoadsWeights, activation, initializer, weights_from
from bert4x.layers.embeddings import Bias, Embedding, FirstToken, PositionEmbedding, SinusoidalPosition
from bert4x.layers.ffn import FeedForward
from bert4x.layers.norm import LayerNorm

__all__ = [
    "Bias",
    "CrossAttention",
    "Dense",
    "Embedding",
    "FeedForward",
    "FirstToken",
    "Layer",
    "LayerNorm",
    "LoadsWeights",
    "MultiHeadAttention",
    "PositionEmbedding",
    "SinusoidalPosition",
    "Visibility",
    "activation",
    "initializer",
    "weights_from",
]
