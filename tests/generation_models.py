"""Tiny models that write, and what they must write: one token after the other, from whole texts, without a cache."""

import keras
import numpy as np
import pytest
from battery import array, build
from random_models import random_weights, tiny_config

EAGER = keras.backend.backend() == "torch"
# For what would be compiled for itself alone: tests/test_generation_backends.py runs it on PyTorch.
ON_PYTORCH = pytest.mark.skipif(not EAGER, reason="takes long to compile; runs on PyTorch, where nothing is compiled")
FAMILIES = ("bert", "albert", "albert_unshared", "gpt2")
# JAX compiles every operation anew for every length: whole texts are padded there to few lengths. That padding changes
# nothing is held by tests/test_parity.py.
LENGTHS = 16 if keras.backend.backend() == "jax" else 1


def writer(family="gpt2", application="lm", seed=0, policy=None, **changes):
    """A model with random weights; large positions and kernels, so that it does not write one token over and over."""
    config = tiny_config(family, **{"num_hidden_layers": 2, "vocab_size": 61, "max_position": 48} | changes)
    weights = random_weights(config, heads=family != "gpt2", seed=seed)
    for path, values in weights.items():
        values *= 4 if "Position" in path else 1.7 if path.endswith("/kernel") else 1
    options = {} if policy is None else {"dtype": policy}
    if family != "gpt2":
        weights = {path: value for path, value in weights.items() if not path.startswith(("Pooler", "NSP"))}
    return build(config, weights, application, with_mlm="linear", **options)


def logits_of(model, ids, segments):
    """What a model says after every token of a text. Shape: (T, V)"""
    room = max(0, min(-len(ids) % LENGTHS, model.config.max_position - len(ids)))
    inputs = {"token_ids": np.array([[*ids, *[0] * room]]), "segment_ids": np.array([[*segments, *[0] * room]])}
    outputs = model(inputs | {"padding_mask": np.arange(len(ids) + room)[None] < len(ids)})
    return array(outputs)[0, : len(ids)].astype("float64")


def logits_after(model, ids, segments):
    """What a model says after a whole text. Shape: (V,)"""
    return logits_of(model, ids, segments)[-1]


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def uncached(model, prompt, steps, segments=None):
    """The likeliest continuation by whole texts, and its log-probability."""
    ids, total = list(prompt), 0.0
    segments = [0] * len(ids) if segments is None else list(segments)
    following = 1 if model.builder.application == "unilm" else segments[-1]
    for _ in range(steps):
        logs = log_softmax(logits_after(model, ids, segments))
        ids.append(int(logs.argmax()))
        segments.append(following)
        total += logs.max()
    return ids[len(prompt) :], total


def log_probability(model, prompt, continuation, segments=None):
    """Of a continuation, from one pass over the whole text."""
    ids = [*prompt, *continuation]
    segments = [0] * len(prompt) if segments is None else list(segments)
    following = 1 if model.builder.application == "unilm" else segments[-1]
    segments += [following] * len(continuation)
    logits = logits_of(model, ids, segments)
    return sum(log_softmax(logits[len(prompt) - 1 + i])[token] for i, token in enumerate(continuation))
