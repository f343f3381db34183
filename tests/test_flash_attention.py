"""Keras' own attention instead of ours: the same outputs and gradients, wherever it knows what is asked for."""

import keras
import numpy as np
import pytest
from keras import ops
from random_models import random_model

import bert4x
from bert4x.layers import MultiHeadAttention
from bert4x.training.compiled import Compiled, value_and_gradients

NONE = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
MODELS = {
    "encoder": ("bert", {}, {}),
    "lm": ("gpt2", {}, {}),
    "unilm": ("bert", {}, {"application": "unilm"}),
    "shared": ("albert", {}, {}),
    "two sides": ("transformer", {}, {}),
}
WITHOUT = {  # what it does not know
    "keys of another size": ("bert", {"attention_key_size": 3}, {}),
    "scores": ("bert", {"residual_attention_scores": True}, {}),
    "two directions": ("bert", {}, {"application": "unilm", "bidirectional": True}),
}


@pytest.fixture
def calls(monkeypatch):
    """The queries' shapes of all calls of Keras' own attention."""
    found, attention = [], ops.dot_product_attention

    def counted(query, *args, **kwargs):
        found.append(tuple(query.shape))
        return attention(query, *args, **kwargs)

    monkeypatch.setattr(ops, "dot_product_attention", counted)
    return found


def build(family, config, options, flash_attention, rates=NONE):
    return random_model(family, rates | config, flash_attention=flash_attention, **options)


def outputs_and_gradients(model, inputs, training):
    def run(*inputs):
        def loss():
            outputs = model(list(inputs), training=training)
            return ops.mean(ops.square(ops.cast(outputs, "float32") - 1)), outputs

        (_, outputs), gradients = value_and_gradients(loss, model.trainable_variables, model.variables)
        return outputs, gradients

    outputs, gradients = Compiled(run, model.variables)(*inputs)
    return [ops.convert_to_numpy(x) for x in (outputs, *gradients)]


def assert_close(found, expected):
    largest = max(np.abs(y).max() for y in expected[1:])
    np.testing.assert_allclose(found[0], expected[0], atol=2e-5)
    for x, y in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(x / largest, y / largest, atol=2e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_the_same(name, training, calls):
    plain, inputs = build(*MODELS[name], False)
    expected = outputs_and_gradients(plain, inputs, training)
    assert not calls
    flash, _ = build(*MODELS[name], True)
    assert_close(outputs_and_gradients(flash, inputs, training), expected)
    assert calls


@pytest.mark.parametrize("name", WITHOUT)
def test_what_it_does_not_know_is_computed_as_before(name, calls):
    plain, inputs = build(*WITHOUT[name], False)
    flash, _ = build(*WITHOUT[name], True)
    expected = outputs_and_gradients(plain, inputs, False)
    for x, y in zip(outputs_and_gradients(flash, inputs, False), expected, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not calls


def test_previous_scores_are_not_lost(calls):
    layer = MultiHeadAttention(5, 7, flash_attention=True)
    x = np.random.default_rng(0).normal(size=(2, 13, 35)).astype("float32")
    scores = np.random.default_rng(1).normal(size=(2, 5, 13, 13)).astype("float32")
    visible = np.ones((1, 1, 13, 13), bool)
    with_them, without = (ops.convert_to_numpy(layer(x, visible, bias=s)) for s in (scores, None))
    assert len(calls) == 1 and np.abs(with_them - without).max() > 1e-3


def test_dropout_is_not_lost(calls):
    model, inputs = build(*MODELS["encoder"], True, {"dropout_rate": 0.0, "attention_dropout_rate": 0.5})
    once, again = (ops.convert_to_numpy(model(inputs, training=True)) for _ in range(2))
    assert not calls and np.abs(once - again).max() > 0.1
    model(inputs, training=False)
    assert calls


def test_by_default_pytorch_infers_with_it(calls):
    model, inputs = build(*MODELS["encoder"], None)
    plain, _ = build(*MODELS["encoder"], False)
    outputs = model(inputs)
    assert bool(calls) == (keras.backend.backend() == "torch")
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), ops.convert_to_numpy(plain(inputs)), atol=2e-5)
    calls.clear()
    outputs_and_gradients(model, inputs, True)
    assert not calls


def test_it_is_an_option_of_load(tmp_path):
    model = bert4x.load(flash_attention=True)
    layers = [layer for layer in model.layers if isinstance(layer, MultiHeadAttention)]
    assert layers and all(layer.flash_attention for layer in layers)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert all(layer.flash_attention for layer in again.layers if isinstance(layer, MultiHeadAttention))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_row_of_nothing_but_padding_is_no_nan(dtype, calls):
    layer = MultiHeadAttention(5, 7, flash_attention=True, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(2, 13, 35)).astype("float32")
    visible = np.arange(13)[None, None, None] < np.array([9, 0])[:, None, None, None]
    found = ops.convert_to_numpy(layer(ops.convert_to_tensor(x), ops.convert_to_tensor(visible)))
    assert calls
    layer.flash_attention = False
    plain = ops.convert_to_numpy(layer(ops.convert_to_tensor(x), ops.convert_to_tensor(visible)))
    assert np.isfinite(found.astype("float32")).all()
    tolerance = 2e-6 if dtype == "float32" else 2e-2 * np.abs(plain[0].astype("float32")).max()
    np.testing.assert_allclose(found[0].astype("float32"), plain[0].astype("float32"), atol=tolerance)
