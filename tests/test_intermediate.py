"""What the layers inside a model give, and finding them by name."""

import keras
import numpy as np
import pytest
from keras import ops
from random_models import random_inputs, tiny_config

from bert4x import build_transformer_model
from bert4x.errors import ConfigError, InputError
from bert4x.models.cache import AttentionContext
from bert4x.models.intermediate import intermediate
from bert4x.snippets import search_layer


def build(family="bert", **options):
    config = tiny_config(family)
    return build_transformer_model(config, model=family, **options), random_inputs(config)


def numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


class TestIntermediate:
    def test_one(self):
        model, inputs = build()
        last = intermediate(model, "Transformer-2-FeedForward-Norm")
        np.testing.assert_array_equal(numpy(last(inputs)), numpy(model(inputs)))

    def test_several(self):
        model, inputs = build()
        names = [f"Transformer-{i}-FeedForward-Norm" for i in range(3)]
        inner = intermediate(model, names)
        found = numpy(inner(inputs))
        assert [x.shape for x in found] == [(3, 13, 35)] * 3
        # Each is what the blocks up to it make: from the one before, the next.
        state, visible = numpy(intermediate(model, [names[0], "Attention-Mask"])(inputs))
        np.testing.assert_array_equal(state, found[0])
        block = model.builder.block
        for i in (1, 2):
            context = AttentionContext(lambda window: (visible, None))
            state = numpy(block(f"Transformer-{i}", ops.convert_to_tensor(state), context))
            np.testing.assert_allclose(state, found[i], atol=1e-5)
        predicted = inner.predict(inputs, verbose=0)
        np.testing.assert_allclose(predicted[1], found[1], atol=1e-5)

    def test_every_call_of_a_shared_layer(self):
        model, inputs = build("albert")
        calls = numpy(intermediate(model, "Transformer-FeedForward-Norm")(inputs))
        assert len(calls) == 3
        np.testing.assert_array_equal(calls[2], numpy(model(inputs)))
        assert np.abs(calls[1] - calls[0]).max() > 1e-3

    def test_calls_of_other_models_are_left_out(self):
        model, _ = build()
        model.get_layer("Embedding-Token")(model.inputs[0])
        assert intermediate(model, "Embedding-Token").output.shape == (None, None, 35)

    def test_tied_table(self):
        model, inputs = build(with_mlm="linear")
        embedded, logits = numpy(intermediate(model, "Embedding-Token")(inputs))
        assert (embedded.shape, logits.shape) == ((3, 13, 35), (3, 13, 97))

    def test_inputs_are_those_of_the_model(self):
        model, _ = build()
        inner = intermediate(model, "Embedding-Dropout")
        with pytest.raises(InputError, match="outside the table"):
            inner({"token_ids": np.full((1, 3), 97)})
        assert inner.config is model.config

    def test_with_a_head(self):
        model, inputs = build()
        whole = keras.Model(model.inputs, keras.layers.Dense(2, name="Scores")(model.output[:, 0]))
        inner = intermediate(whole, ["Transformer-1-FeedForward", "Scores"])
        hidden, scores = numpy(inner([inputs["token_ids"], inputs["segment_ids"]]))
        assert (hidden.shape, scores.shape) == ((3, 13, 35), (3, 2))

    def test_unknown(self):
        model, _ = build()
        with pytest.raises(ConfigError, match="did you mean 'Transformer-2-FeedForward-Norm'"):
            intermediate(model, ["Transformer-2-FeedForwardNorm"])


class TestSearchLayer:
    def test_from_an_output(self):
        model, _ = build()
        output = keras.layers.Dense(2)(model.output[:, 0])
        for name in ("Transformer-0-MultiHeadSelfAttention", "Embedding-Token", "Input-Token"):
            assert search_layer(output, name) is model.get_layer(name)

    def test_from_a_layer(self):
        model, _ = build()
        assert search_layer(model.layers[-1], "Embedding-Norm") is model.get_layer("Embedding-Norm")

    def test_upstream_only(self):
        model, _ = build()
        inner = model.get_layer("Transformer-1-FeedForward").output
        assert search_layer(inner, "Transformer-2-FeedForward") is None
        assert search_layer(inner, "Transformer-0-FeedForward") is not None

    def test_within_a_model(self):
        model, _ = build()
        output = keras.layers.Dense(2)(model(model.inputs))
        assert search_layer(output, "Transformer-0-FeedForward") is model.get_layer("Transformer-0-FeedForward")
