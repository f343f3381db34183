"""Activations that are computed again in the backward pass: the same gradients, under the same dropout."""

import keras
import numpy as np
import pytest
from keras import ops
from random_models import random_model

import bert4x
from bert4x.layers import FeedForward, MultiHeadAttention
from bert4x.training.compiled import Compiled, value_and_gradients
from bert4x.training.lora import add_lora

RATES = {"dropout_rate": 0.3, "attention_dropout_rate": 0.4}
BERT = "bert", {"num_hidden_layers": 2}, {}
MODELS = {
    "shared": ("albert", {"num_hidden_layers": 2}, {}),
    "scores": ("bert", {"num_hidden_layers": 2, "residual_attention_scores": True}, {}),
    "mixed": ("bert", {"num_hidden_layers": 1}, {"dtype": "mixed_bfloat16"}),
    "two-directions": ("bert", {"num_hidden_layers": 1}, {"application": "unilm", "bidirectional": True}),
    "two-sides": ("transformer", {"num_hidden_layers": 1, "num_decoder_layers": 1}, {}),
}


def build(family, config, options, recompute):
    keras.utils.set_random_seed(5)
    return random_model(family, RATES | config, recompute=recompute, **options)


def learner(model, inputs):
    """A compiled function of the seed of PyTorch's own dropout: loss and gradients with dropout."""

    def run(*inputs):
        def loss():
            outputs = ops.cast(model(list(inputs), training=True), "float32")
            return ops.mean(ops.square(outputs - 1)), ()

        (value, _), gradients = value_and_gradients(loss, model.trainable_variables, model.variables)
        return value, gradients

    compiled = Compiled(run, model.variables)

    def learn(seed=6):
        keras.utils.set_random_seed(seed)
        value, gradients = compiled(*inputs)
        return float(value), [ops.convert_to_numpy(g).astype("float32") for g in gradients]

    return learn


def seeds(model):
    return [ops.convert_to_numpy(v.value).tolist() for v in model.variables if "seed" in v.path]


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_without(name):
    plain, inputs = build(*MODELS[name], False)
    again, _ = build(*MODELS[name], True)
    assert [v.path for v in again.weights] == [v.path for v in plain.weights]
    assert [layer.name for layer in again.layers] == [layer.name for layer in plain.layers]
    learn, learn_again = learner(plain, inputs), learner(again, inputs)
    tolerance, rounding = (0.05, 0.05) if name == "mixed" else (2e-5, 1e-3)
    found = []
    for _ in range(2):  # the second time with the seeds that the first left
        loss, expected = learn()
        other, gradients = learn_again()
        assert other == pytest.approx(loss, rel=1e-2 if name == "mixed" else 1e-6)
        largest = max(np.abs(y).max() for y in expected)
        for variable, x, y in zip(plain.trainable_variables, gradients, expected, strict=True):
            # Keys' biases move no attention: their gradient is what rounding leaves.
            size = max(np.abs(y).max(), largest * rounding)
            np.testing.assert_allclose(x / size, y / size, atol=tolerance, err_msg=variable.path)
        found.append(gradients[0])
    if keras.backend.backend() != "torch":  # which has no seeds in variables
        assert seeds(again) == seeds(plain)
        assert np.abs(found[1] - found[0]).max() > 0.1 * np.abs(found[0]).max()  # other masks, other gradients


def test_computed_again(monkeypatch):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX traces a function once however often it runs")
    calls = []
    for cls, name in ((MultiHeadAttention, "attend"), (FeedForward, "transform")):
        method = getattr(cls, name)

        def counted(self, *args, method=method, **kwargs):
            calls.append(self.name)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, counted)
    for recompute in (False, True):
        model, inputs = build(*BERT, recompute)
        calls.clear()
        model(inputs)
        assert len(calls) == 4  # without training there is no backward pass
        calls.clear()
        learner(model, inputs)()
        assert len(calls) == (8 if recompute else 4)


def test_with_adapters():
    found = []
    for recompute in (False, True):
        model, inputs = build(*BERT, recompute)
        add_lora(model, rank=2, layers="query|value|intermediate")
        for i, variable in enumerate(model.trainable_variables):
            variable.assign(np.random.default_rng(i).normal(0, 0.2, variable.shape))
        found.append(learner(model, inputs)()[1])
    assert len(found[0]) == 12
    for x, y in zip(*found, strict=True):
        assert np.abs(y).max() > 0
        np.testing.assert_allclose(x, y, atol=2e-5 * np.abs(y).max())


def test_loaded_saved_and_loaded(tmp_path):
    model = bert4x.load(recompute=True)
    assert all(layer.recompute for layer in model.layers if isinstance(layer, FeedForward | MultiHeadAttention))
    model.save(tmp_path / "model.keras")
    again = bert4x.load(tmp_path / "model.keras")
    assert all(layer.recompute for layer in again.layers if isinstance(layer, FeedForward | MultiHeadAttention))
    assert again.builder.recompute
