"""`.weights.h5`: what bert4x writes Keras loads, and what Keras saves bert4x reads."""

import json

import keras
import numpy as np
import pytest
from make_checkpoints import FAMILIES, LAYOUTS, assert_same_bits, config_of, draw, read_all, write_checkpoint

import bert4x
from bert4x import families
from bert4x import layers as L
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tables import variables
from bert4x.errors import TensorMismatchError
from bert4x.families import family_of
from bert4x.families.bert import Bert

HEADS = ({}, {"with_mlm": "linear"}, {"with_pool": True}, {"with_pool": True, "with_mlm": "linear"})
ALL = {"with_nsp": "linear", "with_mlm": "linear"}
CASES = [(family, heads) for family in ("bert", "albert", "albert_unshared") for heads in (*HEADS, ALL)]
CASES += [("gpt2", HEADS[1]), ("transformer", HEADS[1])]


def values_of(model):
    return {v.path: np.array(v.value) for v in model.variables if "seed_generator" not in v.path}


def random_model(config, heads, seed=3):
    """A model with none of the weights it should be given."""
    cls = family_of(config.model)
    model = cls(config, cls.applications[0], **heads).build().model
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            variable.assign(generator.standard_normal(variable.shape))
    return model


@pytest.mark.parametrize("family, heads", CASES, ids=[f"{f}-{'-'.join(h)}" for f, h in CASES])
def test_keras_loads_what_convert_wrote(family, heads, tmp_path):
    config = config_of(family)
    model = random_model(config, heads)
    paths = list(values_of(model))
    weights = {path: values for path, values in draw(config).items() if path in paths}
    source = write_checkpoint(tmp_path / "a", LAYOUTS[family][0], config, weights)
    bert4x.convert(source, tmp_path / "b", "keras")
    model.load_weights(tmp_path / "b/model.weights.h5")
    assert_same_bits(values_of(model), weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_what_keras_saved(family, tmp_path):
    config = config_of(family)
    model = random_model(config, HEADS[1] if family in ("gpt2", "transformer") else ALL)
    model.save_weights(tmp_path / "model.weights.h5")
    own = write_checkpoint(tmp_path / "own", "bert4x", config)
    (tmp_path / "config.json").write_bytes((own / "config.json").read_bytes())
    assert open_checkpoint(tmp_path).config == config
    assert_same_bits(read_all(tmp_path), values_of(model))
    target = bert4x.convert(tmp_path, tmp_path / "out", "bert4x")
    assert_same_bits(read_all(target), values_of(model))


def test_reads_a_model_with_more_on_top(tmp_path):
    """A classifier on ours, and ours inside another model: our layers are found by their names."""
    config = config_of()
    model = random_model(config, {"with_pool": True})
    expected = values_of(model)
    flat = keras.Model(model.inputs, keras.layers.Dense(4, name="classifier")(model.output))
    ids = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    nested = keras.Model(ids, keras.layers.Dense(4)(model(list(ids))))
    own = write_checkpoint(tmp_path / "own", "bert4x", config)
    for name, whole in (("flat", flat), ("nested", nested)):
        folder = tmp_path / name
        folder.mkdir()
        whole.save_weights(folder / "model.weights.h5")
        (folder / "config.json").write_bytes((own / "config.json").read_bytes())
        assert_same_bits(read_all(folder), expected)
        assert any("dense" in stray for stray in open_checkpoint(folder).report.stray)
        found = bert4x.load(folder, with_pool=True)
        assert_same_bits(values_of(found), expected)


def test_a_layer_may_be_subclassed(tmp_path, monkeypatch):
    """Keras' files number layers by class: a family says the classes of its own."""

    @keras.saving.register_keras_serializable("tests")
    class OddFeedForward(L.FeedForward):
        pass

    class Odd(Bert):
        model_name = "odd"
        variables = Bert.variables
        layer_classes = ((r".*-FeedForward", "OddFeedForward"), *Bert.layer_classes)

        def layer(self, cls, name, **kwargs):
            return super().layer(OddFeedForward if cls is L.FeedForward else cls, name, **kwargs)

    monkeypatch.setitem(families._CLASSES, "odd", Odd)
    model, other = (random_model(config_of().replace(model="odd"), ALL, seed) for seed in (1, 2))
    bert4x.save(model, tmp_path, "keras")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_bits(values_of(other), values_of(model))
    assert_same_bits(read_all(tmp_path), values_of(model))


def test_save_writes_what_a_published_reader_takes(tmp_path):
    config = config_of()
    source = write_checkpoint(tmp_path / "a", "tf1", config)
    model = bert4x.load(source, with_nsp=True, with_mlm=True)
    for format in LAYOUTS["bert"]:
        target = bert4x.save(model, tmp_path / format, format)
        assert_same_bits(read_all(target), draw(config))
        assert open_checkpoint(target).config == config
    for path in variables(config):
        if path.startswith("Transformer-"):
            assert path in values_of(model)


def test_bfloat16_models(tmp_path):
    config = config_of()
    source = write_checkpoint(tmp_path / "a", "bert4x", config, draw(config, "bfloat16"))
    model = bert4x.load(source, dtype="bfloat16", with_nsp=True, with_mlm=True)
    bert4x.save(model, tmp_path / "h5", "keras")
    assert_same_bits(read_all(tmp_path / "h5"), read_all(source))
    model.save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    assert_same_bits(read_all(tmp_path), read_all(source))
    other = bert4x.build_transformer_model(json.loads((tmp_path / "config.json").read_text()), dtype="bfloat16", **ALL)
    other.load_weights(tmp_path / "h5/model.weights.h5")
    inputs = [np.arange(12).reshape(2, 6), np.zeros((2, 6), int)]
    for a, b in zip(model(inputs), other(inputs), strict=True):
        assert np.array_equal(np.array(a, "float32"), np.array(b, "float32"))


def test_a_layer_that_is_missing(tmp_path):
    config = config_of(num_hidden_layers=2)
    model = random_model(config, {})
    model.save_weights(tmp_path / "model.weights.h5")
    write_checkpoint(tmp_path / "own", "bert4x", config.replace(num_hidden_layers=3))
    (tmp_path / "own/config.json").rename(tmp_path / "config.json")
    with pytest.raises(TensorMismatchError, match=r"Transformer-2-.*missing; expected shape"):
        bert4x.load(tmp_path)
