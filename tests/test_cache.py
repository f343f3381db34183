"""Decoding with a cache gives what the whole sequence gives at once, for every family and application."""

import numpy as np
import pytest
from keras import ops

from bert4x.models.build import build_transformer_model
from bert4x.models.cache import new_cache
from tests.random_models import tiny_config

SOURCE, LENGTH = 4, 9


@pytest.mark.parametrize("application", ["lm", "unilm"])
@pytest.mark.parametrize("options", [{}, {"residual_attention_scores": True}], ids=["plain", "residual"])
@pytest.mark.parametrize("family", ["bert", "albert", "albert_unshared", "roformer", "nezha", "gpt2"])
def test_cached_equals_uncached(family, options, application):
    config = tiny_config(family, initializer_range=0.3) | options
    backbone = build_transformer_model(
        config, model=family, application=application, with_mlm="linear", return_keras_model=False
    )
    random = np.random.default_rng(0)
    ids = random.integers(1, config["vocab_size"], (2, LENGTH)).astype("int32")
    segments = np.array([[0] * SOURCE + [1] * (LENGTH - SOURCE)] * 2, dtype="int32")
    if not config["segment_vocab_size"] and application == "lm":
        segments = segments * 0
    valid = np.ones((2, LENGTH), dtype=bool)
    valid[1, 1] = False  # a hole in the source, which no token may see
    whole = backbone.model({"token_ids": ids, "segment_ids": segments, "padding_mask": valid})

    cache = new_cache(backbone.config, batch_size=2, length=LENGTH + 3, dtype="float32")
    steps, start = [], 0
    for stop in [SOURCE, SOURCE + 1, SOURCE + 3, LENGTH]:  # the source at once, then one token, two, two
        inputs = {"token_ids": ids, "segment_ids": segments, "padding_mask": valid}
        inputs = {name: ops.convert_to_tensor(array[:, start:stop]) for name, array in inputs.items()}
        logits, cache = backbone.forward(inputs, cache, start)
        steps.append(ops.convert_to_numpy(logits))
        start = stop
    difference = np.abs(np.concatenate(steps, axis=1) - ops.convert_to_numpy(whole))
    assert difference.max() < 2e-5
    assert np.ptp(ops.convert_to_numpy(whole)) > 1  # logits that are all alike would prove nothing
