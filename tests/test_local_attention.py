"""Attention in blocks to what is near: as with a mask over all, in time and memory that grow with the length."""

import keras
import numpy as np
import pytest
from battery import array, close
from keras import ops
from random_models import random_model

import bert4x
from bert4x import errors
from bert4x import layers as L

RNG = np.random.default_rng(0)


def near(length, window, dilation, causal):
    """Which keys each query sees, one by one."""
    seen = np.zeros((length, length), bool)
    for q in range(length):
        for k in range(length):
            apart = q - k if causal else abs(q - k)
            seen[q, k] = 0 <= apart < window * dilation and apart % dilation == 0
    return seen


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "window", "dilation"), [(13, 3, 1), (12, 4, 1), (17, 2, 3), (5, 8, 1), (3, 2, 2)])
def test_as_with_a_mask(length, window, dilation, causal):
    layer = L.MultiHeadAttention(4, 6, key_value_heads=2, positions=L.Rotary(), flash_attention=False)
    x = ops.convert_to_tensor(RNG.normal(0, 1, (2, length, 10)).astype("float32"))
    real = np.arange(length) < np.array([[length], [max(length - 4, 1)]])
    layer(x, ops.ones((1, 1, length, length), "bool"))
    for variable in layer.trainable_variables:
        variable.assign(RNG.normal(0, 0.25, variable.shape))
    expected = layer(x, real[:, None, None, :] & near(length, window, dilation, causal))
    found = layer(x, ops.convert_to_tensor(real[:, None, None, :]), local=[window, dilation, causal])
    np.testing.assert_allclose(array(found)[real], array(expected)[real], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "sizes"), [("mistral", {"sliding_window": 4}), ("modernbert", {"global_every": 2})])
def test_models_with_windows_of_their_own(family, sizes):
    """Theirs by the model's mask and in blocks; in other layers of ModernBERT the window is as wide as the text."""
    sizes |= {"local_attention": 6} if family == "modernbert" else {"segment_vocab_size": 0, "hidden_size": 40}
    model, inputs = random_model(family, sizes, application="lm" if family == "mistral" else "encoder")
    real = inputs[0] != (model.config.pad_token_id or 0)
    in_blocks = model.builder.over_the_same_layers(attention_window=13).build().model
    close(array(in_blocks(inputs))[real], array(model(inputs))[real], 2e-5)


def test_what_is_far_changes_nothing(tmp_path):
    """Two layers of a window of 3 see 4 tokens away; with a cache it writes what whole texts give; saved and loaded."""
    model, (ids, *others) = random_model("bert", {"num_hidden_layers": 2}, attention_window=3)
    changed = ids.copy()
    changed[0, 0] = 5 + ids[0, 0] % 7
    found, other = (array(model([one, *others]))[0] for one in (ids, changed))
    assert (np.abs(found - other).max(-1) > 1e-6).tolist() == [True] * 5 + [False] * 8
    model.save(tmp_path / "x.keras")
    close(bert4x.load(tmp_path / "x.keras")([ids, *others]), array(model([ids, *others])), 0)
    lm, _ = random_model("bert", application="lm", attention_window=2, attention_dilation=2, with_mlm="linear")
    (written,) = lm.generate_ids([ids[0, :6]], max_new_tokens=4, stop_ids=[])
    for i, token in enumerate(written):
        whole = np.concatenate([ids[0, :6], written[:i]])[None]
        assert array(lm([whole, np.zeros_like(whole)]))[0, -1].argmax() == token


def test_in_training():
    model, inputs = random_model("bert", {"num_hidden_layers": 1}, attention_window=3, recompute=True)
    model.compile("sgd", "mse")
    target = np.zeros(model.compute_output_shape([x.shape for x in inputs]), "float32")
    assert np.isfinite(model.fit(inputs, target, verbose=0).history["loss"][0])


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {"application": "unilm"}),
        ("bert", {"return_attentions": True}),
        ("bert", {"packed": True}),
        ("bert", {"attention_window": 0}),
        ("bert", {"attention_dilation": -1}),
        ("bert", {"residual_attention_scores": True}),
        ("nezha", {}),
        ("gau", {}),
        ("deberta_v2", {}),
    ],
)
def test_where_it_does_not_go(family, options):
    with pytest.raises(errors.ConfigError, match="attention_window"):
        keras.utils.set_random_seed(0)
        random_model(family, **({"attention_window": 3} | options))
