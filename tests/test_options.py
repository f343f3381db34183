"""The builder's options, against what NumPy makes of the same weights."""

import json
import warnings

import keras
import numpy as np
import pytest
from battery import array, close
from make_checkpoints import FAMILIES, config_of, draw, read_all, write_checkpoint
from random_models import random_inputs, tiny_config
from reference import bert

import bert4x
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.errors import ConfigError, UnknownArchitectureError, UnknownOptionError

WEIGHTS = draw(config_of(), seed=5)
TABLE, BIAS = "Embedding-Token/embeddings", "MLM-Bias/bias"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tiny BERT in Google's layout."""
    return write_checkpoint(tmp_path_factory.mktemp("bert"), "tf1", config_of(), WEIGHTS)


def oracle(weights, inputs, application="encoder", **changes):
    config = tiny_config() | changes
    return bert.forward(weights, config, **inputs, application=application)


def values_of(model):
    return {v.path: array(v) for v in model.variables if "seed_generator" not in v.path}


def same_at(outputs, expected, inputs):
    close(array(outputs)[inputs["padding_mask"]], expected[inputs["padding_mask"]])


def test_keep_tokens(source):
    keep = [0, 5, 3, 96, 40]
    model = bert4x.load(source, with_mlm=True, keep_tokens=keep)
    assert model.config.vocab_size == 5 and model.tokenizer is None
    expected = WEIGHTS | {TABLE: WEIGHTS[TABLE][keep], BIAS: WEIGHTS[BIAS][keep]}
    assert np.array_equal(values_of(model)[TABLE], expected[TABLE])
    inputs = random_inputs(tiny_config(vocab_size=5))
    same_at(model(inputs), oracle(expected, inputs)["mlm_logits"], inputs)
    same_at(bert4x.load(source, with_mlm=True, keep_tokens=np.array(keep))(inputs), array(model(inputs)), inputs)


def test_keep_tokens_takes_the_padding_along(source, tmp_path):
    keep = [7, 8, 0, 9]
    whole, model = (bert4x.load(source, **options) for options in ({"pad_token_id": 0}, {"keep_tokens": keep}))
    assert whole.config.pad_token_id == 0 and model.config.pad_token_id == 2
    ids = np.array([[0, 1, 3, 2, 2]])
    close(array(model([ids, ids * 0]))[:, :3], array(whole([np.array(keep)[ids], ids * 0]))[:, :3])
    converted = bert4x.convert(source, tmp_path / "kept", "bert4x", keep_tokens=keep)
    assert open_checkpoint(converted).config.pad_token_id == 2
    assert bert4x.load(source, keep_tokens=[7, 8]).config.pad_token_id is None


def test_compound_tokens(source):
    """Their ids count after keeping; the mean may be weighted."""
    keep = [7, 8, 9, 0]
    compound = [[0, 2], ([1, 3, 0], [1.0, 2.0, 5.0])]
    model = bert4x.load(source, with_mlm=True, keep_tokens=keep, compound_tokens=compound)
    assert model.config.vocab_size == 6
    for path in (TABLE, BIAS):
        rows = WEIGHTS[path][keep]
        new = [(rows[0] + rows[2]) / 2, (rows[1] + 2 * rows[3] + 5 * rows[0]) / 8]
        np.testing.assert_allclose(values_of(model)[path], np.concatenate([rows, np.stack(new)]), atol=1e-7)
    alone = bert4x.load(source, compound_tokens=[[96]])
    assert np.array_equal(values_of(alone)[TABLE], WEIGHTS[TABLE][[*range(97), 96]])


def test_compound_tokens_in_half_precision(tmp_path):
    weights = draw(config_of(), "float16")
    source = write_checkpoint(tmp_path, "hf", config_of(), weights)
    model = bert4x.load(source, compound_tokens=[[1, 2, 4]])
    expected = weights[TABLE][[1, 2, 4]].astype("f4").mean(0)
    np.testing.assert_allclose(values_of(model)[TABLE][-1], expected, atol=1e-3)


def test_shared_layers(source):
    """`layers` hands the layers of one model to another: they are the same variables."""
    first = bert4x.build_transformer_model(
        checkpoint_path=source, with_mlm="linear", return_keras_model=False, dropout_rate=0.0
    )
    second = bert4x.build_transformer_model(
        checkpoint_path=source, application="unilm", layers=first.layers, return_keras_model=False
    )
    assert second.layers is first.layers
    ours = {v.path: v for v in first.model.variables if "seed" not in v.path}
    theirs = {v.path: v for v in second.model.variables if "seed" not in v.path}
    assert ours.keys() == theirs.keys()
    assert all(ours[path] is theirs[path] for path in ours)
    inputs = random_inputs(tiny_config())
    ours[BIAS].assign(ours[BIAS] + 1)
    changed = WEIGHTS | {BIAS: WEIGHTS[BIAS] + 1}
    same_at(first.model(inputs), oracle(changed, inputs)["mlm_logits"], inputs)
    # the activation is one of the layers, too: the first model's, which gives logits
    same_at(second.model(inputs), oracle(changed, inputs, "unilm")["mlm_logits"], inputs)


def test_prefix(source, tmp_path):
    """Two models side by side in one graph, with weights of their own."""
    a, b = (bert4x.load(source, prefix=prefix) for prefix in ("A-", "B-"))
    assert a.get_layer("A-Embedding-Token") and b.get_layer("B-Transformer-2-FeedForward-Norm")
    whole = keras.Model([*a.inputs, *b.inputs], [a.output, b.output])
    inputs = random_inputs(tiny_config())
    arrays = [inputs["token_ids"], inputs["segment_ids"]]
    left, right = whole([*arrays, *arrays])
    close(left, array(right), 0)
    expected = bert4x.load(source)(arrays)
    close(left, array(expected), 0)
    assert set(values_of(a)) == {f"A-{path}" for path in values_of(bert4x.load(source))}
    saved = bert4x.save(a, tmp_path / "saved", "hf")
    weights = {path: x for path, x in WEIGHTS.items() if path in read_all(saved)}
    assert len(weights) == len(values_of(a))
    assert all(np.array_equal(read_all(saved)[path], x) for path, x in weights.items())


def test_conditional_layer_norm(source):
    """A loaded model starts as it was, whatever the condition; then the condition matters."""
    inputs = random_inputs(tiny_config())
    expected = oracle(WEIGHTS, inputs)["hidden"]
    condition = keras.Input((4,), name="Input-Condition")
    for more in ({}, {"layer_norm_cond_hidden_size": 6, "layer_norm_cond_hidden_act": "relu"}):
        model = bert4x.load(source, layer_norm_cond=condition, **more)
        with_condition = inputs | {"Input-Condition": np.random.default_rng(0).standard_normal((3, 4)).astype("f4")}
        same_at(model(with_condition), expected, inputs)
        for variable in model.variables:
            if "gamma_dense" in variable.path:
                variable.assign(np.ones(variable.shape))
        assert np.abs(array(model(with_condition)) - expected)[inputs["padding_mask"]].max() > 0.1


def test_additional_input_layers(source):
    extra = keras.Input((2,), name="Input-Extra")
    model = bert4x.load(source, additional_input_layers=extra)
    assert [tensor.name for tensor in model.inputs] == ["Input-Token", "Input-Segment", "Input-Extra"]
    inputs = random_inputs(tiny_config())
    same_at(model(inputs | {"Input-Extra": np.zeros((3, 2))}), oracle(WEIGHTS, inputs)["hidden"], inputs)
    output = keras.layers.Concatenate()([model.output[:, 0], extra])
    whole = keras.Model(model.inputs, keras.layers.Dense(2)(output))
    assert whole([inputs["token_ids"], inputs["segment_ids"], np.zeros((3, 2))]).shape == (3, 2)


def test_attention_and_position_options(source):
    inputs = random_inputs(tiny_config())
    for changes in (
        {"residual_attention_scores": True},
        {"hierarchical_position": True},
        {"hierarchical_position": 0.3},
    ):
        same_at(bert4x.load(source, **changes)(inputs), oracle(WEIGHTS, inputs, **changes)["hidden"], inputs)
    long = random_inputs(tiny_config(), length=70)
    model = bert4x.load(source, hierarchical_position=True)
    same_at(model(long), oracle(WEIGHTS, long, hierarchical_position=True)["hidden"], long)
    positions = np.random.default_rng(0).integers(0, 29, inputs["token_ids"].shape)
    model = bert4x.load(source, custom_position_ids=True)
    same_at(
        model(inputs | {"position_ids": positions}),
        oracle(WEIGHTS, inputs | {"position_ids": positions})["hidden"],
        inputs,
    )
    assert [tensor.name for tensor in model.inputs] == ["Input-Token", "Input-Segment", "Input-Position"]
    for wrong in (positions + 29, positions - 29):
        with pytest.raises(bert4x.Bert4xError, match="position id"):
            model(inputs | {"position_ids": wrong})


def test_sequence_length(source):
    model = bert4x.load(source, sequence_length=7)
    assert model.output.shape == (None, 7, 35)
    assert [tensor.shape for tensor in model.inputs] == [(None, 7)] * 2


def test_first_layers_only(source):
    """As for a model distilled or pruned to its first layers."""
    inputs = random_inputs(tiny_config())
    for layers in (1, 2):
        model = bert4x.load(source, num_hidden_layers=layers, with_mlm=True)
        expected = oracle(WEIGHTS, inputs, num_hidden_layers=layers)
        same_at(model(inputs), expected["mlm_logits"], inputs)
    with pytest.raises(bert4x.Bert4xError, match="Transformer-3-"):
        bert4x.load(source, num_hidden_layers=4)


def test_dropout_rates(source):
    model = bert4x.load(source, dropout_rate=0.25, attention_dropout_rate=0.0)
    assert model.get_layer("Embedding-Dropout").rate == 0.25
    assert model.get_layer("Transformer-1-MultiHeadSelfAttention").attention_dropout.rate == 0.0
    model = bert4x.load(source, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.75)
    assert model.get_layer("Embedding-Dropout").rate == 0.0
    assert model.get_layer("Transformer-1-MultiHeadSelfAttention").attention_dropout.rate == 0.75


def test_pooler(source):
    inputs = random_inputs(tiny_config())
    expected = oracle(WEIGHTS, inputs)
    close(bert4x.load(source, with_pool=True)(inputs), expected["pooled"])
    linear = expected["hidden"][:, 0] @ WEIGHTS["Pooler-Dense/kernel"] + WEIGHTS["Pooler-Dense/bias"]
    close(bert4x.load(source, with_pool="linear")(inputs), linear)
    pooled, logits = bert4x.load(source, with_pool=True, with_mlm=True)(inputs)
    close(pooled, expected["pooled"])
    same_at(logits, expected["mlm_logits"], inputs)


def test_load_gives_logits_and_the_builder_probabilities(source):
    inputs = random_inputs(tiny_config())
    expected = oracle(WEIGHTS, inputs)
    nsp, mlm = bert4x.load(source, with_nsp=True, with_mlm=True)(inputs)
    close(nsp, expected["nsp_logits"])
    same_at(mlm, expected["mlm_logits"], inputs)
    config = source / "bert_config.json"
    built = bert4x.build_transformer_model(config, source / "bert_model.ckpt", with_nsp=True, with_mlm=True)
    for found, logits in zip(built(inputs), (nsp, mlm), strict=True):
        close(found, array(keras.ops.softmax(logits)), 1e-6)
    linear = bert4x.build_transformer_model(str(config), str(source / "bert_model.ckpt"), with_mlm="linear")
    same_at(linear(inputs), expected["mlm_logits"], inputs)
    for application in ("lm", "unilm"):
        logits = oracle(WEIGHTS, inputs, application)["mlm_logits"]
        same_at(bert4x.load(source, application)(inputs), logits, inputs)
        built = bert4x.build_transformer_model(checkpoint_path=source, application=application)(inputs)
        same_at(built, array(keras.ops.softmax(logits)), inputs)


def test_names_that_mean_the_same(source):
    inputs = random_inputs(tiny_config())
    expected = array(bert4x.build_transformer_model(checkpoint_path=source)(inputs))
    for model in ("roberta", "BERT", "RoBERTa"):
        close(bert4x.build_transformer_model(checkpoint_path=source, model=model)(inputs), expected, 0)
    unilm = array(bert4x.build_transformer_model(checkpoint_path=source, application="unilm")(inputs))
    close(bert4x.build_transformer_model(checkpoint_path=source, application="seq2seq")(inputs), unilm, 0)
    close(bert4x.build_transformer_model(checkpoint_path=source, application="UniLM")(inputs), unilm, 0)
    kept = bert4x.load(source, keep_words=[1, 2])
    assert kept.config.vocab_size == 2


def test_names_that_mean_nothing(source):
    with pytest.raises(UnknownOptionError, match="did you mean 'keep_tokens'"):
        bert4x.load(source, keep_token=[1])
    with pytest.raises(UnknownOptionError, match="did you mean 'with_mlm'"):
        bert4x.build_transformer_model(checkpoint_path=source, with_mlms=True)
    with pytest.raises(UnknownArchitectureError, match="did you mean 'albert'"):
        bert4x.build_transformer_model(checkpoint_path=source, model="alberta")
    with pytest.raises(UnknownArchitectureError, match="did you mean 'encoder'"):
        bert4x.build_transformer_model(checkpoint_path=source, application="encode")
    with pytest.raises(ConfigError, match="config_path, checkpoint_path"):
        bert4x.build_transformer_model()
    with pytest.raises(ConfigError, match="does not exist"):
        bert4x.build_transformer_model(source / "no.json")
    with pytest.raises(ConfigError, match="does not exist"):
        bert4x.build_transformer_model(source / "no.json", source)


def test_config_without_weights(tmp_path):
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    for config in (sizes, tmp_path / "config.json"):
        for family in FAMILIES:
            model = bert4x.build_transformer_model(config, model=family, intermediate_size=5, max_position_embeddings=6)
            assert (model.config.model, model.config.intermediate_size, model.config.max_position) == (family, 5, 6)
            inputs = [np.ones((1, 4), int)] * len(model.inputs)
            assert model(inputs).shape == (1, 4, 11 if family in ("gpt2", "transformer") else 8)
    assert bert4x.build_transformer_model(model="bert", **sizes).config.hidden_size == 8


def test_the_builder_itself(source):
    backbone = bert4x.build_transformer_model(checkpoint_path=source, return_keras_model=False)
    assert isinstance(backbone.model, keras.Model)
    assert backbone.layers["Embedding-Token"] is backbone.model.get_layer("Embedding-Token")
    assert backbone.config == backbone.model.config


def test_layer_names_of_bert4keras(source, tmp_path):
    model = bert4x.build_transformer_model(checkpoint_path=source, with_nsp=True, with_mlm=True, application="unilm")
    parts = ("MultiHeadSelfAttention", "FeedForward")
    names = [
        f"Transformer-{i}-{part}{end}" for i in range(3) for part in parts for end in ("", "-Dropout", "-Add", "-Norm")
    ]
    names += ["Input-Token", "Input-Segment", "Embedding-Token", "Embedding-Segment", "Embedding-Token-Segment"]
    names += ["Embedding-Position", "Embedding-Norm", "Embedding-Dropout", "Pooler", "Pooler-Dense", "NSP-Proba"]
    names += ["MLM-Dense", "MLM-Norm", "MLM-Bias", "MLM-Activation", "Attention-UniLM-Mask"]
    assert {layer.name for layer in model.layers} == set(names)
    albert = write_checkpoint(tmp_path / "albert", "hf", config_of("albert"))
    model = bert4x.build_transformer_model(checkpoint_path=albert, model="albert")
    assert model.get_layer("Embedding-Mapping") and model.get_layer("Transformer-FeedForward-Norm")
    gpt2 = write_checkpoint(tmp_path / "gpt2", "hf", config_of("gpt2"))
    model = bert4x.build_transformer_model(checkpoint_path=gpt2, model="gpt2")
    assert all(model.get_layer(name) for name in ("Output-Norm", "LM-Activation", "Attention-LM-Mask"))


def test_a_config_that_says_decoder(tmp_path):
    """`is_decoder` is transformers' word for a BERT that reads from left to right."""
    for heads in (True, False):
        folder = write_checkpoint(tmp_path / f"{heads}", "hf", config_of(), draw(config_of(), heads=heads))
        data = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(data | {"is_decoder": True}))
        inputs = random_inputs(tiny_config())
        expected = array(bert4x.load(folder, "lm", with_mlm=heads)(inputs))
        assert expected.shape[-1] == (97 if heads else 35)
        for model in (
            bert4x.load(folder),
            bert4x.build_transformer_model(checkpoint_path=folder, **({"with_mlm": "linear"} if heads else {})),
            bert4x.load(bert4x.convert(folder, tmp_path / f"tf1-{heads}", "tf1")),
            bert4x.load(bert4x.convert(folder, tmp_path / f"own-{heads}", "bert4x")),
        ):
            close(array(model(inputs)), expected)
    both_ways = array(bert4x.load(folder, "encoder")(inputs))
    assert np.abs(both_ways - expected)[:, 0].max() > 0.1
    (folder / "config.json").write_text(json.dumps(data | {"is_decoder": True, "add_cross_attention": True}))
    with pytest.raises(ConfigError, match="add_cross_attention"):
        bert4x.load(folder)


def test_gpt2_applications(tmp_path):
    source = write_checkpoint(tmp_path, "megatron", config_of("gpt2"), shards=2)
    ids = np.arange(12).reshape(2, 6)
    assert bert4x.load(source)(ids).shape == (2, 6, 90)
    hidden = bert4x.load(source, "encoder")(ids)
    assert hidden.shape == (2, 6, 42)
    assert bert4x.load(source, with_mlm=False)(ids).shape == (2, 6, 42)
    unilm = bert4x.load(source, "unilm")
    assert [tensor.name for tensor in unilm.inputs] == ["Input-Token", "Input-Segment"]
    close(unilm([ids, np.ones_like(ids)]), array(bert4x.load(source)(ids)))


@pytest.mark.compiled
def test_forms_of_input(source):
    model = bert4x.load(source)
    inputs = random_inputs(tiny_config())
    ids, segments = inputs["token_ids"], inputs["segment_ids"]
    expected = array(model([ids, segments]))
    for form in ({"token_ids": ids, "segment_ids": segments}, {"Input-Token": ids, "Input-Segment": segments}):
        close(model(form), expected, 0)
        close(model.predict(form, verbose=0), expected, 1e-5)
    close(model((ids, segments)), expected, 0)
    alone = array(model({"token_ids": ids}))
    close(model(ids), alone, 0)
    close(model([ids]), alone, 0)
    close(model({"token_ids": ids, "segment_ids": None}), alone, 0)
    close(model.predict(ids, verbose=0), alone, 1e-5)
    lists = {"token_ids": ids.tolist(), "segment_ids": segments.tolist()}
    close(model(lists), expected, 0)
    masked = model(inputs)
    close(array(masked)[inputs["padding_mask"]], oracle(WEIGHTS, inputs)["hidden"][inputs["padding_mask"]])
    close(array(model.predict(inputs, verbose=0))[inputs["padding_mask"]], array(masked)[inputs["padding_mask"]], 1e-5)


def test_fine_tuning(source):
    """A classifier on top, as every recipe has it: fit takes lists and dicts."""
    keras.utils.set_random_seed(0)  # the first weights of the classifier
    model = bert4x.load(source, dropout_rate=0.0, num_hidden_layers=1)
    pooled = keras.layers.GlobalAveragePooling1D()(model.output)
    whole = keras.Model(model.inputs, keras.layers.Dense(2, activation="softmax")(pooled))
    inputs = random_inputs(tiny_config())
    targets = np.array([0, 1, 0])
    whole.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    x = [inputs["token_ids"], inputs["segment_ids"]]
    before = whole.evaluate(x, targets, verbose=0)
    whole.fit(x, targets, epochs=30, verbose=0)
    assert whole.evaluate(x, targets, verbose=0) < before / 4
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    data = {"token_ids": x[0], "segment_ids": x[1]}
    model.fit(data, np.zeros((3, 13, 35)), verbose=0)
    assert np.isfinite(model.evaluate(data, np.zeros((3, 13, 35)), verbose=0))


def resized(array, shape):
    """bert4keras' orthogonally_resize with a window of 2, written out for loops."""
    old = array
    for axis, new in enumerate(shape):
        size = old.shape[axis]
        times = -(-new // size)
        picks = [pair + offset for pair in range(0, size, 2) for _ in range(times) for offset in (0, 1)]
        picks = picks if times > 1 else list(range(size))
        old = np.take(old, picks[:new], axis)
    return old / np.linalg.norm(old) * np.linalg.norm(array)


def test_autoresize(tmp_path):
    config = config_of(num_attention_heads=3, hidden_size=12, intermediate_size=20, vocab_size=30, max_position=8)
    weights = draw(config)
    source = write_checkpoint(tmp_path, "tf1", config, weights)
    model = bert4x.load(source, hidden_size=24, intermediate_size=60, max_position=16, autoresize_weights=True)
    found = values_of(model)
    assert model.config.attention_head_size == 8 and model.config.embedding_size == 24
    np.testing.assert_allclose(found[TABLE], resized(weights[TABLE], (30, 24)), atol=1e-6)
    np.testing.assert_allclose(
        found["Embedding-Position/embeddings"], resized(weights["Embedding-Position/embeddings"], (16, 24)), atol=1e-6
    )
    scales = {
        "MultiHeadSelfAttention/query": 2**0.25,
        "MultiHeadSelfAttention/value": 1,
        "FeedForward/intermediate": 3**0.5,
    }
    for part, scale in scales.items():
        path = f"Transformer-1-{part}/kernel"
        np.testing.assert_allclose(found[path], scale * resized(weights[path], found[path].shape), atol=1e-6)
    path = "Transformer-1-FeedForward/output/kernel"
    np.testing.assert_allclose(found[path], 3**-0.5 * resized(weights[path], (60, 24)), atol=1e-6)
    with pytest.raises(bert4x.Bert4xError, match=r"shape \(30, 12\) in the checkpoint, but the model has \(30, 24\)"):
        bert4x.load(source, hidden_size=24)


def test_ignore_invalid_weights(source):
    with pytest.warns(UserWarning, match=r"FeedForward/intermediate/kernel: shape \(35, 53\)"):
        model = bert4x.load(source, intermediate_size=60, ignore_invalid_weights=True)
    found = values_of(model)
    assert found["Transformer-1-FeedForward/intermediate/kernel"].shape == (35, 60)
    assert np.array_equal(
        found["Transformer-1-FeedForward-Norm/gamma"], WEIGHTS["Transformer-1-FeedForward-Norm/gamma"]
    )


def test_activation_and_epsilon_override(source):
    inputs = random_inputs(tiny_config())
    for changes in ({"hidden_act": "gelu_tanh"}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-2}):
        same_at(bert4x.load(source, **changes)(inputs), oracle(WEIGHTS, inputs, **changes)["hidden"], inputs)


def test_padding_id_override(source):
    inputs = random_inputs(tiny_config(pad_token_id=9))
    del inputs["padding_mask"]
    expected = bert.forward(WEIGHTS, tiny_config(pad_token_id=9), **inputs)["hidden"]
    real = inputs["token_ids"] != 9
    real[:, 0] = True
    close(array(bert4x.load(source, pad_token_id=9)(inputs))[real], expected[real])
    none = bert.forward(WEIGHTS, tiny_config(pad_token_id=None), **inputs)["hidden"]
    close(bert4x.load(source, pad_token_id=None)(inputs), none)


def test_nothing_warns(source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bert4x.load(source, with_nsp=True, with_mlm=True)
