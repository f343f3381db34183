"""Schemes of positions and the settings of attention, against NumPy from their papers; and decoding with them."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from battery import array, close
from keras import ops

import bert4x
from bert4x import layers as L
from bert4x import masks
from bert4x.config import TransformerConfig
from bert4x.families.bert import Bert
from bert4x.layers import entropy
from tests.random_models import tiny_config

DRAW = np.random.default_rng(0)
THETA, FACTOR, TRAINED, SIZE = 100.0, 4.0, 64, 8
SCHEMES = {
    "interleaved": L.Rotary(THETA, interleaved=True),
    "halves": L.Rotary(THETA),
    "log-n": L.Rotary(THETA, log_n=5),
    "linear": L.LinearRotary(THETA, factor=FACTOR),
    "dynamic": L.DynamicRotary(THETA, factor=FACTOR, trained_length=TRAINED),
    "yarn": L.YarnRotary(THETA, factor=FACTOR, trained_length=TRAINED, beta_fast=4.0, beta_slow=1.0),
}


def frequency(name, i, longest):
    """The angle of pair i for one position, by the formula of each paper."""
    if name == "linear":
        return THETA ** (-2 * i / SIZE) / FACTOR
    if name == "dynamic":
        theta = THETA * (FACTOR * max(longest, TRAINED) / TRAINED - FACTOR + 1) ** (SIZE / (SIZE - 2))
        return theta ** (-2 * i / SIZE)
    if name == "yarn":
        low, high = (SIZE * math.log(TRAINED / (b * 2 * math.pi)) / (2 * math.log(THETA)) for b in (4.0, 1.0))
        ramp = min(max((i - math.floor(low)) / (math.ceil(high) - math.floor(low)), 0), 1)
        return THETA ** (-2 * i / SIZE) * (1 - ramp + ramp / FACTOR)
    return THETA ** (-2 * i / SIZE)


@pytest.mark.parametrize("name", SCHEMES)
def test_rotary(name):
    query, key = DRAW.normal(size=(2, 2, 3, 4, SIZE)).astype("float32")
    positions = np.array([[0, 1, 2, 3], [5, 90, 4, 7]], "int32")
    turned = [array(x) for x in SCHEMES[name].turn(*map(ops.convert_to_tensor, (query, key, positions)))]
    for which, x in enumerate((query, key)):
        expected = np.zeros_like(x)
        for i in range(SIZE // 2):
            a, b = (2 * i, 2 * i + 1) if name == "interleaved" else (i, i + SIZE // 2)
            number = (x[..., a] + 1j * x[..., b]) * np.exp(1j * frequency(name, i, 91) * positions)[:, None]
            number = number * (0.1 * math.log(FACTOR) + 1 if name == "yarn" else 1)
            if name == "log-n" and which == 0:
                number = number * np.maximum(np.log(positions + 1) / math.log(5), 1)[:, None]
            expected[..., a], expected[..., b] = number.real, number.imag
        close(turned[which], expected, 2e-5)


def test_buckets_of_t5():
    """The first half one distance each, then up to 128 as logarithms grow; half of all for later keys, or none."""
    for bidirectional in (True, False):
        layer = L.RelativeBias(3, bidirectional=bidirectional)
        layer.build((None, None, 5))
        layer.embeddings.assign(DRAW.normal(size=(32, 3)))
        table, found = array(layer.embeddings.value), array(layer(ops.zeros((1, 150, 5))))
        assert found.shape == (1, 3, 150, 150)
        buckets = 16 if bidirectional else 32
        for q, k in [(0, 0), (3, 0), (0, 7), (20, 4), (16, 0), (0, 33), (40, 8), (149, 0), (0, 149), (130, 2)]:
            n = abs(q - k) if bidirectional else max(q - k, 0)
            half = buckets // 2
            far = half + math.floor(round(math.log(max(n, 1) / half) / math.log(128 / half) * (buckets - half), 9))
            bucket = n if n < half else min(far, buckets - 1)
            bucket += 16 if bidirectional and k > q else 0
            close(found[0, :, q, k], table[bucket], 0)


def heads(layer, name, x, count):
    values = x @ array(getattr(layer, f"{name}_dense").kernel) + array(getattr(layer, f"{name}_dense").bias)
    return values.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


def random_attention(**settings):
    layer = L.MultiHeadAttention(6, 4, **settings)
    layer.build((None, None, 10))
    for variable in layer.trainable_variables:
        variable.assign(DRAW.normal(0, 0.5, variable.shape))
    return layer


def test_relative_vectors_of_nezha():
    """Sinusoids of the row p = clip(k - q, -3, 3) + 3, added to keys and to values."""
    layer = random_attention(positions=L.RelativeVectors(3))
    x, visible = DRAW.normal(size=(2, 9, 10)).astype("float32"), np.tril(np.ones((1, 1, 9, 9), bool))
    angles = np.arange(7)[:, None] / 10000 ** (np.array([0, 0, 2, 2]) / 4)
    table = np.where(np.arange(4) % 2, np.cos(angles), np.sin(angles))
    vectors = table[np.clip(np.arange(9)[None] - np.arange(9)[:, None], -3, 3) + 3]
    query, key, value = (heads(layer, name, x, 6) for name in ("query", "key", "value"))
    mixed = np.zeros_like(query)
    for q in range(9):
        scores = (query[:, :, q, None] * (key + vectors[q])).sum(-1)[..., : q + 1] / 2
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        mixed[:, :, q] = (weights[..., None] * (value + vectors[q])[:, :, : q + 1]).sum(2)
    expected = mixed.transpose(0, 2, 1, 3).reshape(2, 9, 24) @ array(layer.output_dense.kernel)
    close(layer(x, visible), expected + array(layer.output_dense.bias), 2e-5)


@pytest.mark.parametrize("flash", [False, True])
def test_groups_norms_and_scale(flash, monkeypatch):
    """Head h of six reads keys and values of head h // 3 of two; queries and keys have a root mean square of gamma;
    scores grow with the logarithm of how many keys a query sees.
    """
    monkeypatch.setattr(entropy, "SHORTEST", 1)
    layer = random_attention(key_value_heads=2, query_key_norm=1e-3, scale=0.7, flash_attention=flash, log_n=5)
    x, visible = DRAW.normal(size=(2, 9, 10)).astype("float32"), np.tril(np.ones((1, 1, 9, 9), bool))
    sharpness = np.log(np.arange(1, 10))[:, None] / np.log(5)
    query, key, value = (heads(layer, name, x, n) for name, n in (("query", 6), ("key", 2), ("value", 2)))
    query, key = (
        x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * array(norm.gamma)
        for x, norm in ((query, layer.query_norm), (key, layer.key_norm))
    )
    mixed = np.zeros_like(query)
    for head in range(6):
        scores = np.where(visible[0], query[:, head] @ key[:, head // 3].transpose(0, 2, 1) * 0.7 * sharpness, -np.inf)
        mixed[:, head] = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True) @ value[:, head // 3]
    expected = mixed.transpose(0, 2, 1, 3).reshape(2, 9, 24) @ array(layer.output_dense.kernel)
    close(layer(x, visible), expected + array(layer.output_dense.bias), 2e-5)


def test_window():
    rank = np.array([[0, 0, 1, 2, 3]], "int32")
    found = array(masks.visible(*map(ops.convert_to_tensor, (rank, rank)), window=2))[0, 0]
    behind = rank[0][:, None] - rank[0]
    assert np.array_equal(found, (behind >= 0) & (behind < 2))
    found = array(L.Visibility("encoder", window=2)(ops.zeros((1, 5, 3)), ops.convert_to_tensor(rank)))[0, 0]
    assert np.array_equal(found, np.abs(np.arange(5)[:, None] - np.arange(5)) < 2), "an encoder counts tokens"


class Unembedded(Bert):
    """A BERT whose positions are those of a scheme only."""

    scheme, settings, window = None, {}, None

    def position_embedding(self, x, inputs, index=0, cached=False):
        return x

    def positions(self):
        return self.scheme

    def attention_options(self):
        return super().attention_options() | self.settings

    def attention(self, name, x, context):
        return super().attention(name, x, context, self.window)


class Biased(Unembedded):
    """T5's bias, from one layer, for all."""

    def attend(self, tokens, *args):
        context = super().attend(tokens, *args)
        bias = self.layer(L.RelativeBias, "Bias", heads=5, buckets=6, max_distance=5, stddev=1.0)
        given = [x for x in (context.query_positions, context.key_positions) if x is not None]
        context.bias = bias(tokens, *given)
        return context


KINDS = {
    "rotary": (
        Unembedded,
        {"scheme": L.YarnRotary(10.0, interleaved=True, factor=2.0, trained_length=9), "settings": {"log_n": 4}},
    ),
    "vectors": (Unembedded, {"scheme": L.RelativeVectors(3)}),
    "bias": (Biased, {}),
    "groups": (Unembedded, {"scheme": L.Rotary(10.0, log_n=3), "settings": {"key_value_heads": 1}, "window": 3}),
}


@pytest.mark.parametrize(("kind", "application"), [("rotary", "lm"), *((kind, "unilm") for kind in KINDS)])
def test_cached_equals_uncached_with_padding_on_either_side(kind, application, monkeypatch):
    monkeypatch.setattr(entropy, "SHORTEST", 1)  # so that log n differs from token to token
    cls, attributes = KINDS[kind]
    cls = type("Tried", (cls,), attributes)
    config = tiny_config(initializer_range=0.3, num_hidden_layers=2, attention_key_size=8, attention_head_size=8)
    builder = cls(TransformerConfig(**config), application, with_mlm="linear").build()
    ids = DRAW.integers(1, 97, (2, 9)).astype("int32")  # prompts of 5 and of 3 tokens, then 4 tokens
    segments = np.array([[0] * 5 + [1] * 4, [0] * 3 + [1] * 4 + [0] * 2], "int32")
    real = np.arange(9) < np.array([9, 7])[:, None]
    whole = array(builder.model({"token_ids": ids, "segment_ids": segments, "padding_mask": real}))
    alone = array(builder.model({"token_ids": ids[1:, :7], "segment_ids": segments[1:, :7]}))
    close(whole[1, :7], alone[0], 2e-5)
    assert np.ptp(whole) > 1

    def left(values):  # rows end in one slot
        return np.stack([values[0], np.concatenate([np.zeros(2, values.dtype), values[1, :7]])])

    positions = np.stack([np.arange(9), np.maximum(np.arange(9) - 2, 0)]).astype("int32")
    inputs = {"token_ids": left(ids), "segment_ids": left(segments), "padding_mask": left(real * 1) == 1}
    inputs["position_ids"] = positions
    cache, start, found = builder.new_cache(2, 12), 0, []
    for stop in (5, 6, 9):
        tensors = {name: ops.convert_to_tensor(values[:, start:stop]) for name, values in inputs.items()}
        logits, cache = builder.forward(tensors, cache, start)
        found.append(array(logits))
        start = stop
    found = np.concatenate(found, axis=1)
    close(found[0], whole[0], 2e-5)
    close(found[1, 2:], whole[1, :7], 2e-5)
    assert cache.layers[0][0].shape[1] == builder.attention_options().get("key_value_heads", 5)


def test_saved_and_loaded(tmp_path):
    inputs = keras.Input((None, 10))
    x = L.MultiHeadAttention(2, 4, positions=SCHEMES["yarn"], name="turned")(inputs, visible := mask_of(inputs))
    x = L.MultiHeadAttention(2, 4, positions=L.RelativeVectors(3))(x, visible, bias=L.RelativeBias(2, stddev=1.0)(x))
    model = keras.Model(inputs, x)
    model.save(tmp_path / "x.keras")
    again, x = keras.models.load_model(tmp_path / "x.keras"), DRAW.normal(size=(2, 9, 10)).astype("float32")
    assert again.get_layer("turned").positions == SCHEMES["yarn"]
    close(again(x), array(model(x)), 0)


def mask_of(x):
    return L.Visibility("lm", window=4)(x, x[..., 0])


def test_files_of_earlier_versions():
    """A UniLM in two directions with residual scores, which bert4x 0.1 wrote before attention held positions."""
    model = bert4x.load(Path(__file__).parent / "golden" / "keras" / "attention.keras")
    ids, segments = [[2, 5, 6, 7, 0], [2, 5, 9, 8, 3]], [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    found = array(model({"token_ids": np.array(ids), "segment_ids": np.array(segments)}))[:, 3, :5]
    expected = [[1.6792, 3.6310, 1.2173, 0.0578, 4.7434], [1.6808, 3.6516, 1.2237, 0.0804, 4.7601]]
    close(found, np.array(expected), 1e-4)


MERGED = {  # by bert4keras 0.11.5: the shape, the last vector, and a sum that tells all others
    "add-False": ([2, 4, 3], [-1.0, 1.0, 0.0], -0.22725),
    "add-True": ([2, 4, 3], [-1.25, 0.75, -0.25], -0.1801),
    "mul-False": ([2, 4, 3], [-0.5625, 0.75, 0.0], 0.00624),
    "mul-True": ([2, 4, 3], [-0.375, 0.625, 0.0], -0.78802),
    "zero-False": ([1, 4, 3], [-0.25, 0.5, 0.0], 0.49793),
    "zero-True": ([2, 4, 3], [-0.5, 0.25, -0.25], 0.48894),
    "concat-False": ([2, 4, 6], [-0.75, 0.5, 0.0, -0.25, 0.5, 0.0], -1.32876),
    "concat-True": ([2, 4, 6], [-0.75, 0.5, 0.0, -0.5, 0.25, -0.25], -2.47097),
}


@pytest.mark.parametrize("mode", ["add", "mul", "zero", "concat"])
def test_merge_modes_of_bert4keras(mode):
    """Its arguments give its numbers; with position ids, of hierarchical tables."""
    table = ((np.arange(5)[:, None] * 7 + np.arange(3) * 3) % 5 - 2) / 4
    x = ((np.arange(24).reshape(2, 4, 3) * 5) % 7 - 3).astype("float32") / 4
    ids = np.array([[0, 4, 2, 1], [3, 3, 1, 0]])
    for custom in (False, True):
        layer = L.PositionEmbedding(
            input_dim=5, output_dim=3, merge_mode=mode, custom_position_ids=custom, hierarchical=custom
        )
        inputs = [ops.convert_to_tensor(x), ops.convert_to_tensor(ids)] if custom else ops.convert_to_tensor(x)
        layer(inputs)
        layer.set_weights([table])
        out, (shape, last, total) = array(layer(inputs)), MERGED[f"{mode}-{custom}"]
        assert list(out.shape) == [2, *shape[1:]]  # there, "zero" alone has one row for all
        close(out[-1, -1], last)
        assert abs((out[: shape[0]].ravel() * np.cos(np.arange(np.prod(shape)))).sum() - total) < 1e-4
    again = L.PositionEmbedding.from_config(layer.get_config())
    assert again.merge_mode == mode and again.output_dim == 3
    with pytest.raises(bert4x.Bert4xError, match="no merge_mode 'sub'"):
        L.PositionEmbedding(5, merge_mode="sub")
