"""What every family of models must pass. A family subclasses `FamilyBattery` in a few lines (tests/test_parity.py)."""

import keras
import numpy as np
import pytest
from random_models import random_inputs, random_weights, tiny_config, weight_shapes

import bert4x
from bert4x.errors import InputError
from bert4x.families import family_of

# largest difference to float32 allowed under each policy, in standard deviations of the hidden states
POLICIES = {"mixed_float16": 0.02, "mixed_bfloat16": 0.15, "bfloat16": 0.3}
CONDITION = {"condition_size": 4, "condition_hidden_size": 6}


def variables_of(model):
    """Path -> variable, without the states of dropout's random generators."""
    return {variable.path: variable for variable in model.variables if "seed_generator" not in variable.path}


def build(config, weights, application="encoder", **options):
    """The library's model of a config dict, with these weights by canonical path."""
    cls = family_of(config["model"])
    builder = cls(cls.config_class(**config), application, **options)
    model = builder.build().model
    for path, variable in variables_of(model).items():
        variable.assign(weights[path])
    return model


def given(inputs):
    """What a model is given of the inputs: not the mask of the target, which its padding id tells."""
    return {name: values for name, values in inputs.items() if name != "target_mask"}


def array(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def close(ours, expected, tolerance=2e-5):
    np.testing.assert_allclose(array(ours), expected, rtol=0, atol=tolerance)


class FamilyBattery:
    """A subclass sets `model`, `oracle` (see tests/reference), and what it has of the rest."""

    model: str
    oracle = None
    # options of the builder -> the oracle's outputs that the model then gives
    outputs: tuple[tuple[dict, tuple[str, ...]], ...] = (({}, ("hidden",)),)
    applications: tuple[str, ...] = ("encoder", "lm", "unilm")
    variants: dict[str, dict] = {}  # noqa: RUF012  name -> changes of the config
    layers = 2
    layer_names: tuple[str, ...] = ()  # some of bert4keras' names that scripts look up
    names: tuple[str, ...] = ("token_ids", "segment_ids")  # of the inputs, as a list has them
    application = "encoder"  # what a model is built for where it does not matter

    def pytest_generate_tests(self, metafunc):
        for name, values in (("application", self.applications), ("variant", self.variants), ("policy", POLICIES)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values)

    def config(self, **changes):
        return tiny_config(self.model, **{"num_hidden_layers": self.layers} | changes)

    def inputs(self, config, **sizes):
        return random_inputs(config, **sizes)

    def real(self, inputs):
        """Which outputs are those of real tokens."""
        return inputs["padding_mask"]

    def encode(self, config, options=None, application=None, seed=0, **conditions):
        """A model with random weights, and these weights."""
        weights = random_weights(config, seed=seed, **conditions)
        return build(config, weights, application or self.application, **(options or {})), weights

    def check(self, config, application=None, inputs=None, options=None, conditions=None, **oracle_options):
        """Every output against the oracle, at the real tokens."""
        application = application or self.applications[-1]
        inputs = inputs or self.inputs(config)
        weights = random_weights(config, **(conditions or {}))
        real = self.real(inputs)
        names = {*self.names, "padding_mask", "position_ids"}
        known = {name: array for name, array in inputs.items() if name in names}
        expected = type(self).oracle(weights, config, **known, application=application, **oracle_options)
        for asked, names in self.outputs:
            outputs = build(config, weights, application, **asked, **(options or {}))(given(inputs))
            outputs = outputs if isinstance(outputs, list) else [outputs]
            for output, name in zip(outputs, names, strict=True):
                at = real if output.shape[:2] == real.shape else ...
                close(array(output)[at], expected[name][at])

    def test_application(self, application):
        self.check(self.config(), application)

    def test_variant(self, variant):
        self.check(self.config(**self.variants[variant]))

    def test_build_transformer_model(self):
        """bert4keras' entry point: the same model from keyword arguments, its heads as probabilities by default."""
        config = self.config()
        inputs = given(self.inputs(config))
        model, weights = self.encode(config, {"with_mlm": "linear"}, self.applications[-1])
        logits = array(model(inputs)).astype("float64")
        sizes = {name: value for name, value in config.items() if name != "model"}
        sizes |= {"with_mlm": True} if self.applications[-1] == "encoder" else {}
        built = bert4x.build_transformer_model(model=self.model, application=self.applications[-1], **sizes)
        assert built.config == model.config.replace(extra=built.config.extra)
        for path, variable in variables_of(built).items():
            variable.assign(weights[path])
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        close(built(inputs), odds / odds.sum(-1, keepdims=True))

    def test_explicit_padding_mask(self):
        """The mask decides, whatever the ids: padding may hold any id, a real token the pad id."""
        config = self.config(pad_token_id=0)
        inputs = self.inputs(config)
        inputs["token_ids"][~inputs["padding_mask"]] = 7
        inputs["token_ids"][:, 1] = 0
        for application in self.applications:
            self.check(config, application, inputs)

    def test_custom_position_ids(self):
        config = self.config()
        inputs = self.inputs(config)
        positions = np.random.default_rng(3).integers(0, config["max_position"], inputs["token_ids"].shape)
        self.check(config, inputs=inputs | {"position_ids": positions}, options={"custom_position_ids": True})

    def test_hierarchical_positions(self):
        for alpha in (True, 0.3):
            config = self.config(hierarchical_position=alpha)
            self.check(config, inputs=self.inputs(config, length=2 * config["max_position"] + 3))

    def test_conditional_layer_norm(self):
        config = self.config()
        condition = np.random.default_rng(4).standard_normal((3, CONDITION["condition_size"])).astype("float32")
        self.check(
            config,
            inputs=self.inputs(config) | {"Input-Condition": condition},
            options={
                "layer_norm_cond": keras.Input((CONDITION["condition_size"],), name="Input-Condition"),
                "layer_norm_cond_hidden_size": CONDITION["condition_hidden_size"],
                "layer_norm_cond_hidden_act": "relu",
            },
            conditions=CONDITION,
            condition=condition,
            condition_act="relu",
        )

    def test_lists_and_missing_inputs(self):
        config = self.config(pad_token_id=0)
        inputs = self.inputs(config)
        model, _ = self.encode(config, application=self.applications[-1])
        values = [inputs[name] for name in self.names]
        expected = array(model({name: inputs[name] for name in self.names}))
        close(model(values), expected, 0)
        close(model.predict(values, verbose=0), expected, 1e-5)
        if "segment_ids" not in self.names:
            return
        zeros = np.zeros_like(inputs["segment_ids"])
        alone = model({"token_ids": inputs["token_ids"]})
        close(alone, array(model({"token_ids": inputs["token_ids"], "segment_ids": zeros})), 0)

    def test_variable_paths(self):
        """Checkpoint tables key on these paths: they may not change."""
        config, paths = self.config(num_hidden_layers=3), set()  # `layer_names` has some of the last
        for options, _ in self.outputs:
            model, weights = self.encode(config, options)
            paths |= set(variables_of(model))
            shapes = {path: tuple(variable.shape) for path, variable in variables_of(model).items()}
            assert shapes.items() <= weight_shapes(config).items()
        assert paths == set(weights)
        for name in self.layer_names:
            assert model.get_layer(name).name == name

    def test_serialization(self, tmp_path):
        config = self.config()
        inputs = given(self.inputs(config))
        for i, (options, _) in enumerate(self.outputs):
            model, _ = self.encode(config, options, self.applications[-1])
            model.save(tmp_path / f"{i}.keras")
            loaded = keras.saving.load_model(tmp_path / f"{i}.keras")
            assert loaded.config == model.config
            assert list(variables_of(loaded)) == list(variables_of(model))
            ours, theirs = (keras.tree.flatten(m(inputs)) for m in (model, loaded))
            for a, b in zip(ours, theirs, strict=True):
                close(a, array(b), 0)

    def test_precision_policy(self, policy):
        config = self.config(residual_attention_scores=True)
        inputs = self.inputs(config)
        real = self.real(inputs)
        expected = array(self.encode(config)[0](given(inputs)))[real]
        model, _ = self.encode(config, {"dtype": policy})
        hidden = model(given(inputs))
        assert keras.backend.standardize_dtype(hidden.dtype) == keras.dtype_policies.get(policy).compute_dtype
        close(array(hidden)[real], expected, POLICIES[policy] * expected.std())
        for path, variable in variables_of(model).items():
            assert variable.dtype == keras.dtype_policies.get(policy).variable_dtype, path

    def test_bad_inputs(self):
        config = self.config()
        model, _ = self.encode(config)
        ids = random_inputs(config)["token_ids"]
        for inputs in (
            {"token_ids": ids + config["vocab_size"]},
            {"token_ids": ids - config["vocab_size"]},
            {"token_ids": np.ones((1, config["max_position"] + 1), "int32")},
            {"token_id": ids},
            {"token_ids": ids, "mask": ids},
            {"segment_ids": ids},
            [ids, ids, ids],
        ):
            with pytest.raises(InputError):
                model(inputs)

    def test_every_weight_learns(self):
        """One step moves every variable but the key biases, which the softmax cannot see."""
        config = self.config(dropout_rate=0.0)
        options, names = self.outputs[-1]
        model, weights = self.encode(config, options)
        inputs = given(self.inputs(config))
        targets = [np.full(output.shape, 0.5, "float32") for output in keras.tree.flatten(model(inputs))]
        targets, loss = (targets, ["mse"] * len(names)) if len(names) > 1 else (targets[0], "mse")
        model.compile(keras.optimizers.SGD(0.1), loss)
        model.train_on_batch([inputs[name] for name in self.names[: len(model.inputs)]], targets)
        still = {path for path, v in variables_of(model).items() if np.array_equal(array(v), weights[path])}
        assert not [path for path in still if not path.endswith("/key/bias")]

    def test_dropout(self):
        """Each of the two rates acts in training and only there."""
        inputs = given(self.inputs(self.config()))
        for rates in ({"dropout_rate": 0.5}, {"attention_dropout_rate": 0.5}):
            config = self.config(**{"dropout_rate": 0.0, "attention_dropout_rate": 0.0} | rates)
            model, _ = self.encode(config)
            expected = array(model(inputs))
            close(model(inputs, training=False), expected, 0)
            assert np.abs(array(model(inputs, training=True)) - expected).max() > 0.1
