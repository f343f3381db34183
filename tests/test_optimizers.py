"""Extended optimizers against one written in NumPy, through `fit` and through bert4x' own training."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from reference_optimizer import BATCH, CLASSES, PATHS, START, TARGETS, TOKENS, VOCABULARY, WIDTH, Reference, gradients

from bert4x import errors, optimizers
from bert4x.optimizers import extend
from bert4x.training.compiled import Compiled, apply_gradients, value_and_gradients

pytestmark = pytest.mark.compiled  # an update is what is tested

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
    # On TensorFlow, XLA would take most of the time of these tests.
    model.compile(optimizer, loss, jit_compile="auto" if keras.backend.backend() == "jax" else False)
    model.fit(np.concatenate(tokens), np.concatenate(targets), batch_size=BATCH, shuffle=False, verbose=0)


def train_by_apply(model, optimizer, tokens=TOKENS, targets=TARGETS):
    """Compiled, as bert4x' own training."""
    variables = model.trainable_variables
    optimizer.build(variables)
    state = [*model.variables, *optimizer.variables]

    def step(tokens, targets):
        def function():
            value = ops.mean(loss(targets, model(tokens, training=True)))
            return optimizer.scale_loss(value), ()

        _, found = value_and_gradients(function, variables, state)
        apply_gradients(optimizer, found, variables)
        return 0.0

    run = Compiled(step, state)
    for batch in zip(tokens, targets, strict=True):
        run(*batch)


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


@pytest.mark.parametrize("order", range(len(ORDERS)))
def test_stacks_in_any_order(order):
    compare("Adam" if order % 2 else "SGD", ORDERS[order], train_by_apply)


@pytest.mark.parametrize("order", range(2))
def test_stacks_in_fit(order):
    compare("SGD" if order % 2 else "Adam", ORDERS[order], train_by_fit)


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


@pytest.mark.parametrize("huge", [False, True])
def test_clipping_by_the_norm_of_all_gradients_is_keras_own(huge):
    """Wherever it is computed; a gradient that is infinite spoils all weights, not only its own."""
    found = [np.full(value.shape, 0.1 * (i + 1), "float32") for i, value in enumerate(START)]
    if huge:
        found[0].flat[0] = np.inf
    trained = []
    for apply in (apply_gradients, lambda optimizer, *given: optimizer.apply(*given)):
        model, optimizer = make_model(), keras.optimizers.SGD(0.1, global_clipnorm=0.01)
        optimizer.build(model.trainable_variables)
        model.set_weights(START)
        apply(optimizer, list(map(ops.convert_to_tensor, found)), model.trainable_variables)
        trained.append(model.get_weights())
    assert optimizer.global_clipnorm == 0.01
    for ours, keras_own, start in zip(*trained, START, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-6)
        assert np.isnan(ours).all() if huge else not np.array_equal(ours, start)


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


def test_lazy_rows_and_their_moments_stay():
    model, optimizer = make_model(), make_optimizer("Adam", ["lazy_optimization", "weight_decay"])
    train_by_apply(model, optimizer, TOKENS[1:5], TARGETS[1:5])
    absent = [5, 6]
    assert np.array_equal(model.get_weights()[0][absent], START[0][absent])
    moments = numpy(optimizer._momentums[0])
    assert (moments[absent] == 0).all() and (moments[[0, 1, 2, 3, 4]] != 0).all()


def test_a_step_that_is_not_finite_changes_nothing():
    """Under loss scaling: the model after [a, b, infinite, c, d, e] is the one after [a, b, c, d, e]."""
    tokens, targets = TOKENS[:6], TARGETS[:6].copy()
    targets[2, 0, 0] = np.inf
    results = []
    for chosen in (range(6), [0, 1, 3, 4, 5]):
        model, inner = make_model(), make_optimizer("Adam", list(EXTENSIONS))
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
        train_by_apply(model, optimizer, tokens[list(chosen)], targets[list(chosen)])
        results.append([*model.get_weights(), *map(numpy, inner.variables)])
        assert float(optimizer.dynamic_scale) == (512 if len(chosen) == 6 else 1024)
        assert int(inner.iterations) == 1 and int(inner.micro_steps) == 2
        assert any(numpy(total).any() for total in inner.gradient_sums)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_mixed_float16():
    """In `fit`; of the batches of the last update, one has no finite gradient and does not count."""
    targets = TARGETS.copy()
    targets[10, 0, 0] = np.inf
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, optimizer = make_model(), make_optimizer("Adam", list(EXTENSIONS))
        train_by_fit(model, optimizer, TOKENS, targets)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert (int(optimizer.iterations), int(optimizer.micro_steps)) == (3, 2)
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


@pytest.mark.parametrize("train", [train_by_fit, train_by_apply])
def test_two_rates_are_those_of_two_optimizers(train):
    """Each variable ends where an AdamW with its own rate ends; the gradients of this loss do not depend on others."""
    ends = {}
    for multiplier in (1, 5):
        model = make_model()
        train(model, keras.optimizers.AdamW(0.01 * multiplier, weight_decay=0.0))
        ends[multiplier] = {v.path: numpy(v.value) for v in model.trainable_variables}
    model = make_model()
    faster = ["Output-Dense/bias"]
    optimizer = optimizers.TwoRateAdamW(0.01, faster=faster, multiplier=5, weight_decay=0.0)
    train(model, optimizer)
    bias = numpy(model.get_layer("Output-Dense").bias.value)
    np.testing.assert_allclose(bias, ends[5]["Output-Dense/bias"], rtol=1e-5)
    assert np.abs(bias - ends[1]["Output-Dense/bias"]).max() > 0.01
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert (again.faster, again.multiplier) == (faster, 5)


def test_two_rates_leave_the_others_as_they_would_be():
    plain, model = make_model(), make_model()
    train_by_fit(plain, keras.optimizers.AdamW(0.01, weight_decay=0.1))
    train_by_fit(model, optimizers.TwoRateAdamW(0.01, faster=["none/of/them"], multiplier=5, weight_decay=0.1))
    for ours, theirs in zip(model.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(numpy(ours.value), numpy(theirs.value), rtol=1e-6)


ON_COPIES = """
import sys, keras, numpy as np, tensorflow as tf
from bert4x import optimizers
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Accumulating = optimizers.extend_with_gradient_accumulation(optimizers.extend_with_weight_decay(optimizers.Adam))
strategies = [tf.distribute.get_strategy(), *map(tf.distribute.MirroredStrategy, (["CPU:0"], ["CPU:0", "CPU:1"]))]
trained = []
for strategy in strategies:
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile(Accumulating(0.1, grad_accum_steps=2), "mse")
    model.fit(x, x.sum(1, keepdims=True), batch_size=4, epochs=3, shuffle=False, verbose=0)
    trained.append(model.get_weights()[0])
assert np.abs(trained[0] - 1).max() > 0.01
for kernel in trained[1:]:
    np.testing.assert_allclose(kernel, trained[0], rtol=1e-6)
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's")
def test_accumulation_on_copies_of_a_model_is_that_on_one():
    """One copy of a MirroredStrategy, and two, in a process of its own: devices are set before anything is computed."""
    done = subprocess.run([sys.executable, "-c", ON_COPIES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("limit", [None, 0.5, 1e3])
def test_adamw_of_two_rates_is_adamw_where_all_rates_are_one(limit):
    """The numbers of Adam's formula, decayed weights and clipped gradients, in float64."""
    start = {path: np.array(values, "f8") for path, values in zip(PATHS, START, strict=True)}
    model, moments = make_model(), dict.fromkeys(PATHS, (0.0, 0.0))
    optimizer = optimizers.TwoRateAdamW(0.01, weight_decay=0.1, global_clipnorm=limit, epsilon=1e-5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(model.trainable_variables)
    random = np.random.default_rng(0)
    for step in range(1, 6):
        given = {path: random.standard_normal(values.shape).astype("f4") for path, values in start.items()}
        apply_gradients(optimizer, [ops.convert_to_tensor(g) for g in given.values()], model.trainable_variables)
        norm = np.sqrt(sum((g.astype("f8") ** 2).sum() for g in given.values()))
        for path, gradient in given.items():
            gradient = gradient * (min(1, limit / norm) if limit else 1)
            first, second = moments[path]
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            moments[path] = first, second
            rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            start[path] *= 1 if "bias" in path else 1 - 0.01 * 0.1
            start[path] -= rate * first / (np.sqrt(second) + 1e-5)
    for variable, (path, values) in zip(model.trainable_variables, start.items(), strict=True):
        np.testing.assert_allclose(numpy(variable.value), values, rtol=2e-5, atol=2e-6, err_msg=path)


def test_infinite_gradients_are_not_clipped_to_something():
    optimizer = optimizers.TwoRateAdamW(0.01, weight_decay=0.0, global_clipnorm=1.0)
    found = optimizer._clip_gradients([ops.convert_to_tensor([1.0, float("inf")]), ops.ones((2,))])
    assert np.isnan(numpy(found[1])).all()
