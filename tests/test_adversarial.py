"""Adversaries against their formulas in NumPy, on a linear model over an embedding table; restored tables."""

import keras
import numpy as np
import pytest
from keras import ops
from random_models import tiny_config

from bert4x import build_transformer_model
from bert4x.errors import ConfigError, InputError
from bert4x.layers import BinaryRandomChoice
from bert4x.training import adversarial
from bert4x.training.adversarial import (
    FGM,
    PGD,
    VAT,
    GradientPenalty,
    adversarial_training,
    gradient_penalty,
    read_adversary,
    virtual_adversarial_training,
)
from bert4x.training.attribution import integrated_gradients
from bert4x.training.freezing import as_compiled
from bert4x.training.trainer import Trainer

IDS = np.array([[1, 2, 2], [4, 0, 5]], "int32")
Y = np.array([[0.7], [-1.2]], "float32")
RATE = 0.1


def squared(outputs, targets):
    return ops.mean(ops.square(ops.cast(outputs, "float32") - targets[0]))


def linear_model(dtype="float32", seed=0):
    """y = w . (sum of the embeddings of the tokens), without bias"""
    ids = keras.Input((3,), dtype="int32")
    h = keras.layers.Embedding(7, 4, name="Embedding-Token", dtype=dtype)(ids)
    h = keras.layers.Reshape((12,), dtype=dtype)(h)
    model = keras.Model([ids], keras.layers.Dense(1, use_bias=False, name="Output", dtype=dtype)(h))
    draw = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(draw.normal(size=variable.shape).astype("float32"))
    return model


class Linear:
    """The same in NumPy, in double precision."""

    def __init__(self, model):
        self.table, self.kernel = (values(v).astype("float64") for v in model.weights)

    def outputs(self, table):
        return table[IDS].reshape(2, 12) @ self.kernel

    def loss(self, table):
        return np.mean((self.outputs(table) - Y) ** 2)

    def slope(self, table, errors=None):
        """(V, E): dL/dE, for a loss whose derivative by the outputs is `errors`"""
        errors = 2 * (self.outputs(table) - Y) / Y.size if errors is None else errors
        slope = np.zeros_like(table)
        np.add.at(slope, IDS, (errors @ self.kernel.T).reshape(2, 3, 4))
        return slope

    def kernel_slope(self, table):
        return table[IDS].reshape(2, 12).T @ (2 * (self.outputs(table) - Y) / Y.size)


def values(variable):
    return np.asarray(ops.convert_to_numpy(getattr(variable, "value", variable)))


def unit(x):
    return x / np.sqrt((x**2).sum())


def trainer(model, adversary, optimizer=None, **options):
    optimizer = optimizer or keras.optimizers.SGD(RATE)
    return Trainer(model, squared, optimizer, adversary=adversary, **options)


def learn(model, adversary, rate=RATE, **options):
    """The loss and the weights, (table, kernel), after one update."""
    loss = trainer(model, adversary, **options).learn([([IDS], (Y,))], rate)
    return float(loss), [values(v) for v in model.weights]


class TestFormulas:
    @pytest.mark.parametrize("epsilon", [0.5, 3.0])
    def test_fgm(self, epsilon):
        model = linear_model()
        expected = Linear(model)
        moved = expected.table + epsilon * unit(expected.slope(expected.table))
        loss, (table, kernel) = learn(model, FGM(epsilon))
        assert loss == pytest.approx(expected.loss(moved), rel=1e-5)
        np.testing.assert_allclose(table, expected.table - RATE * expected.slope(moved), atol=2e-6)
        np.testing.assert_allclose(kernel, expected.kernel - RATE * expected.kernel_slope(moved), atol=2e-6)

    def test_pgd(self):
        model = linear_model()
        expected, delta = Linear(model), 0
        for _ in range(4):
            delta = delta + 0.4 * unit(expected.slope(expected.table + delta))
            delta = delta * min(1, 1.0 / np.sqrt((delta**2).sum()))
        assert np.sqrt((delta**2).sum()) == pytest.approx(1)  # it went to the edge of the ball
        loss, (table, kernel) = learn(model, PGD(1.0, alpha=0.4, steps=4))
        moved = expected.table + delta
        assert loss == pytest.approx(expected.loss(moved), rel=1e-5)
        np.testing.assert_allclose(table, expected.table - RATE * expected.slope(moved), atol=3e-6)
        np.testing.assert_allclose(kernel, expected.kernel - RATE * expected.kernel_slope(moved), atol=3e-6)

    def test_gradient_penalty_by_finite_differences(self):
        model, epsilon, rate, h = linear_model(), 0.7, 0.01, 1e-5
        expected = Linear(model)

        def penalized(table, kernel):
            other = Linear(model)
            other.table, other.kernel = table, kernel
            return other.loss(table) + epsilon / 2 * (other.slope(table) ** 2).sum()

        loss, after = learn(model, GradientPenalty(epsilon), rate)
        before = [expected.table, expected.kernel]
        model.set_weights(before)
        assert loss == pytest.approx(penalized(*before), rel=1e-5)
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            slope = np.zeros_like(old)
            for place in np.ndindex(*old.shape):
                sides = []
                for sign in (1, -1):
                    point = [x.copy() for x in before]
                    point[i][place] += sign * h
                    sides.append(penalized(*point))
                slope[place] = (sides[0] - sides[1]) / (2 * h)
            np.testing.assert_allclose(new, old - rate * slope, atol=1e-5)
            assert np.abs(rate * slope).max() > 0.01

    def test_vat(self):
        """The divergence is the squared distance of outputs. A single output y = w . x moves most along w: one step of
        power iteration finds that direction from any noise, up to its sign."""
        model, ids = linear_model(), IDS[:1]
        expected, direction = Linear(model), np.zeros((7, 4))
        np.add.at(direction, ids[0], expected.kernel.reshape(3, 4))
        delta = 0.3 * unit(direction)[ids[0]].reshape(12)
        x, kernel = expected.table[ids[0]].reshape(12), expected.kernel[:, 0]
        error, move = x @ kernel - Y[0, 0], delta @ kernel

        step = trainer(model, VAT(epsilon=0.3), divergence=squared_distance)
        loss = float(step.learn([([ids], (Y[:1],))], RATE))
        assert loss == pytest.approx(error**2 + move**2, rel=1e-4)
        # The outputs of the clean pass are constants, so the kernel's share is 2 (w . delta) (x + delta).
        slopes = [2 * error * x + 2 * sign * move * (x + sign * delta) for sign in (1, -1)]
        found = values(model.weights[1])[:, 0]
        assert min(np.abs(found - (kernel - RATE * slope)).max() for slope in slopes) < 1e-5

    def test_noise_of_vat_is_new_every_time(self):
        adversary = VAT()
        before = values(adversary.variables[0])
        learn(linear_model(), adversary, divergence=lambda a, b: ops.sum(ops.square(a - b)))
        assert (values(adversary.variables[0]) != before).any()


ALL = [FGM(), PGD(), GradientPenalty(), VAT()]


class TestRestored:
    @pytest.mark.parametrize("adversary", ALL, ids=lambda a: type(a).__name__)
    def test_bit_for_bit(self, adversary):
        model = linear_model()
        model.weights[0].assign(values(model.weights[0]) * 1e3 + np.float32(1e-7))
        before = values(model.weights[0]).copy()
        _, (table, _) = learn(model, adversary, rate=0.0, divergence=squared_distance)
        assert (table.view("uint32") == before.view("uint32")).all()

    def test_after_an_error(self):
        model = linear_model()
        before = values(model.weights[0]).copy()
        with pytest.raises(RuntimeError), adversarial.perturbed(model.weights[0], ops.ones((7, 4))):
            assert (values(model.weights[0]) != before).all()
            raise RuntimeError
        assert (values(model.weights[0]) == before).all()

    def test_zero_gradient(self):
        assert (ops.convert_to_numpy(adversarial.unit(ops.zeros((3, 2)))) == 0).all()

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    def test_not_finite(self, value):
        assert (ops.convert_to_numpy(adversarial.unit(np.array([1.0, value], "float32"))) == 0).all()

    @pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
    def test_unit(self, size):
        found = ops.convert_to_numpy(adversarial.unit(np.array([[3.0, 4.0]], "float32") * np.float32(size)))
        np.testing.assert_allclose(found, [[0.6, 0.8]], rtol=1e-6)


def squared_distance(outputs, others):
    return ops.sum(ops.square(ops.cast(others, "float32") - ops.cast(outputs, "float32")))


class TestLossScale:
    @pytest.mark.parametrize("adversary", ALL[:3], ids=lambda a: type(a).__name__)
    def test_same_update_as_without(self, adversary):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=2.0**10)
        scaled = learn(linear_model(), adversary, optimizer=optimizer)
        plain = learn(linear_model(), adversary)
        assert scaled[0] == pytest.approx(plain[0], rel=1e-5)
        for found, expected in zip(scaled[1], plain[1], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize("adversary", ALL, ids=lambda a: type(a).__name__)
    def test_overflow_leaves_the_update_out(self, adversary):
        model = linear_model("mixed_float16")
        before = [values(v).copy() for v in model.weights]
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=2.0**24)
        step = trainer(model, adversary, optimizer, divergence=squared_distance)
        step.learn([([IDS], (Y,))], RATE)
        for old, variable in zip(before, model.weights, strict=True):
            assert (values(variable).view("uint32") == old.view("uint32")).all()
        assert float(values(optimizer.dynamic_scale)) == 2.0**23
        for _ in range(15):
            loss = step.learn([([IDS], (Y,))], 0.001)
        assert np.isfinite(float(loss))
        assert (values(model.weights[0]) != before[0]).any()
        assert all(np.isfinite(values(v)).all() for v in model.weights)


@pytest.mark.parametrize(
    "adversary, dtype",
    zip(ALL, ["mixed_bfloat16", "float32", "mixed_bfloat16", "float32"], strict=True),
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_transformer_learns(adversary, dtype):
    """A whole BERT with its dropout and a head over its tied table: losses fall, and stay finite."""
    config = tiny_config(num_hidden_layers=1)
    model = build_transformer_model(config, with_mlm="linear", dtype=dtype)
    ids = np.arange(1, 15, dtype="int32").reshape(2, 7)

    def loss(outputs, targets):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(targets[0], ops.cast(outputs, "float32"), True))

    step = Trainer(
        model, loss, keras.optimizers.Adam(), adversary=adversary, divergence=lambda a, b: squared_distance(a, b) / 1e4
    )
    losses = [float(step.learn([([ids, np.zeros_like(ids)], (ids,))], 0.01)) for _ in range(8)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.1


def test_gradient_penalty_of_a_model_that_computes_again():
    found, ids = [], np.arange(1, 15, dtype="int32").reshape(2, 7)
    for recompute in (False, True):
        keras.utils.set_random_seed(0)
        config = tiny_config(num_hidden_layers=1, dropout_rate=0.0, attention_dropout_rate=0.0)
        model = build_transformer_model(config, recompute=recompute)
        step = Trainer(
            model, lambda x, _: ops.mean(x[..., 0] ** 3), keras.optimizers.SGD(), adversary=GradientPenalty(20.0)
        )
        batch = [ids, np.zeros_like(ids)], (ids,)
        if recompute and keras.backend.backend() == "tensorflow":
            with pytest.raises(ConfigError, match="without, or take another"):
                step.learn([batch], 0.1)
            return
        draw = np.random.default_rng(0)
        for variable in model.weights:
            variable.assign(draw.normal(0, 0.3, variable.shape))
        before = [values(v).copy() for v in model.weights]
        step.learn([batch], 0.1)
        found.append([values(v) - old for v, old in zip(model.weights, before, strict=True)])
    largest = max(np.abs(y).max() for y in found[0])
    assert largest > 1e-3
    for x, y in zip(*found, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * largest)


class TestFit:
    """The function that bert4keras' users carry from script to script."""

    def fitted(self, epsilon, **options):
        model = linear_model()
        model.compile(keras.optimizers.SGD(RATE), "mse", metrics=["mae"], **options)
        if epsilon:
            adversarial_training(model, "Embedding-Token", epsilon)
        return model, model.fit(IDS, Y, batch_size=2, epochs=2, verbose=0).history

    def test_weights_loss_and_metrics(self):
        expected = Linear(linear_model())
        losses, errors = [], []
        for _ in range(2):
            moved = expected.table + 0.5 * unit(expected.slope(expected.table))
            losses.append(expected.loss(moved))
            errors.append(np.abs(expected.outputs(moved) - Y).mean())
            slopes = expected.slope(moved), expected.kernel_slope(moved)
            expected.table, expected.kernel = expected.table - RATE * slopes[0], expected.kernel - RATE * slopes[1]
        model, history = self.fitted(0.5)
        np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
        np.testing.assert_allclose(history["mae"], errors, rtol=1e-5)
        np.testing.assert_allclose(values(model.weights[0]), expected.table, atol=1e-5)
        np.testing.assert_allclose(values(model.weights[1]), expected.kernel, atol=1e-5)

    def test_differs_from_plain_training_and_can_be_saved(self, tmp_path):
        model, _ = self.fitted(0.5)
        plain, _ = self.fitted(None)
        assert np.abs(values(model.weights[0]) - values(plain.weights[0])).max() > 1e-3
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.predict(IDS, verbose=0), model.predict(IDS, verbose=0))

    def test_mixed_precision(self):
        model = linear_model("mixed_float16")
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.001), initial_scale=2.0**8), "mse")
        adversarial_training(model)
        losses = model.fit(IDS, Y, batch_size=2, epochs=4, verbose=0).history["loss"]
        assert losses[-1] < losses[0]

    def test_loss_of_a_layer(self):
        """As scripts for bert4keras have it: the model computes its loss by itself."""

        class Squares(keras.layers.Layer):
            def call(self, x):
                self.add_loss(ops.mean(ops.square(x)))
                return x

        model, plain = linear_model(), linear_model()
        model = keras.Model(model.inputs, Squares()(model.output))
        model.compile(keras.optimizers.SGD(RATE))
        plain.compile(keras.optimizers.SGD(RATE), "mse")
        losses = []
        for one, targets in ((model, None), (plain, np.zeros((2, 1)))):
            adversarial_training(one, epsilon=0.5)
            losses.append(one.fit(IDS, targets, batch_size=2, epochs=3, verbose=0).history["loss"])
        np.testing.assert_allclose(*losses, rtol=1e-6)
        assert losses[0][2] < losses[0][0]

    def test_gradient_penalty_counts_each_token(self):
        """A token stands twice in a row; in the gradient by the table it would be one row, with twice the slope."""
        model, epsilon = linear_model(), 0.7
        expected = Linear(model)
        x, kernel = expected.table[IDS].reshape(2, 12), expected.kernel[:, 0]
        errors, square = x @ kernel - Y[:, 0], kernel @ kernel  # dL/dx of a row is its error times the kernel
        model.compile(keras.optimizers.SGD(0.01), "mse")
        gradient_penalty(model, "Embedding-Token", epsilon)
        loss = model.fit(IDS, Y, batch_size=2, verbose=0).history["loss"][0]
        assert loss == pytest.approx(np.mean(errors**2) + epsilon / 2 * (errors**2).sum() * square, rel=1e-5)
        slope = errors @ x + epsilon * (errors @ x * square + (errors**2).sum() * kernel)
        np.testing.assert_allclose(values(model.weights[1])[:, 0], kernel - 0.01 * slope, atol=1e-5)
        table = expected.table.copy()
        np.add.at(table, IDS, -0.01 * (errors[:, None] * kernel * (1 + epsilon * square)).reshape(2, 3, 4))
        np.testing.assert_allclose(values(model.weights[0]), table, atol=1e-5)

    def test_vat_without_labels(self):
        """See TestFormulas.test_vat: here nothing but the move of the output counts."""
        model, ids = linear_model(), IDS[:1]
        expected, direction = Linear(model), np.zeros((7, 4))
        np.add.at(direction, ids[0], expected.kernel.reshape(3, 4))
        delta, x = 0.3 * unit(direction)[ids[0]].reshape(12), expected.table[ids[0]].reshape(12)
        move = delta @ expected.kernel[:, 0]
        model.compile(keras.optimizers.SGD(RATE), "mse")
        virtual_adversarial_training(model, epsilon=0.3)
        assert float(model.train_on_batch(ids, np.full((1, 1), 99.0))) == pytest.approx(move**2, rel=1e-4)
        found = values(model.weights[1])[:, 0]
        after = [expected.kernel[:, 0] - RATE * 2 * sign * move * (x + sign * delta) for sign in (1, -1)]
        assert min(np.abs(found - kernel).max() for kernel in after) < 1e-5

    def test_needs_an_optimizer(self):
        with pytest.raises(ConfigError, match=r"after model\.compile"):
            adversarial_training(linear_model())


# The first losses of a tiny BERT by the formulas of bert4keras' scripts, on bert4keras 0.11.5 itself.
OF_SCRIPTS = {
    adversarial_training: [1.8835031986236572, 0.9993565082550049, 0.8391962051391602],
    gradient_penalty: [1.9352213144302368, 0.9306164383888245, 0.8051550388336182],
    virtual_adversarial_training: [0.5191217064857483, 0.016975387930870056, 0.013713781721889973],
}


@pytest.mark.parametrize("make", OF_SCRIPTS, ids=lambda make: make.__name__)
def test_losses_of_scripts(make, monkeypatch):
    noise = np.random.RandomState(5).randn(23, 8).astype("float32")
    monkeypatch.setattr(keras.random, "normal", lambda shape, seed=None: ops.convert_to_tensor(noise))
    bert = build_transformer_model(
        vocab_size=23, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        hidden_act="gelu", max_position=16, pad_token_id=0, dropout_rate=0.0, attention_dropout_rate=0.0,
    )  # fmt: skip
    model = keras.Model(bert.inputs, keras.layers.Dense(3, activation="softmax")(bert.output[:, 0]))
    draw, weights = np.random.RandomState(0), list(model.weights)
    for i, weight in enumerate(weights):  # bert4keras has the beta of a norm first
        if weight.name == "gamma" and weights[i + 1].name == "beta":
            weights[i : i + 2] = weights[i + 1], weight
    for weight in weights:
        drawn = draw.normal(size=weight.shape) * 0.3
        weight.assign(1 + drawn * 0.3 if weight.name == "gamma" else drawn)
    unlabelled = make is virtual_adversarial_training
    model.compile(keras.optimizers.SGD(0.1), "kld" if unlabelled else "sparse_categorical_crossentropy")
    make(model, "Embedding-Token")
    ids, losses = np.array([[2, 5, 6, 5, 3], [2, 7, 8, 3, 0]]), []
    for _ in range(3):
        model.reset_metrics()
        losses.append(float(model.train_on_batch([ids, np.zeros_like(ids)], np.array([[1], [2]]))))
    tolerance = 5e-6 if keras.backend.backend() == "tensorflow" else 2e-5
    np.testing.assert_allclose(losses, OF_SCRIPTS[make], rtol=tolerance, atol=2e-7)


class TestIntegratedGradients:
    def test_of_a_linear_model(self):
        model = linear_model()
        expected = Linear(model)
        before = values(model.weights[0]).copy()
        found = integrated_gradients(model, IDS, steps=3)
        np.testing.assert_allclose(found, expected.table[IDS] * expected.kernel.reshape(3, 4), atol=1e-5)
        assert (values(model.weights[0]) == before).all()

    def test_they_sum_to_what_the_score_differs_by(self):
        keras.utils.set_random_seed(0)
        inner = linear_model()
        inner.weights[0].assign(inner.weights[0] * 0.2)
        scores = keras.layers.Dense(3, activation="softmax")(keras.layers.Activation("tanh")(inner.output))
        model = keras.Model(inner.inputs, scores)
        given = values(model(IDS))
        found = integrated_gradients(model, IDS, [2, 0], steps=20)
        model.get_layer("Embedding-Token").set_weights([np.zeros((7, 4))])
        differences = (given - values(model(IDS)))[[0, 1], [2, 0]]
        np.testing.assert_allclose(found.sum((1, 2)), differences, atol=1e-3)
        assert np.abs(differences).max() > 0.02

    def test_refused(self):
        with pytest.raises(InputError, match=r"labels \[3\]; expected 2 from 0 to 0"):
            integrated_gradients(linear_model(), IDS, [3])


def test_theseus_chooses_for_the_batch():
    first, second = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([first, second], BinaryRandomChoice(0.75)([first, second]))
    batch = [np.ones((5, 2)), np.zeros((5, 2))]
    drawn = np.stack([values(model(batch, training=True)) for _ in range(100)])
    assert set(drawn.mean((1, 2))) == {0, 1}
    assert 0.55 < drawn.mean() < 0.95
    assert (values(model(batch, training=False)) == 0).all()


def test_models_train_as_they_were_compiled():
    """As in a script of BERT-of-Theseus: two models over one layer, which the second has frozen."""
    shared, own = keras.layers.Dense(1, use_bias=False), keras.layers.Dense(1, use_bias=False)
    x = keras.Input((2,))
    first = keras.Model(x, shared(x))
    second = keras.Model(x, own(x) + shared(x))
    as_compiled(first).compile("sgd", "mse")
    shared.trainable = False
    as_compiled(second).compile("sgd", "mse")
    batch = np.ones((4, 2)), np.full((4, 1), 9.0)
    for model, trained, kept in ((first, shared, own), (second, own, shared)):
        before = [values(layer.kernel) for layer in (trained, kept)]
        model.fit(*batch, epochs=1, verbose=0)
        assert (values(trained.kernel) != before[0]).all()
        np.testing.assert_array_equal(values(kept.kernel), before[1])
    assert not shared.trainable and own.trainable


class TestTable:
    def test_unknown_layer(self):
        with pytest.raises(ConfigError, match=r"no layer 'Embedding-Tokens'.*did you mean 'Embedding-Token'"):
            adversarial.embedding_table(linear_model(), "Embedding-Tokens")

    def test_no_embeddings(self):
        with pytest.raises(ConfigError, match="'Output' has no embeddings"):
            adversarial.embedding_table(linear_model(), "Output")

    def test_in_a_model_within_a_model(self):
        inner = linear_model()
        outer = keras.Model(inner.inputs, keras.layers.Activation("tanh")(inner(inner.inputs)))
        assert adversarial.embedding_table(outer) is inner.weights[0]

    def test_frozen(self):
        model, frozen = linear_model(), linear_model()
        frozen.get_layer("Embedding-Token").trainable = False
        _, (_, kernel) = learn(model, FGM())
        loss = trainer(frozen, FGM()).learn([([IDS], (Y,))], RATE)
        assert np.isfinite(float(loss))
        np.testing.assert_array_equal(values(frozen.weights[0]), Linear(linear_model()).table.astype("float32"))
        np.testing.assert_allclose(values(frozen.get_layer("Output").weights[0]), kernel, atol=1e-6)
        assert not frozen.get_layer("Embedding-Token").trainable_variables


class TestOption:
    @pytest.mark.parametrize(
        "text, expected",
        [
            (None, None),
            ("fgm", FGM(0.5)),
            ("fgm:1", FGM(1.0)),
            ("pgd", PGD(1.0, alpha=0.3, steps=3)),
            ("pgd:2:0.5:4", PGD(2.0, alpha=0.5, steps=4)),
            ("gradient-penalty:0.1", GradientPenalty(0.1)),
            ("vat:2:5:2", VAT(2.0, xi=5.0, steps=2)),
        ],
    )
    def test_read(self, text, expected):
        assert read_adversary(text) == expected

    @pytest.mark.parametrize(
        "text, message",
        [
            ("fmg", "did you mean 'fgm'"),
            ("", "valid: fgm, gradient-penalty, pgd, vat"),
            ("fgm:", "epsilon is ''"),
            ("fgm:a", "epsilon is 'a'"),
            ("fgm:1:2", "at most fgm:epsilon"),
            ("fgm:0", "positive"),
            ("fgm:-1", "positive"),
            ("fgm:nan", "positive"),
            ("vat:inf", "positive"),
            ("pgd:1:1:2.5", "steps is '2.5'"),
            ("pgd:1:1:0", "steps = 0"),
        ],
    )
    def test_errors(self, text, message):
        with pytest.raises(ConfigError, match=message):
            read_adversary(text)
