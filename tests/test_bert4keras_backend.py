"""bert4x.backend against numbers of bert4keras 0.11.5 on Keras 2, recorded with the function `cases`."""

import keras
import numpy as np
import pytest
from keras import ops

from bert4x import activation_names, backend, build_transformer_model
from bert4x.backend import K
from bert4x.errors import ConfigError, InputError
from bert4x.layers.pointer import HIDDEN

# For each case the sum of its finite numbers, each times the cosine of its place.
RECORDED = {
    "mask": 2.40266494,
    "mask two axes": -14.2448624,
    "mask bias": 15.2114428,
    "plus bias": 4.55925132,
    "mask both": -8.69042361,
    "gather": -4.04702501,
    "gather deep": -0.0939460484,
    "gather rows": -4.39725871,
    "pool": 0.620638158,
    "pool mean": 2.4420751,
    "divisible": -10.4706118,
    "rms": 1.18434888,
    "swish": -2.70834003,
    "leaky": -2.97942311,
    "erf": -3.15499906,
    "tanh": -3.15428473,
    "waves": -4.30199884,
    "rotary": -7.52568025,
    "rotary heads": -0.953316024,
    "piecewise": 0.594436228,
    "piecewise from": 1.39847292,
    "multilabel": 0.396010635,
    "multilabel hidden": -2.46124426,
    "multilabel of a pointer": -2.46124426,
    "sparse multilabel": 2.05051896,
    "sparse multilabel padded": 2.64244264,
    "reshape": -6.87324731,
    "flatten": -2.9647402,
    "where": 2.51090259,
    "align": 2.0652599,
    "binary": 19.0664546,
    "sparse": 2.25587728,
    "sparse logits": 2.95305121,
    "categorical": -1.26514853,
    "argmax": -0.233111727,
    "cumsum": -8.94902049,
    "concatenate": -20.6699743,
    "l2": -0.108934128,
    "sqrt": -1.81312737,
    "relu": -1.652724,
    "hard sigmoid": -0.930373426,
    "repeat": -3.20412314,
    "repeat elements": -37.0355804,
    "expand": -2.9647402,
    "switch": 5.3122981,
    "pad": -13.8863893,
    "rows": 19.776687,
    "top": 0.124155469,
    "prod": 30,
    "dot": -26.8255675,
    "mean": 0.357813692,
    "variance": 0.188079614,
    "reverse": -1.16974446,
    "clip": -1.24441442,
    "one hot": 0.488950048,
    "sum": 0.577189047,
    "softmax": -1.35948932,
    "softmax without": -0.116225138,
    "squared_relu": -1.33596796,
    "squared_relu without": -0.99484105,
    "softmax_plus": -0.692928096,
    "softmax_plus without": -0.222468634,
}


def cases(b, K):
    """Every function of `bert4keras.backend`, and of Keras 2's K what differs from `keras.ops`, on odd sizes."""
    draw = np.random.RandomState(0)
    x, y = draw.normal(size=(2, 2, 5, 6)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    scores = draw.normal(size=(2, 3, 5, 5)).astype("float32")
    labels = (draw.random_sample(size=(2, 5, 6)) * [0, 0, 1, 1, 1, 1] + [0, 1, 0, 0, 0, 0]).astype("float32")
    hidden = np.where(draw.random_sample(size=x.shape) < 0.2, -np.inf, x).astype("float32")
    places = np.array([[[1, 3, 0], [2, 4, 5], [0, 2, 1], [5, 4, 1], [1, 3, 5]]] * 2)
    odds = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    waves = b.sinusoidal_embeddings(K.arange(0, 5, dtype="float32"), 6)[None]
    x, y, scores, labels, hidden, odds = map(K.constant, (x, y, scores, labels, hidden, odds))
    found = {
        "mask": b.sequence_masking(x, K.constant(mask, dtype="float32"), -3.0),
        "mask two axes": b.sequence_masking(scores, K.constant(mask, dtype="bool"), 0.5, [-2, -1], scores * 2),
        "mask bias": b.sequence_masking(
            scores, None, -2.0, -1, K.constant(mask[:, None, None] & mask[:, None, :, None], dtype="bool")
        ),
        "plus bias": b.sequence_masking(x, None, 0, None, y),
        "mask both": b.sequence_masking(x, K.constant(mask, dtype="bool"), 7.0, 1, y > 0),
        "gather": b.batch_gather(x, K.constant([[0, 4], [3, 3]], dtype="int32")),
        "gather deep": b.batch_gather(x, K.constant(places % 6, dtype="int64")),
        "gather rows": b.batch_gather(x, K.constant([1, 0, 1], dtype="int32")),
        "pool": b.pool1d(x, 2, 2, "same"),
        "pool mean": b.pool1d(x, 3, 1, "valid", None, "avg"),
        "divisible": b.divisible_temporal_padding(x, 4),
        "rms": b.root_mean_square(x, -1),
        "swish": b.swish(x),
        "leaky": b.leaky_relu(x),
        "erf": b.gelu_erf(x),
        "tanh": b.gelu_tanh(x),
        "waves": waves,
        "rotary": b.apply_rotary_position_embeddings(waves, x),
        "rotary heads": K.stack(b.apply_rotary_position_embeddings(waves, K.stack([x, y], 2), K.stack([y, x], 2))),
        "piecewise": K.stack([b.piecewise_linear(K.constant(t), {10: 1, 30: 0.25}) for t in (3.0, 17.0, 40.0)]),
        "piecewise from": K.stack([b.piecewise_linear(K.constant(t), {10: 1, 30: 0.25}, False) for t in (3.0, 17.0)]),
        "multilabel": b.multilabel_categorical_crossentropy(labels, x),
        "multilabel hidden": b.multilabel_categorical_crossentropy(labels, hidden),
        "multilabel of a pointer": b.multilabel_categorical_crossentropy(
            labels, K.where(hidden < -9e4, HIDDEN, hidden)
        ),
        "sparse multilabel": b.sparse_multilabel_categorical_crossentropy(K.constant(places, dtype="int32"), x),
        "sparse multilabel padded": b.sparse_multilabel_categorical_crossentropy(
            K.constant(places * [1, 1, 0], dtype="int32"), x, True
        ),
        "reshape": K.reshape(x, [2, -1], 2, [5, 1], 1) * K.reshape(x[:1, :1], [2, 3], 2),
        "flatten": K.flatten(x, 1, 3),
        "where": K.where(K.constant(mask, dtype="bool")[:, :, None], x, 0),
        "align": b.align(K.constant(mask, dtype="float32"), [0, -1], 3),
        "binary": K.binary_crossentropy(labels, odds**9),
        "sparse": K.sparse_categorical_crossentropy(K.constant(places[..., 0], dtype="float32"), odds),
        "sparse logits": K.sparse_categorical_crossentropy(
            K.constant(places[..., 1], dtype="int32"), x, from_logits=True
        ),
        "categorical": K.categorical_crossentropy(labels, odds),
        "argmax": K.argmax(x),
        "cumsum": K.cumsum(x),
        "concatenate": K.concatenate([x, y]),
        "l2": K.l2_normalize(x, -1),
        "sqrt": K.sqrt(x),
        "relu": K.relu(x, 0.1, 0.9),
        "hard sigmoid": K.hard_sigmoid(3 * x),
        "repeat": K.repeat(x[:, 0], 3),
        "repeat elements": K.repeat_elements(x, 2, 1),
        "expand": K.expand_dims(x)[..., 0],
        "switch": K.switch(K.constant(mask, dtype="bool"), x, y),
        "pad": K.temporal_padding(x, (1, 2)),
        "rows": K.gather(x, K.constant([1, 1, 0], dtype="int32")),
        "top": K.in_top_k(x[0], K.constant([1, 5, 0, 2, 3], dtype="int32"), 2),
        "prod": K.prod(K.shape(x)[1:]),
        "dot": K.dot(x, K.permute_dimensions(y, (0, 2, 1))[0]),
        "mean": K.mean(x, axis=[0, 1]),
        "variance": K.std(x, axis=1, keepdims=True),
        "reverse": K.reverse(x, 1),
        "clip": K.clip(x, -0.5, 0.5),
        "one hot": K.one_hot(K.constant(places, dtype="int32"), 7),
        "sum": K.logsumexp(x, axis=1),
    }
    for method in ("softmax", "squared_relu", "softmax_plus"):
        found[method] = b.attention_normalize(scores, K.constant(mask, dtype="float32"), -1, method)
        found[f"{method} without"] = b.attention_normalize(scores, None, -1, method, scores > -1)
    return found


def numbers(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def digest(x):
    x = numbers(x).ravel()
    return (np.where(np.isfinite(x), x, 0) * np.cos(np.arange(x.size))).sum()


def test_all_give_what_bert4keras_gives():
    found = {name: digest(x) for name, x in cases(backend, K).items()}
    assert found.keys() == RECORDED.keys()
    wrong = {name: (x, RECORDED[name]) for name, x in found.items() if not np.isclose(x, RECORDED[name], 2e-5, 2e-5)}
    assert not wrong


def test_lists_of_numbers_among_tensors():
    x = K.constant([1.5, 2.5])
    assert K.eval(K.concatenate([[0], x], axis=0)).tolist() == [0.0, 1.5, 2.5]
    assert K.eval(K.bias_add(x[None], K.constant([1.0, -1.0]))).tolist() == [[2.5, 1.5]]


def test_variables():
    x, y = K.variable([[1.0, 2.0]], name="x"), K.variable(np.zeros(3))
    K.set_value(x, K.eval(x) * 2)
    K.batch_set_value([(y, [1.0, 2.0, 3.0])])
    K.update_add(y, [1.0, 0.0, 0.0])
    assert [v.tolist() for v in K.batch_get_value([x, y])] == [[[2.0, 4.0]], [2.0, 2.0, 3.0]]
    assert (K.int_shape(x), K.ndim(x), K.count_params(y), K.dtype(x), K.dtype(1.5)) == ((1, 2), 2, 3, "float32", None)
    assert numbers(K.constant(2.0, shape=(2, 1))).tolist() == [[2.0], [2.0]]
    assert K.int_shape(keras.Input((None, 3))) == (None, None, 3)


def test_training_is_known_within_a_layer():
    class Phase(keras.layers.Layer):
        def call(self, x):
            return K.in_train_phase(lambda: x + 1, x)

    inputs = keras.Input((2,))
    model = keras.Model(inputs, Phase()(inputs))
    zeros = np.zeros((1, 2), "float32")
    assert [numbers(model(zeros, training=t)).sum() for t in (True, False, None)] == [2, 0, 0]
    assert K.learning_phase() == 0


def test_draws():
    uniform, whole = numbers(K.random_uniform((9999,), 2, 3)), numbers(K.random_uniform((9999,), 1, 4, "int32"))
    assert 2 <= uniform.min() < 2.01 < 2.99 < uniform.max() < 3
    assert set(whole) == {1, 2, 3}
    assert abs(numbers(K.random_normal((9999,), 5.0, 0.1)).mean() - 5) < 0.02
    ones = numbers(K.random_binomial((9999,), 0.25))
    assert set(ones) == {0, 1}
    assert abs(ones.mean() - 0.25) < 0.06
    assert abs(numbers(K.dropout(ops.ones((9999,)), 0.25)).mean() - 1) < 0.1
    if keras.backend.backend() != "tensorflow":
        with pytest.raises(InputError, match=r"SeedGenerator\(3\)"):
            K.random_normal((2,), seed=3)


def test_function_and_gradients():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(2, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(ops.square(hidden)))
    x = np.ones((2, 3))
    first, second = K.function(model.inputs, [hidden, model.output])([x])
    np.testing.assert_allclose(first**2, second, rtol=1e-6)
    assert K.function(model.inputs, hidden)([x]).tolist() == first.tolist()
    with pytest.raises(InputError, match="takes symbolic tensors"):
        K.function([x], model.outputs)
    with pytest.raises(InputError, match="grad"):
        K.gradients(model.output, [hidden])

    def loss(y_true, y_pred):
        """With a gradient in it that is differentiated again: a penalty of the slope by the outputs."""
        value = K.mean(K.square(y_pred - y_true))
        return value + K.sum(K.gradients(value, [y_pred])[0] ** 2)

    model.compile(keras.optimizers.SGD(0.1), loss)
    y = numbers(model(x)) + 1
    if keras.backend.backend() == "jax":
        with pytest.raises(InputError, match=r"jax\.grad"):
            model.train_on_batch(x, y)
    else:
        model.get_layer(index=-1).rate = 0.0
        assert float(model.train_on_batch(x, y)) == pytest.approx(1 + 4 * (2 / 4) ** 2, rel=1e-6)


def test_what_is_gone_is_explained():
    with pytest.raises(AttributeError, match="no sessions"):
        _ = K.get_session
    with pytest.raises(AttributeError, match=r"did you mean K\.concatenate"):
        _ = K.concatenat
    assert K.floatx() == "float32"


def test_gelu_of_scripts():
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_act": "gelu"}
    try:
        found = []
        for version in (None, "tanh", "ERF"):
            if version:
                backend.set_gelu(version)
            found.append(build_transformer_model(dict(sizes), return_keras_model=False).config.hidden_act)
        assert found == ["gelu_erf", "gelu_tanh", "gelu_erf"]
    finally:
        activation_names._scripts_gelu.clear()
    with pytest.raises(ConfigError, match="expected 'erf' or 'tanh'"):
        backend.set_gelu("exact")


@pytest.mark.parametrize("p_bias", [None, "rotary", "typical_relative", "t5_relative"])
def test_attention_that_scripts_call(p_bias):
    """bert4keras' MultiHeadAttention on queries, keys and values, beside NumPy."""
    from bert4x.backend.layers import QueryKeyValueAttention

    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(2, n, d)).astype("float32") for n, d in ((3, 7), (5, 6), (5, 8)))
    real = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 1, 1]], bool)
    bias = rng.normal(size=(2, 3, 5)).astype("float32")
    at = {"rotary": (2, 3, 4), "typical_relative": (3, 5, 4), "t5_relative": (3, 5, 2)}.get(p_bias)
    at = [] if at is None else [rng.normal(size=at).astype("float32")]
    if p_bias == "rotary":  # of queries and keys, which are as many
        key, value, real, bias = key[:, :3], value[:, :3], real[:, :3], bias[..., :3]
    layer = QueryKeyValueAttention(2, 4, out_dim=5, key_size=4, return_attention_scores=True)
    inputs = [query, key, value, bias, *at]
    layer.build([x.shape for x in inputs])
    for i, weight in enumerate(layer.weights):
        weight.assign(np.random.default_rng(i).normal(size=weight.shape) / 4)
    masks = [None, None, real, *[None] * (1 + len(at))]
    given = [ops.convert_to_tensor(x) for x in inputs]
    found, scores = layer(given, mask=masks, a_bias=True, p_bias=p_bias)

    w = [np.asarray(ops.convert_to_numpy(weight)) for weight in layer.weights]
    q, k, v = ((x @ w[2 * i] + w[2 * i + 1]).reshape(2, x.shape[1], 2, -1) for i, x in enumerate((query, key, value)))
    if p_bias == "rotary":
        sines, cosines = at[0][:, :, None, ::2], at[0][:, :, None, 1::2]
        for x in (q, k):
            even, odd = x[..., ::2].copy(), x[..., 1::2].copy()
            x[..., ::2], x[..., 1::2] = even * cosines - odd * sines, odd * cosines + even * sines
    expected = np.einsum("bihd,bjhd->bhij", q, k)
    if p_bias == "typical_relative":
        expected += np.einsum("bihd,ijd->bhij", q, at[0])
    elif p_bias == "t5_relative":
        expected += at[0].transpose(2, 0, 1)
    expected /= 2
    np.testing.assert_allclose(ops.convert_to_numpy(scores), expected, atol=2e-5)
    seen = np.where(real[:, None, None], expected + bias[:, None], -np.inf)
    weights = np.exp(seen - seen.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhij,bjhd->bihd", weights, v)
    if p_bias == "typical_relative":
        mixed += np.einsum("bhij,ijd->bihd", weights, at[0])
    np.testing.assert_allclose(ops.convert_to_numpy(found), mixed.reshape(2, 3, -1) @ w[6] + w[7], atol=2e-5)
    symbolic = layer([keras.Input(x.shape[1:]) for x in inputs[:3]])[0]
    assert symbolic.shape == (None, 3, 5)
    again = QueryKeyValueAttention.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("merge_mode", ["add", "mul", "zero", "concat"])
def test_positions_of_scripts(merge_mode):
    from bert4x.backend.layers import SinusoidalPositionEmbedding

    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
    angles = np.arange(5)[:, None] / 10000.0 ** (np.array([0, 0, 2, 2, 4, 4]) / 6)
    table = np.where(np.arange(6) % 2, np.cos(angles), np.sin(angles))[None].repeat(2, 0)
    expected = {"add": x + table, "mul": x * (1 + table), "zero": table, "concat": np.concatenate([x, table], -1)}
    found = SinusoidalPositionEmbedding(6, merge_mode)(x)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected[merge_mode], atol=2e-6)
    layer = SinusoidalPositionEmbedding(6, merge_mode, custom_position_ids=True)
    places = np.tile(np.arange(5, dtype="int32")[::-1], (2, 1))
    backwards = layer([x[:, ::-1].copy(), places])
    np.testing.assert_allclose(ops.convert_to_numpy(backwards)[:, ::-1], expected[merge_mode], atol=2e-6)
    assert layer([keras.Input((5, 6)), keras.Input((5,))]).shape[1:] == expected[merge_mode].shape[1:]


def test_distances_of_scripts():
    from bert4x.backend.layers import RelativePositionEmbedding, RelativePositionEmbeddingT5

    query, key = np.zeros((2, 3, 4), "float32"), np.zeros((2, 5, 6), "float32")
    layer = RelativePositionEmbedding(5, 2)
    layer.build([query.shape, key.shape])
    layer.embeddings.assign(np.arange(10).reshape(5, 2))
    rows = np.clip(np.arange(5)[None] - np.arange(3)[:, None], -2, 2) + 2
    np.testing.assert_array_equal(ops.convert_to_numpy(layer([query, key]))[..., 0], 2 * rows)
    assert layer([keras.Input((3, 4)), keras.Input((5, 6))]).shape == (3, 5, 2)
    layer = RelativePositionEmbeddingT5(8, 1, max_distance=6)
    layer.build([query.shape, key.shape])
    layer.embeddings.assign(np.arange(8).reshape(8, 1))
    # Four buckets to either side: 0, 1, 2 and 3, of 4 and more the last.
    expected = [[0, 5, 6, 6, 7], [1, 0, 5, 6, 6], [2, 1, 0, 5, 6]]
    np.testing.assert_array_equal(ops.convert_to_numpy(layer([query, key]))[..., 0], expected)
