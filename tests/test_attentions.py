"""Attention weights that a model gives: by NumPy from what goes into each layer, by transformers, and in a picture."""

import keras
import numpy as np
import pytest
import transformers_models
from battery import array, close
from random_models import random_inputs, random_model, tiny_config

import bert4x
from bert4x import layers as L
from bert4x.errors import ConfigError, InputError
from bert4x.tasks.fill_mask import FillMask
from bert4x.tasks.text_classification import TextClassification


def numpy_weights(model, inputs, layer, visible, call=0):
    """The weights of a layer from its inputs and kernels: softmax(q k / sqrt(d)) over what is visible."""
    given = layer._inbound_nodes[call].input_tensors
    x = array(keras.Model(model.inputs, given[0])(inputs))
    source = array(keras.Model(model.inputs, given[1])(inputs)) if isinstance(layer, L.CrossAttention) else x

    def heads(dense, values):
        kernel, bias = (array(v) for v in dense.variables)
        values = values @ kernel + bias
        return values.reshape(*values.shape[:2], layer.heads, -1).transpose(0, 2, 1, 3)

    query, key = heads(layer.query_dense, x), heads(layer.key_dense, source)
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def causal(length):
    return np.tril(np.ones((length, length), bool))


@pytest.mark.parametrize("application", ["encoder", "lm"])
@pytest.mark.parametrize("family", ["bert", "albert", "gpt2"])
def test_one_text(family, application):
    """Every layer's, at padding too; all else is as without."""
    application = "lm" if family == "gpt2" else application
    model, inputs = random_model(family, application=application, return_attentions=True, with_mlm="linear")
    plain, _ = random_model(family, application=application, with_mlm="linear")
    logits, weights = model(inputs)
    close(logits, array(plain(inputs)), 1e-5)
    tokens = inputs[0]
    visible = (tokens != 0)[:, None, None, :] if family != "gpt2" else np.ones((1, 1, 1, 1), bool)
    visible = visible & causal(tokens.shape[1]) if application == "lm" else visible
    layers = [layer for layer in model.layers if isinstance(layer, L.MultiHeadAttention)]
    calls = [(layer, n) for layer in layers for n in range(3 // len(layers))]
    assert len(weights) == len(calls) == 3
    for found, (layer, call) in zip(weights, calls, strict=True):
        close(found, numpy_weights(model, inputs, layer, visible, call))
    if application == "encoder":
        return
    ids = tokens[:1, :4]
    assert np.array_equal(model.generate_ids(ids, max_new_tokens=3), plain.generate_ids(ids, max_new_tokens=3))


def test_encoder_decoder():
    model, (sources, targets) = random_model("transformer", return_attentions=True)
    _, weights = model([sources, targets])
    assert {side: len(each) for side, each in weights.items()} == {"encoder": 3, "decoder": 2, "cross": 2}
    real = (sources != 0)[:, None, None, :]
    first = targets != 0
    first[:, 0] = True
    masks = {"encoder": real, "decoder": first[:, None, None, :] & causal(targets.shape[1]), "cross": real}
    names = {"encoder": "Encoder-Transformer-{}-MultiHeadSelfAttention"}
    names |= {"decoder": "Decoder-Transformer-{}-MultiHeadSelfAttention"}
    names |= {"cross": "Decoder-Transformer-{}-MultiHeadCrossAttention"}
    for side, each in weights.items():
        for i, found in enumerate(each):
            layer = model.get_layer(names[side].format(i))
            close(found, numpy_weights(model, [sources, targets], layer, masks[side]))


@pytest.mark.parametrize("family", ["bert", "albert", "gpt2"])
def test_as_in_transformers(family, tmp_path):
    config = tiny_config(family)
    theirs = transformers_models.random_model(config)
    theirs.save_pretrained(tmp_path)
    import torch

    inputs = random_inputs(config)
    names = {"input_ids": "token_ids", "attention_mask": "padding_mask"}
    names |= {} if family == "gpt2" else {"token_type_ids": "segment_ids"}
    given = {name: torch.tensor(inputs[ours].astype("int64")) for name, ours in names.items()}
    with torch.no_grad():
        expected = theirs(**given, output_attentions=True).attentions
    _, weights = bert4x.load(tmp_path, return_attentions=True)(inputs)
    for found, their_weights in zip(weights, expected, strict=True):
        close(found, their_weights.numpy())


def test_with_residual_scores_recompute_and_flash():
    options = {"recompute": True, "flash_attention": True, "return_attentions": True}
    model, inputs = random_model("bert", {"residual_attention_scores": True}, **options)
    plain, _ = random_model("bert", {"residual_attention_scores": True})
    _, weights = model(inputs, training=True)
    close(model(inputs)[0], array(plain(inputs)), 1e-5)
    assert len(weights) == 3
    close(array(weights[0]).sum(-1), np.ones((4, 5, 13)))


def test_saved_and_loaded(tmp_path):
    model, inputs = random_model("bert", return_attentions=True)
    model.save(tmp_path / "x.keras")
    again = bert4x.load(tmp_path / "x.keras")
    for found, expected in zip(again(inputs)[1], model(inputs)[1], strict=True):
        close(found, array(expected), 0)


def test_a_picture_of_what_a_model_gives():
    """As it is: PyTorch's tensors want to be differentiated."""
    plots, _ = pytest.importorskip("bert4x.plots"), pytest.importorskip("matplotlib", reason="draws with matplotlib")
    model, inputs = random_model("bert", return_attentions=True)
    weights = model(inputs)[1][-1][0]
    figure = plots.attention(weights, ["字"] * inputs[0].shape[1])
    close(np.array(figure.axes[0].images[0].get_array()), array(weights)[0], 0)


def test_where_it_does_not_go():
    with pytest.raises(ConfigError, match="return_attentions"):
        random_model("bert", application="unilm", bidirectional=True, return_attentions=True)
    model = bert4x.load(with_mlm=True, return_attentions=True)
    with pytest.raises(ConfigError, match="several outputs"):
        TextClassification(model, ["a", "b"])
    with pytest.raises(ConfigError, match="with_mlm"):
        FillMask(model)


def test_picture(tmp_path):
    plots, _ = pytest.importorskip("bert4x.plots"), pytest.importorskip("matplotlib", reason="draws with matplotlib")
    draw = np.random.default_rng(0)
    weights = draw.dirichlet(np.ones(3), (5, 4))
    figure = plots.attention(weights, list("床前明月"), list("光疑是"), path=tmp_path / "x.png", title="Layer 1")
    assert (tmp_path / "x.png").stat().st_size > 5000
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 5 and np.allclose(panels[2].images[0].get_array(), weights[2])
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list("床前明月")
    assert [label.get_text() for label in panels[0].get_xticklabels()] == list("光疑是")
    assert (
        len([axes for axes in plots.attention(weights[0], list("床前明月"), list("光疑是")).axes if axes.images]) == 1
    )
    for wrong in (weights[None], weights[..., :2], weights[:, :3]):
        with pytest.raises(InputError, match="expected"):
            plots.attention(wrong, list("床前明月"), list("光疑是"))
