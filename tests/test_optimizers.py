"""Optimizers against one written in NumPy, through `fit` and through bert4x' own training; schedules."""

import itertools
import math
import re

import keras
import numpy as np
import pytest
from keras import ops
from random_models import tiny_config

from bert4x import errors, optimizers
from bert4x.models.build import build_transformer_model
from bert4x.optimizers import extend
from bert4x.training.compiled import Compiled, apply_gradients, value_and_gradients

VOCABULARY, WIDTH, CLASSES, BATCH = 7, 4, 3, 2
PATHS = ["Embedding-Token/embeddings", "Output-Dense/kernel", "Output-Dense/bias"]
RNG = np.random.default_rng(0)
START = [RNG.normal(0, 0.5, shape).astype("float32") for shape in ((VOCABULARY, WIDTH), (WIDTH, CLASSES), (CLASSES,))]
# Not all tokens are in a batch, one is in it twice, and token 5 never comes again.
TOKENS = np.array([[5, 1], [2, 2], [0, 3], [1, 4], [3, 3], [6, 0], [2, 1], [4, 4], [0, 0], [6, 2], [1, 3], [2, 0]])
TARGETS = RNG.normal(0, 1, (*TOKENS.shape, CLASSES)).astype("float32")

EXTENSIONS = {
    "weight_decay": {"weight_decay_rate": 0.3, "exclude_from_weight_decay": ["bias$"]},
    "layer_adaptation": {"exclude_from_layer_adaptation": ["Embedding"]},
    "piecewise_linear_lr": {"lr_schedule": {2: 1, 5: 0.2}},
    "gradient_accumulation": {"grad_accum_steps": 3},
    "lookahead": {"steps_per_slow_update": 3, "slow_step_size": 0.4},
    "lazy_optimization": {"include_in_lazy_optimization": ["Embedding-Token"]},
    "exponential_moving_average": {"ema_momentum": 0.3},
    "parameter_wise_lr": {"paramwise_lr_schedule": {"Embedding": 0.5, "Embedding-Token": 0.5, "bias": 2}},
    "gradient_operations": {"gradient_operations": {"kernel": lambda g: -2 * g, "Dense": lambda g: ops.clip(g, -1, 1)}},
}


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


def gradients(weights, tokens, targets):
    """Of the mean over the batch of sum(targets * (table[tokens] @ kernel + bias))."""
    table, kernel, _ = weights
    rows = np.zeros_like(table)
    np.add.at(rows, tokens, targets @ kernel.T / len(tokens))
    return [rows, table[tokens].T @ targets / len(tokens), targets.mean(0)]


class Reference:
    """All extensions around SGD with momentum, or Adam, in double precision; arguments as those of the optimizer."""

    def __init__(self, base, rate, options):
        self.base, self.rate, self.options = base, rate, options
        self.weights = [w.astype("float64") for w in START]
        self.slow, self.ema = ([w.copy() for w in self.weights] for _ in range(2))
        self.m, self.v = ([np.zeros_like(w) for w in self.weights] for _ in range(2))
        self.sums, self.batches, self.t = [0.0] * 3, 0, 0

    def batch(self, found):
        steps = self.options.get("grad_accum_steps", 1)
        self.batches += 1
        self.sums = [total + g for total, g in zip(self.sums, found, strict=True)]
        if self.batches % steps == 0:
            rate = self.rate
            if "lr_schedule" in self.options:
                points = {0: 0} | self.options["lr_schedule"]
                rate *= np.interp(self.t, list(points), list(points.values()))
            self.t += 1
            for i, path in enumerate(PATHS):
                self.update(i, path, self.sums[i] / steps, rate)
            self.sums = [0.0] * 3

    def update(self, i, path, gradient, rate):
        options, w = self.options, self.weights[i]
        for pattern in options.get("gradient_operations", {}):
            if re.search(pattern, path):
                gradient = -2 * gradient if pattern == "kernel" else np.clip(gradient, -1, 1)
        change, m, v = self.step(i, gradient, rate)
        if "weight_decay_rate" in options and not path.endswith("bias"):
            change = change - rate * options["weight_decay_rate"] * w
        if path.startswith(tuple(options.get("include_in_lazy_optimization", []))):
            untouched = (gradient == 0).all(-1)
            change[untouched], m[untouched], v[untouched] = 0, self.m[i][untouched], self.v[i][untouched]
        self.m[i], self.v[i] = m, v
        if "exclude_from_layer_adaptation" in options and "Embedding" not in path and np.linalg.norm(change) > 0:
            change = change * rate * np.linalg.norm(w) / np.linalg.norm(change)
        for part, multiplier in options.get("paramwise_lr_schedule", {}).items():
            if part in path:
                change = change * multiplier
        w = w + change
        if "slow_step_size" in options and self.t % options["steps_per_slow_update"] == 0:
            self.slow[i] = w = self.slow[i] + options["slow_step_size"] * (w - self.slow[i])
        self.weights[i] = w
        momentum = min(options.get("ema_momentum", 0), (1 + self.t) / (10 + self.t))
        self.ema[i] = momentum * self.ema[i] + (1 - momentum) * w

    def step(self, i, gradient, rate):
        if self.base == "SGD":
            m = 0.9 * self.m[i] - rate * gradient
            return m.copy(), m, self.v[i].copy()
        m, v = 0.9 * self.m[i] + 0.1 * gradient, 0.999 * self.v[i] + 0.001 * gradient**2
        corrected = m / (1 - 0.9**self.t), v / (1 - 0.999**self.t)
        return -rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-6), m, v


def make_model():
    tokens = keras.Input((), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, WIDTH, name="Embedding-Token")(tokens)
    model = keras.Model(tokens, keras.layers.Dense(CLASSES, name="Output-Dense")(x))
    model.set_weights(START)
    assert [v.path for v in model.trainable_variables] == PATHS
    return model


def loss(targets, outputs):
    return ops.sum(targets * outputs, axis=-1)


def train_by_fit(model, optimizer, tokens=TOKENS, targets=TARGETS):
    model.compile(optimizer, loss)
    model.fit(np.concatenate(tokens), np.concatenate(targets), batch_size=BATCH, shuffle=False, verbose=0)


def train_by_apply(model, optimizer, tokens=TOKENS, targets=TARGETS):
    """Compiled, as bert4x' own training."""
    variables = model.trainable_variables
    optimizer.build(variables)

    def step(tokens, targets):
        def function():
            value = ops.mean(loss(targets, model(tokens, training=True)))
            return optimizer.scale_loss(value), ()

        _, found = value_and_gradients(function, variables, model.variables)
        apply_gradients(optimizer, found, variables)
        return 0.0

    run = Compiled(step, [*model.variables, *optimizer.variables])
    for batch in zip(tokens, targets, strict=True):
        run(*batch)


TRAINING = {"fit": train_by_fit, "apply": train_by_apply}


def make_optimizer(base, names, rate=0.1, **options):
    cls = {"SGD": keras.optimizers.SGD, "Adam": optimizers.Adam}[base]
    for name in names:
        cls = getattr(optimizers, f"extend_with_{name}")(cls)
        options |= EXTENSIONS[name]
    return cls(rate, **({"momentum": 0.9} if base == "SGD" else {}), **options)


def compare(base, names, training):
    model, optimizer = make_model(), make_optimizer(base, names)
    reference = Reference(base, 0.1, {k: v for name in names for k, v in EXTENSIONS[name].items()})
    for batch in zip(TOKENS, TARGETS, strict=True):
        reference.batch(gradients(reference.weights, *batch))
    training(model, optimizer)
    assert int(optimizer.iterations) == reference.t
    for weights, expected in zip(model.get_weights(), reference.weights, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=2e-4, atol=1e-5)
    if "exponential_moving_average" in names:
        trained = model.get_weights()
        optimizer.apply_ema_weights(bias_correction=True)
        optimizer.apply_ema_weights()  # does not forget the weights
        for weights, expected in zip(model.get_weights(), reference.ema, strict=True):
            np.testing.assert_allclose(weights, expected, rtol=2e-4, atol=1e-5)
        optimizer.reset_old_weights()
        assert all(map(np.array_equal, model.get_weights(), trained))


@pytest.mark.parametrize("base", ["SGD", "Adam"])
@pytest.mark.parametrize("name", EXTENSIONS)
def test_each_extension(name, base):
    compare(base, [name], train_by_apply)


def test_reference_of_bare_optimizers():
    for base in ("SGD", "Adam"):
        compare(base, [], train_by_fit)


ORDERS = [
    list(EXTENSIONS),
    list(EXTENSIONS)[::-1],
    ["lookahead", "gradient_accumulation", "exponential_moving_average", "weight_decay"],
    ["parameter_wise_lr", "layer_adaptation", "weight_decay", "lazy_optimization"],
]


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("order", range(len(ORDERS)))
def test_stacks_in_any_order(order, training):
    compare("Adam" if order % 2 else "SGD", ORDERS[order], TRAINING[training])


@pytest.mark.parametrize(
    "cls, settings",
    [
        (keras.optimizers.AdamW, {"weight_decay": 0.1, "global_clipnorm": 0.3, "use_ema": True, "ema_momentum": 0.5}),
        (keras.optimizers.Lion, {"clipnorm": 0.2}),
        (keras.optimizers.RMSprop, {"clipvalue": 0.1}),
    ],
)
def test_accumulation_equals_one_large_batch(cls, settings):
    schedule = optimizers.PiecewiseLinear(0.1, {3: 1, 4: 0.5})
    small, large = make_model(), make_model()
    large_variables = large.trainable_variables
    accumulating = extend.extend_with_gradient_accumulation(cls)(schedule, grad_accum_steps=3, **settings)
    plain = cls(schedule, **settings)
    plain.build(large_variables)
    train_by_apply(small, accumulating)
    for batch in zip(TOKENS.reshape(-1, 3 * BATCH), TARGETS.reshape(-1, 3 * BATCH, CLASSES), strict=True):
        found = map(ops.convert_to_tensor, gradients(large.get_weights(), *batch))
        apply_gradients(plain, list(found), large_variables)
    assert int(accumulating.iterations) == int(plain.iterations) == len(TOKENS) // 3
    for weights, expected in zip(small.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)
    if plain.use_ema:
        averages = zip(*(o._model_variables_moving_average for o in (accumulating, plain)), strict=True)
        for average, expected in averages:
            np.testing.assert_allclose(numpy(average), numpy(expected), rtol=1e-5, atol=1e-6)


def test_accumulation_does_nothing_before_the_first_update():
    model, optimizer = make_model(), make_optimizer("Adam", ["gradient_accumulation", "weight_decay"])
    train_by_apply(model, optimizer, TOKENS[:2], TARGETS[:2])
    assert int(optimizer.iterations) == 0
    assert all(map(np.array_equal, model.get_weights(), START))


def test_gradients_of_none_are_left_out():
    model, optimizer = make_model(), make_optimizer("Adam", list(EXTENSIONS))
    for _ in range(3):
        optimizer.apply([None, *map(ops.convert_to_tensor, START[1:])], model.trainable_variables)
    assert np.array_equal(model.get_weights()[0], START[0])
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("training", TRAINING)
def test_lazy_rows_and_their_moments_stay(training):
    model, optimizer = make_model(), make_optimizer("Adam", ["lazy_optimization", "weight_decay"])
    TRAINING[training](model, optimizer, TOKENS[1:5], TARGETS[1:5])
    absent = [5, 6]
    assert np.array_equal(model.get_weights()[0][absent], START[0][absent])
    moments = numpy(optimizer._momentums[0])
    assert (moments[absent] == 0).all() and (moments[[0, 1, 2, 3, 4]] != 0).all()


@pytest.mark.parametrize("training", TRAINING)
def test_a_step_that_is_not_finite_changes_nothing(training):
    """Under loss scaling: the model after [a, b, infinite, c, d, e] is the one after [a, b, c, d, e]."""
    tokens, targets = TOKENS[:6], TARGETS[:6].copy()
    targets[2, 0, 0] = np.inf
    results = []
    for chosen in (range(6), [0, 1, 3, 4, 5]):
        model, inner = make_model(), make_optimizer("Adam", list(EXTENSIONS))
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
        TRAINING[training](model, optimizer, tokens[list(chosen)], targets[list(chosen)])
        results.append([*model.get_weights(), *map(numpy, inner.variables)])
        assert float(optimizer.dynamic_scale) == (512 if len(chosen) == 6 else 1024)
        assert int(inner.iterations) == 1 and int(inner.micro_steps) == 2
        assert any(numpy(total).any() for total in inner.gradient_sums)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, optimizer = make_model(), make_optimizer("Adam", list(EXTENSIONS))
        train_by_fit(model, optimizer)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert int(optimizer.iterations) == 4
    assert all(
        np.isfinite(w).all() and not np.array_equal(w, s) for w, s in zip(model.get_weights(), START, strict=True)
    )


def test_ema_before_any_update_and_after_weights_came_late():
    model, optimizer = make_model(), make_optimizer("SGD", ["exponential_moving_average", "lookahead"])
    optimizer.build(model.trainable_variables)
    with pytest.raises(errors.ConfigError, match="apply_ema_weights"):
        optimizer.reset_old_weights()
    late = [w + 1 for w in START]
    model.set_weights(late)
    optimizer.apply_ema_weights()
    assert all(map(np.array_equal, model.get_weights(), late))
    optimizer.reset_old_weights()
    zeros = [ops.zeros(w.shape) for w in START]
    for _ in range(3):
        optimizer.apply(zeros, model.trainable_variables)
    optimizer.apply_ema_weights()
    for weights, expected in zip(model.get_weights(), late, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_noise_is_drawn_anew_and_reproducibly():
    def updates():
        noise = optimizers.GradientNoise(0.5, seed=3)
        cls = optimizers.extend_with_gradient_operations(keras.optimizers.SGD)
        model, optimizer = make_model(), cls(1.0, gradient_operations={"Embedding": noise})
        seen = [START[0]]
        for _ in range(3):
            train_by_apply(model, optimizer, TOKENS[:1], 0 * TARGETS[:1])
            seen.append(model.get_weights()[0])
        assert all(map(np.array_equal, model.get_weights()[1:], START[1:]))
        return np.diff(seen, axis=0)

    first, second = updates(), updates()
    assert not np.allclose(first[0], first[1]) and not np.allclose(first[1], first[2])
    assert 0.3 < first.std() < 0.7
    np.testing.assert_allclose(first, second, atol=1e-6)


@keras.saving.register_keras_serializable("test_optimizers")
def reversed_gradient(gradient):
    return -gradient


def test_saved_and_restored(tmp_path):
    """A model saved in the middle, loaded and trained on, equals one that was not; through JSON, with its slots."""
    names = list(EXTENSIONS)
    cls = keras.optimizers.AdamW
    for name in names:
        cls = getattr(optimizers, f"extend_with_{name}")(cls, "Everything" if name == names[-1] else None)
    operations = {"kernel": reversed_gradient, "bias": optimizers.GradientNoise(0.1, seed=1)}
    settings = {k: v for name in names for k, v in EXTENSIONS[name].items()} | {"gradient_operations": operations}
    model = make_model()
    train_by_fit(model, cls(0.1, **settings), TOKENS[:5], TARGETS[:5])
    model.compile(model.optimizer)  # without a loss, which is not registered
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is cls
    assert again.optimizer.options["lr_schedule"] == {2: 1.0, 5: 0.2}
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert again.optimizer.weight_decay == 0.3
    for m in (model, again):
        train_by_fit(m, m.optimizer, TOKENS[5:], TARGETS[5:])
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
    for one, other in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        assert np.array_equal(numpy(one), numpy(other))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(again.optimizer))
    assert copy.get_config() == again.optimizer.get_config()
    assert cls.from_config(again.optimizer.get_config()).get_config() == copy.get_config()


def test_weight_decay_leaves_out_norms_and_biases_by_default():
    model = build_transformer_model(tiny_config(num_hidden_layers=1), None)
    model = getattr(model, "model", model)
    optimizer = optimizers.extend_with_weight_decay(keras.optimizers.SGD)(1.0, weight_decay_rate=0.25)
    before = model.get_weights()
    variables = model.trainable_variables
    values = {v.path: numpy(v) for v in variables}
    optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    for variable in variables:
        kept = variable.path.endswith(("bias", "gamma", "beta"))
        np.testing.assert_allclose(numpy(variable), (1 if kept else 0.75) * values[variable.path], rtol=1e-6)
    assert len(before) >= 16


def test_adam_without_correction_and_its_epsilon():
    gradient, weights, m, v = np.array([1e-6, 1.0]), np.zeros(2), np.zeros(2), np.zeros(2)
    for correct in (True, False):
        variable = keras.Variable(weights.astype("float32"))
        optimizer = optimizers.Adam(0.1, bias_correction=correct)
        expected, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
        for t in range(1, 4):
            optimizer.apply([ops.convert_to_tensor(gradient.astype("float32"))], [variable])
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            scales = (1 - 0.9**t, 1 - 0.999**t) if correct else (1, 1)
            expected = expected - 0.1 * m / scales[0] / (np.sqrt(v / scales[1]) + 1e-6)
        np.testing.assert_allclose(numpy(variable), expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3,), (5, 4), (2, 6, 4), (4, 6)])
@pytest.mark.parametrize("settings", [{}, {"beta1": 0.9, "beta2": 0.99, "clipping_threshold": None}])
def test_adafactor(shape, settings):
    start, expected = RNG.normal(0, 1, shape), None
    variable = keras.Variable(start.astype("float32"), name="kernel")
    rate = None if settings else 0.05
    optimizer = optimizers.AdaFactor(rate, min_dim_size_to_factor=4, **settings)
    expected, rows, columns, full, m = start.copy(), 0.0, 0.0, 0.0, 0.0
    for t in range(1, 5):
        g = RNG.normal(0, 1, shape)
        optimizer.apply([ops.convert_to_tensor(g.astype("float32"))], [variable])
        beta = settings.get("beta2", 1 - t**-0.8)
        if len(shape) == 1:
            full = beta * full + (1 - beta) * g**2
        else:  # of these shapes, the last two dimensions are the largest: any mean over one is a row's or column's
            rows = beta * rows + (1 - beta) * (g**2).mean(-1, keepdims=True)
            columns = beta * columns + (1 - beta) * (g**2).mean(-2, keepdims=True)
            full = rows * columns / rows.mean(-2, keepdims=True)
        u = g / np.sqrt(full)
        if not settings:
            u /= max(1, np.sqrt((u**2).mean()))
        else:
            u = m = 0.9 * m + 0.1 * u
        lr = rate or min(1 / math.sqrt(t), 0.01)
        expected = expected - lr * u * max(np.sqrt((expected**2).mean()), 1e-3)
        np.testing.assert_allclose(numpy(variable), expected, rtol=1e-4, atol=1e-5)
    sizes = sum(math.prod(s.shape) for s in optimizer.second_moments[0])
    assert sizes < math.prod(shape) or len(shape) == 1
    again = optimizers.AdaFactor.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


POINTS = [{1000: 1, 2000: 0.1}, {0: 1}, {0: 2, 10: 1, 20: 3}, {5: 1}]


@pytest.mark.parametrize("schedule", POINTS)
@pytest.mark.parametrize("from_zero", [True, False])
def test_piecewise_linear(schedule, from_zero):
    points = sorted(({0: 0} if from_zero and 0 not in schedule else {} | schedule).items() | schedule.items())
    steps, values = zip(*points, strict=True)
    keras_schedule = optimizers.PiecewiseLinear(0.5, schedule, from_zero)
    for t in (0, 1, 4, 7, 10, 15, 500, 999, 1000, 1700, 2000, 10**6):
        expected = np.interp(t, steps, values)
        value = optimizers.piecewise_linear(t, schedule, from_zero)
        assert isinstance(value, float) and value == pytest.approx(expected)
        assert float(keras_schedule(ops.convert_to_tensor(t))) == pytest.approx(0.5 * expected, rel=1e-5)
        assert isinstance(keras_schedule(t), float)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(keras_schedule))
    assert again(7) == keras_schedule(7)


def test_warmup_decay():
    linear = [optimizers.warmup_decay(t, 10, 4, end=0.5) for t in range(13)]
    np.testing.assert_allclose(linear, np.interp(range(13), [0, 4, 10], [0, 1, 0.5]))
    assert optimizers.warmup_decay(0, 10) == 1 and optimizers.warmup_decay(3, 3, 3) == 1
    assert [optimizers.warmup_decay(t, 8, 2, "constant") for t in (1, 2, 50)] == [0.5, 1, 1]
    for t, expected in {1: 0.5, 2: 1, 6: 0.5 * (1 + math.cos(math.pi / 2)), 10: 0, 11: 0}.items():
        assert optimizers.warmup_decay(t, 10, 2, "cosine") == pytest.approx(expected, abs=1e-9)
        schedule = optimizers.WarmupDecay(3.0, 10, 2, "cosine")
        assert float(schedule(ops.convert_to_tensor(t))) == pytest.approx(3 * expected, abs=1e-6)
    again = optimizers.WarmupDecay.from_config(schedule.get_config())
    assert [again(t) for t in range(9)] == [schedule(t) for t in range(9)]


@pytest.mark.parametrize("family, blocks", [("bert", 3), ("albert_unshared", 3), ("gpt2", 3), ("albert", 1)])
def test_layerwise_schedule(family, blocks):
    backbone = (
        build_transformer_model(tiny_config(family), None, model=family, with_mlm=family != "gpt2")
        if family != "gpt2"
        else build_transformer_model(tiny_config(family), None, model=family, application="lm")
    )
    schedule = optimizers.layerwise_schedule(backbone, 0.5)
    seen = {}
    for variable in backbone.trainable_variables:
        product = math.prod(v for k, v in schedule.items() if k in variable.path)
        seen.setdefault(variable.path.split("-M")[0].split("-F")[0].split("/")[0], set()).add(product)
    expected = (
        {f"Transformer-{i}": {0.5 ** (blocks - i)} for i in range(blocks)}
        if family != "albert"
        else {"Transformer": {0.5}}
    )
    assert {k: v for k, v in seen.items() if k.startswith("Transformer")} == expected
    for name, products in seen.items():
        if not name.startswith("Transformer"):
            assert products == ({0.5 ** (blocks + 1)} if name.startswith("Embedding") else {1}), name


def test_bad_arguments():
    sgd = keras.optimizers.SGD
    wrong = [
        ("weight_decay", {"weight_decay_rate": -1}, "weight_decay_rate -1"),
        ("weight_decay", {"weight_decay": 0.1, "weight_decay_rate": 0.2}, "expected one of them"),
        ("weight_decay", {"exclude_from_weight_decay": ["("]}, "no regular expression"),
        ("piecewise_linear_lr", {"lr_schedule": {}}, "at least one step"),
        ("piecewise_linear_lr", {"lr_schedule": {-1: 1}}, "none negative"),
        ("gradient_accumulation", {"grad_accum_steps": 0}, "1 or more"),
        ("gradient_accumulation", {"grad_accum_steps": 1.5}, "1 or more"),
        ("lookahead", {"slow_step_size": 2}, "from 0 to 1"),
        ("exponential_moving_average", {"ema_momentum": 1}, "between 0 and 1"),
        ("parameter_wise_lr", {"paramwise_lr_schedule": {"bias": float("nan")}}, "finite"),
        ("gradient_operations", {"gradient_operations": {"bias": 2}}, "function of a gradient"),
    ]
    for name, options, message in wrong:
        with pytest.raises(errors.ConfigError, match=message):
            getattr(optimizers, f"extend_with_{name}")(sgd)(0.1, **options)
    lazy = optimizers.extend_with_lazy_optimization(sgd)
    with pytest.raises(errors.ConfigError, match="already"):
        optimizers.extend_with_lazy_optimization(optimizers.extend_with_lookahead(lazy))
    for base in (sgd(0.1), int, keras.optimizers.LossScaleOptimizer):
        with pytest.raises(errors.ConfigError):
            optimizers.extend_with_lookahead(base)
    for options in ({"include_in_lazy_optimization": "Embeding"}, {"include_in_lazy_optimization": ["Embeding"]}):
        with pytest.warns(UserWarning, match=r"\['Embeding'\] match no trainable variable"):
            lazy(0.1, **options).build(make_model().trainable_variables)
    with pytest.raises(errors.ConfigError, match="decay"):
        optimizers.layerwise_schedule(make_model(), 0)
    with pytest.raises(errors.ConfigError, match="Transformer"):
        optimizers.layerwise_schedule(make_model(), 0.9)
    with pytest.raises(errors.ConfigError, match="decay 'cubic'"):
        optimizers.WarmupDecay(0.1, 10, decay="cubic")
    with pytest.raises(errors.ConfigError, match="warmup_steps"):
        optimizers.warmup_decay(0, 10, 11)


def test_names():
    for name in EXTENSIONS:
        function = getattr(optimizers, f"extend_with_{name}")
        assert getattr(optimizers, f"extend_with_{name}_v2", function) is function
    assert optimizers.extend_with_lookahead(keras.optimizers.SGD, "Mine").__name__ == "Mine"
    assert issubclass(optimizers.extend_with_lookahead(optimizers.Adam), optimizers.Adam)
    assert len(list(itertools.chain(optimizers.__all__))) == len(set(optimizers.__all__))
