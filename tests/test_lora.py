"""Adapters: what learns, what stays bit for bit, files, merging, and checkpoints of models that have them."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from random_models import random_inputs, tiny_config
from safetensors.numpy import load_file, save_file

import bert4x
from bert4x import build_transformer_model
from bert4x.errors import ConfigError, CorruptFileError, NotFiniteError, TensorMismatchError
from bert4x.training.lora import FORMAT, add_lora, load_lora, merge_lora, save_lora
from bert4x.training.trainer import Trainer

CONFIG = tiny_config(num_hidden_layers=2)
INPUTS = random_inputs(CONFIG)
ATTENTION = "Transformer-{}-MultiHeadSelfAttention"
DEFAULT = [f"{ATTENTION.format(i)}/{name}" for i in (0, 1) for name in ("query", "value")]


def build(seed=0, config=CONFIG, **options):
    keras.utils.set_random_seed(seed)
    model = build_transformer_model(config, model=config["model"], **options)
    draw = np.random.default_rng(seed)
    for variable in model.weights:
        if len(variable.shape) == 2:
            variable.assign(draw.normal(0, 0.1, variable.shape).astype("float32"))
    return model


def learned(model, seed=1):
    """Adapters that add something."""
    draw = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(draw.normal(0, 0.2, variable.shape).astype("float32"))
    return model


def outputs(model, inputs=INPUTS):
    return ops.convert_to_numpy(model(inputs)).astype("float32")


def weights(model):
    return {v.path: np.array(ops.convert_to_numpy(v.value)) for v in model.weights}


def assert_same(found, expected, but=()):
    assert set(found) == set(expected)
    for path in set(found) - set(but):
        np.testing.assert_array_equal(found[path], expected[path], err_msg=path)


class TestAdd:
    def test_what_learns(self):
        model = build()
        before, expected = outputs(model), weights(model)
        assert add_lora(model, rank=3) == DEFAULT
        assert [v.path for v in model.trainable_variables] == [
            f"{path}/lora_kernel_{part}" for path in DEFAULT for part in "ab"
        ]
        assert {tuple(v.shape) for v in model.trainable_variables} == {(35, 3), (3, 35)}
        np.testing.assert_array_equal(outputs(model), before)
        assert_same({path: x for path, x in weights(model).items() if path in expected}, expected)

    def test_formula(self):
        """W + alpha / rank A B, by a model whose matrices are that."""
        model, other = build(), build()
        add_lora(model, rank=2, alpha=3, layers="intermediate$|MLM-Dense|/key$")
        learned(model)
        held = weights(model)
        for variable in other.weights:
            base = variable.path.removesuffix("/kernel")
            if f"{base}/lora_kernel_a" in held:
                a, b = (held[f"{base}/lora_kernel_{part}"] for part in "ab")
                variable.assign(held[variable.path] + 1.5 * a @ b)
        assert np.abs(outputs(other) - outputs(build())).max() > 0.01
        np.testing.assert_allclose(outputs(model), outputs(other), atol=1e-5)

    def test_embeddings(self):
        model = build(with_mlm="linear")
        assert "Embedding-Token" in add_lora(model, rank=4, embeddings=True)
        before = outputs(model)
        learned(model)
        assert np.abs(outputs(model) - before).max() > 0.01

    @pytest.mark.parametrize("family", ["albert", "gpt2"])
    def test_families(self, family):
        config = tiny_config(family, num_hidden_layers=2)
        model = build(config=config)
        found = add_lora(model)
        assert len(found) == (2 if family == "albert" else 4)
        before = outputs(model, random_inputs(config))
        assert np.abs(outputs(learned(model), random_inputs(config)) - before).max() > 0.01

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"layers": "attention/query"}, "no dense layer matches .*Transformer-0-MultiHeadSelfAttention/query"),
            ({"layers": "("}, "no regular expression"),
            ({"rank": 0}, "expected a rank from 1 to 35"),
            ({"rank": 36}, "expected a rank from 1 to 35"),
            ({"rank": 2.5}, "expected a rank from 1 to 35"),
            ({"alpha": float("nan")}, "positive alpha"),
            ({"alpha": -1}, "positive alpha"),
        ],
    )
    def test_errors_change_nothing(self, options, message):
        model = build()
        count = len(model.trainable_variables)
        with pytest.raises(ConfigError, match=message):
            add_lora(model, **options)
        assert len(model.trainable_variables) == count

    def test_twice(self):
        model = build()
        add_lora(model)
        with pytest.raises(ConfigError, match="adapters already"):
            add_lora(model)

    def test_int8(self):
        with pytest.raises(ConfigError, match="without quantize"):
            add_lora(build_transformer_model(CONFIG, quantize="int8"))


class TestTraining:
    @pytest.mark.parametrize("dtype", ["mixed_float16", "bfloat16"])
    def test_base_stays_bit_for_bit_and_the_head_learns(self, dtype):
        model = build(dtype=dtype)
        add_lora(model, rank=2)
        scores = keras.layers.Dense(3, name="Scores", dtype="float32")(model.output[:, 0])
        whole = keras.Model(model.inputs, scores)
        expected = weights(whole)
        labels = np.array([0, 1, 2])

        def loss(found, targets):
            return ops.mean(keras.losses.sparse_categorical_crossentropy(targets[0], found, from_logits=True))

        optimizer = keras.optimizers.Adam()
        if dtype == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)
        step = Trainer(whole, loss, optimizer)
        batch = [INPUTS["token_ids"], INPUTS["segment_ids"]], (labels,)
        losses = [float(step.learn([batch], 0.02)) for _ in range(8)]
        assert losses[-1] < losses[0] - 0.1
        changed = [v.path for v in whole.trainable_variables]
        assert sum("lora" in path for path in changed) == 8
        assert_same(weights(whole), expected, but=changed)
        for path in changed:
            assert (weights(whole)[path] != expected[path]).any(), path


class TestMerge:
    @pytest.mark.parametrize("embeddings", [False, True])
    def test_same_outputs(self, embeddings):
        model = build(with_mlm="linear")
        paths = add_lora(model, rank=3, embeddings=embeddings)
        learned(model)
        before, held = outputs(model), weights(model)
        model.predict([INPUTS["token_ids"], INPUTS["segment_ids"]], verbose=0)
        merge_lora(model)
        np.testing.assert_allclose(outputs(model), before, atol=1e-5)
        found = model.predict([INPUTS["token_ids"], INPUTS["segment_ids"]], verbose=0)
        np.testing.assert_allclose(found, outputs(model), atol=2e-5)
        plain = {path: x for path, x in held.items() if "lora" not in path}
        ends = ("embeddings" if path == "Embedding-Token" else "kernel" for path in paths)
        assert_same(weights(model), plain, but=[f"{path}/{end}" for path, end in zip(paths, ends, strict=True)])
        add_lora(model)  # another round

    def test_nothing_to_merge(self):
        with pytest.raises(ConfigError, match="no adapters to merge"):
            merge_lora(build())


class TestFiles:
    def saved(self, folder, **options):
        model = build(with_mlm="linear")
        add_lora(model, rank=3, alpha=5, **options)
        save_lora(learned(model), folder / "adapters.safetensors")
        return model, folder / "adapters.safetensors"

    @pytest.mark.parametrize("fresh", [True, False])
    def test_round_trip(self, tmp_path, fresh):
        model, path = self.saved(tmp_path, embeddings=True)
        other = build(with_mlm="linear")
        if not fresh:
            add_lora(other, rank=3, alpha=5, embeddings=True, seed=7)
        load_lora(other, path)
        assert_same(weights(other), weights(model))
        np.testing.assert_array_equal(outputs(other), outputs(model))
        assert [v.path for v in other.trainable_variables] == [v.path for v in model.trainable_variables]

    def test_holds_the_adapters_alone(self, tmp_path):
        _, path = self.saved(tmp_path)
        found = load_file(path)
        name = "base_model.model.Transformer-1-MultiHeadSelfAttention.value.lora_{}.weight"
        assert len(found) == 8
        assert (found[name.format("A")].shape, found[name.format("B")].shape) == ((3, 35), (35, 3))

    def test_other_precision(self, tmp_path):
        model, path = self.saved(tmp_path)
        other = build(with_mlm="linear", dtype="bfloat16")
        load_lora(other, path)
        np.testing.assert_allclose(outputs(other), outputs(model), atol=0.1)

    def test_other_weights(self, tmp_path):
        _, path = self.saved(tmp_path)
        other = build(seed=3, with_mlm="linear")
        with pytest.raises(ConfigError, match="trained on other weights"):
            load_lora(other, path)
        assert len(other.trainable_variables) > 8
        load_lora(other, path, strict=False)
        assert len(other.trainable_variables) == 8

    def test_other_adapters(self, tmp_path):
        _, path = self.saved(tmp_path)
        other = build(with_mlm="linear")
        add_lora(other, rank=2)
        with pytest.raises(ConfigError, match=r"\(2, 16\).*\(3, 5\)"):
            load_lora(other, path)

    def test_other_model(self, tmp_path):
        _, path = self.saved(tmp_path)
        shallow = build(config=CONFIG | {"num_hidden_layers": 1})
        with pytest.raises(TensorMismatchError, match=r"Transformer-1-\S+: the model has no such layer"):
            load_lora(shallow, path)
        wide = build(config=tiny_config(num_hidden_layers=2, num_attention_heads=6))
        with pytest.raises(TensorMismatchError, match=r"query.lora_A.weight: shape \(3, 35\), .*needs \(3, 42\)"):
            load_lora(wide, path)

    def test_damaged(self, tmp_path):
        _, path = self.saved(tmp_path)
        tensors, about = load_file(path), {"rank": 3, "alpha": 5, "base": ""}
        first = next(iter(tensors))
        model, count = build(with_mlm="linear"), len(build(with_mlm="linear").trainable_variables)

        def refused(error, message, tensors=tensors, about=about):
            save_file(tensors, path, {FORMAT: json.dumps(about)})
            with pytest.raises(error, match=message):
                load_lora(model, path, strict=False)
            assert len(model.trainable_variables) == count

        refused(TensorMismatchError, "missing", {name: x for name, x in tensors.items() if name != first})
        refused(NotFiniteError, "lora", tensors | {first: np.full_like(tensors[first], np.nan)})
        refused(TensorMismatchError, "shape", about=about | {"rank": 10**12})
        refused(CorruptFileError, "rank and alpha", about=about | {"alpha": -1})
        refused(CorruptFileError, "expected rank, alpha", about={})
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(CorruptFileError):
            load_lora(model, path)

    def test_nothing_to_save(self, tmp_path):
        with pytest.raises(ConfigError, match="no adapters to save"):
            save_lora(build(), tmp_path / "none.safetensors")
        assert not list(tmp_path.iterdir())


class TestCheckpoints:
    def test_written_merged_and_read_back(self, tmp_path):
        model = build(with_mlm="linear")
        add_lora(model, rank=3)
        learned(model)
        expected, held = outputs(model), weights(model)
        bert4x.save(model, tmp_path)
        assert_same(weights(model), held)
        other = build(seed=4, with_mlm="linear")
        other.builder.load_weights_from_checkpoint(tmp_path)
        np.testing.assert_allclose(outputs(other), expected, atol=2e-6)
        # The model itself goes on from what it wrote: its adapters are in the matrices, and count no second time.
        model.builder.load_weights_from_checkpoint(tmp_path)
        np.testing.assert_allclose(outputs(model), expected, atol=2e-6)
        assert len(model.trainable_variables) == 8

    def test_keras_file(self, tmp_path):
        model = build()
        add_lora(model, rank=3)
        expected = outputs(learned(model))
        model.save(tmp_path / "model.keras")
        np.testing.assert_allclose(outputs(bert4x.load(tmp_path / "model.keras")), expected, atol=2e-6)
