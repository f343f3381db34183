"""The builder object of `return_keras_model=False`, and layers shared between two models."""

import json

import numpy as np
import pytest

import bert4x
from bert4x.errors import ConfigError, UnknownArchitectureError, UnknownOptionError
from tests.random_models import tiny_config


def values(model):
    return {variable.path: np.array(variable) for variable in model.variables if "seed" not in variable.path}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def saved(tmp_path):
    builder = bert4x.build_transformer_model(tiny_config("bert"), with_mlm=True, return_keras_model=False)
    builder.save_weights_as_checkpoint(tmp_path / "tf1")
    return builder, tmp_path / "tf1"


def test_build_freeze_then_load(saved):
    source, folder = saved
    builder = bert4x.build_transformer_model(tiny_config("bert"), with_mlm=True, return_keras_model=False)
    assert not same(values(builder.model), values(source.model))
    for layer in builder.model.layers:
        layer.trainable = False
    builder.load_weights_from_checkpoint(folder)
    assert same(values(builder.model), values(source.model))
    assert builder.model.trainable_variables == []


def test_layers_of_another_model_take_the_checkpoint_too(saved):
    source, folder = saved
    first = bert4x.build_transformer_model(tiny_config("bert"), with_mlm=True, return_keras_model=False)
    second = bert4x.build_transformer_model(
        tiny_config("bert"), folder, application="lm", layers=first.layers, return_keras_model=False
    )
    assert second.model.get_layer("Embedding-Token") is first.model.get_layer("Embedding-Token")
    assert same(values(first.model), values(source.model))


def test_the_wrong_family_is_refused(saved):
    builder = bert4x.build_transformer_model(tiny_config("albert"), model="albert", return_keras_model=False)
    before = values(builder.model)
    with pytest.raises(ConfigError, match="bert checkpoint"):
        builder.load_weights_from_checkpoint(saved[1])
    assert same(values(builder.model), before)


def test_no_padding_id():
    ids = np.array([[5, 0, 7, 0]])
    with_pad = bert4x.build_transformer_model(tiny_config("bert"), return_keras_model=False)
    without = bert4x.build_transformer_model(tiny_config("bert"), pad_token_id=None, return_keras_model=False)
    without.model.set_weights(with_pad.model.get_weights())
    assert without.config.pad_token_id is None
    masked, seen = np.array(with_pad.model(ids)), np.array(without.model(ids))
    assert np.abs(masked - seen).max() > 1e-3
    all_real = {"token_ids": ids, "padding_mask": np.ones_like(ids, dtype=bool)}
    assert np.abs(np.array(with_pad.model(all_real)) - seen).max() < 1e-6


def test_a_whole_model(tmp_path):
    model = bert4x.build_transformer_model(tiny_config("bert"), with_mlm=True)
    model.save(tmp_path / "model.keras")
    again = bert4x.load(tmp_path / "model.keras")
    ids = np.array([[5, 6, 7]])
    assert np.array_equal(np.array(again(ids)), np.array(model(ids)))
    assert again.config == model.config
    with pytest.raises(UnknownOptionError, match="whole model"):
        bert4x.load(tmp_path / "model.keras", application="lm")


def test_the_family_that_a_config_names(tmp_path):
    """Ours do; bert4keras' do not, and are BERTs unless `model` is given, which decides."""
    named = tiny_config("albert")
    (tmp_path / "config.json").write_text(json.dumps(named | {"model": "not one of ours"}))
    for config, options, family in [
        (named, {}, "albert"),
        (bert4x.build_transformer_model(named).config, {}, "albert"),
        ({name: value for name, value in named.items() if name != "model"}, {}, "bert"),
        (named, {"model": "bert"}, "bert"),
        (tmp_path / "config.json", {}, "bert"),
    ]:
        assert bert4x.build_transformer_model(config, **options).config.model == family
    with pytest.raises(UnknownArchitectureError, match="albert"):
        bert4x.build_transformer_model(named | {"model": "alberd"})
