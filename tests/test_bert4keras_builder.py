"""What scripts for bert4keras use of models, builders and layers."""

import keras
import numpy as np
import pytest
from keras import ops

import bert4x
from bert4x import layers as L
from bert4x.backend import K
from bert4x.errors import ConfigError, GenerationError, TensorMismatchError
from bert4x.layers import Loss
from bert4x.models import BERT as Bert
from bert4x.models import LM_Mask, RoFormerV2, data_parallel, extend_with_unified_language_model
from tests.random_models import tiny_config

IDS = np.array([[5, 6, 7, 0], [8, 9, 0, 0], [5, 7, 6, 9]])
SEGMENTS = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]])


def build(**options):
    config = tiny_config("bert", num_hidden_layers=2, dropout_rate=0.0, attention_dropout_rate=0.0)
    return bert4x.build_transformer_model(config, **options)


def array(tensor):
    return ops.convert_to_numpy(tensor)


@keras.saving.register_keras_serializable("tests")
class CrossEntropy(Loss):
    """The loss of bert4keras' scripts for UniLM, which divides by the target's tokens."""

    def compute_loss(self, inputs, mask=None):
        ids, segments, predicted = inputs
        assert mask[2] is not None
        real = ops.cast(mask[2], "float32")[:, 1:] * segments[:, 1:]
        loss = ops.sparse_categorical_crossentropy(ops.cast(ids, "int32")[:, 1:], predicted[:, :-1])
        self.add_metric(ops.sum(real), name="tokens")
        return ops.sum(loss * real) / ops.sum(real)


def test_a_loss_layer(tmp_path):
    model = build(application="unilm")
    predicted = model.predict([IDS, SEGMENTS], verbose=0)[:, :-1]
    losses = -np.log(np.take_along_axis(predicted, IDS[:, 1:, None], axis=-1)[..., 0])
    real = (SEGMENTS * (IDS > 0))[:, 1:]
    training = keras.Model(model.inputs, CrossEntropy(2)([*model.inputs, model.output]))
    training.compile(optimizer=keras.optimizers.SGD(0.0))
    found = training.fit([IDS, SEGMENTS], verbose=0).history
    expected = (losses * real).sum() / real.sum()
    np.testing.assert_allclose(found["loss"], [expected], rtol=1e-5)
    assert found["tokens"] == [real.sum()]
    training.save(tmp_path / "training.keras")
    again = bert4x.load(tmp_path / "training.keras").evaluate([IDS, SEGMENTS], verbose=0, return_dict=True)
    np.testing.assert_allclose([again["loss"], again["tokens"]], [expected, real.sum()], rtol=1e-5)


class OfPairs(Loss):
    def compute_loss(self, inputs, mask=None):
        return K.mean(K.square(inputs[::2] - inputs[1::2]))


def test_losses_and_lambdas_of_every_second_row():
    inputs = keras.Input((3,))
    both = keras.layers.Lambda(lambda x: K.concatenate([x[::2], x[1::2], K.abs(x[::2] - x[1::2])]))(inputs)
    assert both.shape == (None, 9)
    x = np.arange(12.0).reshape(4, 3) ** 2
    first, second = x[::2], x[1::2]
    expected = np.concatenate([first, second, abs(first - second)], axis=1)
    np.testing.assert_array_equal(array(keras.Model(inputs, both)(x)), expected)
    training = keras.Model(inputs, OfPairs()(inputs))
    training.compile(optimizer="sgd")
    np.testing.assert_allclose(training.evaluate(x, verbose=0), np.mean((first - second) ** 2), rtol=1e-6)


def test_a_loss_of_a_finished_model():
    model = build(application="unilm")
    mask = ops.cast(model.get_layer("Embedding-Token").output_mask, "float32")
    loss = ops.sum(model.output[..., 0] * mask) / ops.sum(mask)
    training = L.with_loss(model, loss)
    training.compile(optimizer=keras.optimizers.SGD(0.0))
    predicted = training.predict([IDS, SEGMENTS], verbose=0)
    np.testing.assert_allclose(predicted, model.predict([IDS, SEGMENTS], verbose=0), rtol=1e-6)
    found = training.fit([IDS, SEGMENTS], verbose=0).history["loss"]
    real = IDS > 0
    np.testing.assert_allclose(found, [predicted[..., 0][real].sum() / real.sum()], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "masks"),
    [
        ({}, [True]),
        ({"application": "lm"}, [True]),
        ({"application": "unilm", "with_pool": "linear"}, [False, True]),
        ({"with_mlm": True, "with_nsp": True}, [False, True]),
    ],
)
def test_outputs_carry_the_mask_of_tokens(options, masks):
    model = build(**options)
    outputs = model({"token_ids": IDS})
    outputs = outputs if isinstance(outputs, list) else [outputs]
    assert [getattr(x, "_keras_mask", None) is not None for x in outputs] == masks
    np.testing.assert_array_equal(array(outputs[-1]._keras_mask), (IDS > 0) | (np.arange(4) == 0))


def test_a_computed_condition_trains(tmp_path):
    number = keras.Input((1,))
    condition = keras.layers.Reshape((6,))(keras.layers.Embedding(3, 6, name="Condition")(number))
    model = build(application="lm", layer_norm_cond=condition, additional_input_layers=number)
    assert len(model.inputs) == 3
    for layer in model.layers:
        if layer.name.endswith("-Norm"):
            layer.gamma_dense.kernel.assign(np.random.default_rng(0).normal(size=layer.gamma_dense.kernel.shape))
    inputs = [IDS, SEGMENTS, np.array([[0], [2], [0]])]
    table = array(model.get_layer("Condition").embeddings)
    targets = np.zeros((*IDS.shape, model.output.shape[-1]))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(inputs, targets, verbose=0)
    moved = np.abs(array(model.get_layer("Condition").embeddings) - table).max(axis=1)
    assert moved[0] > 0
    assert moved[1] == 0
    assert moved[2] > 0
    model.save(tmp_path / "model.keras")
    again = bert4x.load(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-6)


def test_attributes_of_the_builder():
    builder = build(with_nsp=True, with_mlm=True, return_keras_model=False)
    assert builder.inputs == builder.input == builder.model.inputs
    assert builder.outputs == builder.output == builder.model.outputs
    alone = build(segment_vocab_size=0)
    assert alone.input is alone.inputs[0]
    assert (builder.vocab_size, builder.num_hidden_layers, builder.hidden_size) == (97, 2, 35)
    assert isinstance(builder.initializer, keras.initializers.TruncatedNormal)
    assert not np.array_equal(array(builder.initializer((9,))), array(builder.initializer((9,))))
    added = builder.model.get_layer("Transformer-1-FeedForward-Add")
    assert added.get_output_at(-1) is builder.model.get_layer("Transformer-1-FeedForward-Norm").get_input_at(-1)
    with pytest.raises(AttributeError, match="hiden_size"):
        _ = builder.hiden_size


def test_nested_lists():
    model = build()
    expected = model.predict([IDS, SEGMENTS], verbose=0)
    for one in (model, keras.Model(model.inputs, model.output)):
        np.testing.assert_array_equal(one.predict([IDS.tolist(), SEGMENTS.tolist()], verbose=0), expected)


def test_a_file_without_segments(tmp_path):
    bert4x.save(build(), tmp_path / "with")
    bert4x.save(build(segment_vocab_size=0), tmp_path / "without")
    config = tiny_config("bert", num_hidden_layers=2)
    checkpoint = tmp_path / "without" / "model.safetensors"
    with pytest.raises(TensorMismatchError, match="Segment"):
        bert4x.build_transformer_model(config, checkpoint)
    assert len(bert4x.build_transformer_model(config, checkpoint, segment_vocab_size=0).inputs) == 1
    with pytest.warns(UserWarning, match="leaves out Embedding-Segment"):
        bert4x.build_transformer_model(None, tmp_path / "with", segment_vocab_size=0)


class OwnHead(Bert):
    def apply_final_layers(self, inputs):
        x = super().apply_final_layers(inputs)
        return self.apply(inputs=x, layer=L.Dense, units=3, kernel_initializer=self.initializer, name="Own")


class Doubled(Bert):
    """Changes what a layer of a name gives."""

    def apply(self, inputs=None, layer=None, arguments=None, **kwargs):
        x = super().apply(inputs, layer, arguments, **kwargs)
        return x * 2 if kwargs["name"] == "Embedding-Norm" else x


class Causal(Bert):
    def compute_attention_bias(self, inputs=None):
        def mask(ids):
            places = ops.arange(ops.shape(ids)[1])
            return places[None, :] <= places[:, None]

        return self.apply(inputs=self.inputs[0], layer=keras.layers.Lambda, function=mask, name="Mask")


class OwnBlock(Bert):
    """A block as a subclass of bert4keras' writes it."""

    def apply_main_layers(self, inputs, index):
        attention, ffn = (f"Transformer-{index}-{part}" for part in ("MultiHeadSelfAttention", "FeedForward"))
        x, mask = [inputs] * 3, self.compute_attention_bias(index)
        x = self.apply(
            inputs=x if mask is None else [*x, mask],
            layer=L.MultiHeadAttention,
            arguments={"a_bias": None if mask is None else True},
            heads=self.num_attention_heads,
            head_size=self.attention_head_size,
            out_dim=self.hidden_size,
            key_size=self.attention_key_size,
            attention_dropout=self.attention_dropout_rate,
            kernel_initializer=self.initializer,
            name=attention,
        )
        x = self.apply(inputs=x, layer=L.Dropout, rate=self.dropout_rate, name=f"{attention}-Dropout")
        x = self.apply(inputs=[inputs, x], layer=L.Add, name=f"{attention}-Add")
        norm = {"layer": L.LayerNormalization, "epsilon": 1e-12}
        x = before = self.apply(inputs=self.simplify([x, None]), name=f"{attention}-Norm", **norm)
        x = self.apply(
            inputs=x, layer=L.FeedForward, units=self.intermediate_size, activation=self.hidden_act, name=ffn
        )
        x = self.apply(inputs=[before, x], layer=L.Add, name=f"{ffn}-Add")
        return self.apply(inputs=x, name=f"{ffn}-Norm", **norm)


class Prompts(L.Embedding):
    """P-tuning as a script for bert4keras writes it: of the table only rows 5 and 6 train."""

    def call(self, inputs, mode="embedding"):
        table = self.embeddings
        mask = np.zeros((K.int_shape(table)[0], 1))
        mask[5:7] += 1
        if keras.backend.backend() == "torch":  # whose tensors cannot be multiplied by an array where they train
            mask = K.constant(mask)
        self.embeddings = table * mask + K.stop_gradient(table) * (1 - mask)
        found = super().call(inputs, mode)
        self.embeddings = table
        return found


class Prompted(Bert):
    def apply(self, inputs=None, layer=None, arguments=None, **kwargs):
        return super().apply(inputs, Prompts if layer is L.Embedding else layer, arguments, **kwargs)


def test_rows_of_a_table_that_train(saved):
    model, found = outputs(saved, model=Prompted)
    np.testing.assert_allclose(found, outputs(saved)[1], atol=1e-6)
    table = model.get_layer("Embedding-Token").embeddings
    before = array(table)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit([IDS, SEGMENTS], IDS, verbose=0)
    changed = np.flatnonzero((array(table) != before).any(axis=1))
    assert changed.tolist() == [5, 6]


class OwnUnits(RoFormerV2):
    """GAU-alpha as its authors write it for bert4keras."""

    def initializer(self, shape, dtype=None):
        return super().initializer(shape, dtype)

    def apply_main_layers(self, inputs, index):
        name = f"Transformer-{index}-GatedAttentionUnit"
        x, mask = [inputs, self.compute_position_bias(inputs)], self.compute_attention_bias(index)
        if mask is not None:
            x.insert(1, mask)
        x = self.apply(
            inputs=x,
            layer=L.GatedAttentionUnit,
            arguments={"a_bias": None if mask is None else True, "p_bias": "rotary"},
            units=self.intermediate_size,
            key_size=self.attention_key_size,
            activation=self.hidden_act,
            use_bias=False,
            normalization="softmax_plus",
            attention_dropout=self.attention_dropout_rate,
            kernel_initializer=self.initializer,
            name=name,
        )
        x = self.apply(inputs=[inputs, x], layer=L.Add, name=f"{name}-Add")
        norm = {"zero_mean": False, "scale": False, "offset": False, "name": f"{name}-Norm"}
        return self.apply(inputs=x, layer=L.LayerNormalization, **norm)

    def variable_mapping(self):
        names = {f"Embedding-{kind}": [f"bert/embeddings/{name}_embeddings"] for kind, name in KINDS}
        for i in range(self.num_hidden_layers):
            parts = ("i_dense/kernel", "q_scaleoffset/gamma", "k_scaleoffset/gamma", "o_dense/kernel")
            unit = f"Transformer-{i}-GatedAttentionUnit"
            names[unit] = [f"GAU_alpha/encoder/layer_{i}/gau/{part}" for part in parts]
        return names


KINDS = (("Token", "word"), ("Segment", "token_type"))


@pytest.mark.parametrize("application", ["encoder", "lm"])
def test_gated_units_of_a_subclass(application, tmp_path):
    sizes = tiny_config("gau", num_hidden_layers=2, layer_norm_eps=1e-7)
    like = bert4x.build_transformer_model(sizes, model="gau", application=application, return_keras_model=False)
    for v in like.model.weights:
        if v.path.endswith("_scale"):
            v.assign(np.random.default_rng(len(v.path)).random(v.shape))
    bert4x.save(like.model, tmp_path, "tf1")
    config = {name: value for name, value in sizes.items() if name != "model"}
    model = bert4x.build_transformer_model(
        config, tmp_path / "bert_model.ckpt", model=OwnUnits, application=application
    )
    found, expected = (one.predict([IDS, SEGMENTS], verbose=0) for one in (model, like.model))
    np.testing.assert_allclose(found, expected, atol=1e-6)


class OwnMask(LM_Mask, Bert):
    pass


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    bert4x.save(build(with_mlm=True), folder, "tf1")
    return folder


def outputs(folder, **options):
    model = bert4x.build_transformer_model(None, folder, **{"with_mlm": True} | options)
    return model, model.predict([IDS, SEGMENTS], verbose=0)


@pytest.mark.parametrize(
    ("cls", "options", "like"),
    [
        (Causal, {}, "lm"),
        (OwnMask, {}, "lm"),
        (extend_with_unified_language_model(Bert), {}, "unilm"),
        (OwnBlock, {}, "encoder"),
        (OwnBlock, {"application": "unilm"}, "unilm"),
    ],
)
def test_what_a_subclass_overrides(cls, options, like, saved):
    _, expected = outputs(saved, application=like)
    model, found = outputs(saved, model=cls, **options)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(GenerationError):
        model.generate_ids([[5, 6]])


def test_own_layers_at_the_end_and_between(saved):
    _, hidden = outputs(saved, with_mlm=False)
    model, found = outputs(saved, model=OwnHead, with_mlm=False)
    kernel, bias = (array(v) for v in model.get_layer("Own").weights)
    np.testing.assert_allclose(found, hidden @ kernel + bias, atol=1e-5)
    reference = bert4x.build_transformer_model(None, saved, with_mlm=True)
    for v in reference.get_layer("Embedding-Norm").weights:
        v.assign(v * 2)
    _, found = outputs(saved, model=Doubled)
    np.testing.assert_allclose(found, reference.predict([IDS, SEGMENTS], verbose=0), atol=1e-6)


def test_parts_of_a_batch_on_devices(saved):
    model, expected = outputs(saved)
    assert data_parallel(model, ["cpu:0"]) is model
    divided = data_parallel(model, ["cpu:0", "cpu:0"], [2, 1])
    np.testing.assert_allclose(divided.predict([IDS, SEGMENTS], verbose=0), expected, atol=1e-6)
    assert {id(v) for v in divided.trainable_variables} == {id(v) for v in model.trainable_variables}
    with pytest.raises(ConfigError, match="1 parts for 2 devices"):
        data_parallel(model, ["cpu:0", "cpu:0"], [1])


def test_parts_of_two_builders(saved):
    """As BERT-of-Theseus has them."""
    options = {"return_keras_model": False, "with_mlm": False}
    first = bert4x.build_transformer_model(None, saved, prefix="First-", **options)
    second = bert4x.build_transformer_model(None, saved, prefix="Second-", num_hidden_layers=1, **options)
    x = first.apply_main_layers(first.apply_embeddings(first.inputs), 0)
    found = keras.Model(first.inputs, first.apply_main_layers(x, 1)).predict([IDS, SEGMENTS], verbose=0)
    np.testing.assert_allclose(found, first.model.predict([IDS, SEGMENTS], verbose=0), atol=1e-6)
    y = second.apply_main_layers(second.apply_embeddings(first.inputs), 0)
    found = keras.Model(first.inputs, y).predict([IDS, SEGMENTS], verbose=0)
    np.testing.assert_allclose(found, second.model.predict([IDS, SEGMENTS], verbose=0), atol=1e-6)


def test_what_cannot_be_overridden(saved):
    class Positions(Bert):
        def compute_position_bias(self, inputs=None):
            return 1

    class Attention(L.MultiHeadAttention):
        def pay_attention_to(self, inputs, mask=None):
            return inputs

    class OwnAttention(Bert):
        def apply(self, inputs=None, layer=None, arguments=None, **kwargs):
            layer = Attention if layer is L.MultiHeadAttention else layer
            return super().apply(inputs, layer, arguments, **kwargs)

    for cls, message in ((Positions, "positions"), (OwnAttention, "pay_attention_to")):
        with pytest.raises(ConfigError, match=message):
            outputs(saved, model=cls)
    with pytest.raises(ConfigError, match="mask of its own"):
        outputs(saved, model=Causal, application="lm")
    builder = bert4x.build_transformer_model(tiny_config("transformer"), model="transformer", return_keras_model=False)
    with pytest.raises(ConfigError, match="in one piece"):
        builder.apply_embeddings(builder.inputs)


def test_a_norm_with_its_condition_in_a_list():
    x, condition = (np.random.default_rng(0).normal(size=size).astype("float32") for size in ((2, 3, 5), (2, 4)))
    layer = L.LayerNormalization(conditional=True, epsilon=1e-3, hidden_units=6, hidden_activation="tanh")
    layer([x, condition])
    weights = {v.path.split("/", 1)[1]: np.random.default_rng(1).normal(size=v.shape) for v in layer.weights}
    for v in layer.weights:
        v.assign(weights[v.path.split("/", 1)[1]])
    hidden = np.tanh(condition @ weights["hidden_dense/kernel"])[:, None]
    gamma = weights["gamma"] + hidden @ weights["gamma_dense/kernel"]
    beta = weights["beta"] + hidden @ weights["beta_dense/kernel"]
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * gamma + beta
    np.testing.assert_allclose(array(layer([x, condition])), expected, atol=1e-5)
    plain = array(L.LayerNormalization(zero_mean=False, scale=False, offset=False, epsilon=1e-3)(x))
    np.testing.assert_allclose(plain, x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3), atol=1e-6)


def test_joining_and_pooling():
    x = np.arange(30, dtype="float32").reshape(5, 3, 2)
    parts = [array(part) for part in L.BatchSplit(2)(x)]
    assert [len(part) for part in parts] == [3, 2]
    assert [len(part) for part in L.BatchSplit([3, 1])(x)] == [3, 2]
    np.testing.assert_array_equal(array(L.BatchConcat()(parts)), x)
    embedded = build(segment_vocab_size=0).get_layer("Embedding-Token")(IDS)
    joined = L.Concatenate1D()([embedded, embedded[:, :2]])
    assert joined.shape == (3, 6, 35)
    np.testing.assert_array_equal(array(joined._keras_mask)[:, :4], array(embedded._keras_mask))
    found = array(L.GlobalMaxPooling1D()(embedded))[1]
    np.testing.assert_array_equal(found, array(embedded)[1, :2].max(0))


def test_names_that_are_not_here():
    with pytest.raises(ImportError, match="write instead"):
        from bert4x.layers import SinusoidalPositionEmbedding  # noqa: F401
    from bert4x.layers import Lambda

    assert Lambda is keras.layers.Lambda


class OwnNames(Bert):
    """Reads blocks in another order, from names that say so, and rows of the vocabulary from the last one on."""

    def load_embeddings(self, embeddings):
        return super().load_embeddings(embeddings)[::-1]

    def variable_mapping(self):
        names = super().variable_mapping()
        for layer in [name for name in names if name.startswith("Transformer-0-")]:
            other = layer.replace("-0-", "-1-")
            names[layer], names[other] = names[other], names[layer]
        return names


def test_variables_by_their_names(saved, tmp_path):
    prefix, config = saved / "bert_model.ckpt", saved / "bert_config.json"
    options = {"with_mlm": True, "return_keras_model": False}
    plain = bert4x.build_transformer_model(config, prefix, **options)
    mapping = plain.variable_mapping()
    assert mapping["Embedding-Norm"] == [f"bert/embeddings/LayerNorm/{name}" for name in ("beta", "gamma")]
    other = bert4x.build_transformer_model(config, prefix, model=OwnNames, keep_tokens=[0, 9, 5], **options)
    for name in ("MultiHeadSelfAttention", "FeedForward-Norm"):
        pairs = zip(
            other.layers[f"Transformer-0-{name}"].weights, plain.layers[f"Transformer-1-{name}"].weights, strict=False
        )
        assert all(np.array_equal(array(a), array(b)) for a, b in pairs if "seed" not in a.path)
    table = array(plain.layers["Embedding-Token"].embeddings)
    np.testing.assert_array_equal(array(other.layers["Embedding-Token"].embeddings), table[[5, 9, 0]])
    plain.save_weights_as_checkpoint(tmp_path / "again.ckpt", mapping)
    empty = bert4x.build_transformer_model(config, **options)
    empty.load_weights_from_checkpoint(tmp_path / "again.ckpt", mapping)
    found, expected = (one.model.predict([IDS, SEGMENTS], verbose=0) for one in (empty, plain))
    np.testing.assert_array_equal(found, expected)
    with pytest.warns(UserWarning, match="start at random"):
        empty.load_weights_from_checkpoint(tmp_path / "again.ckpt", {"MLM-Bias": mapping["MLM-Bias"]})
    with pytest.raises(TensorMismatchError, match="no variable"):
        empty.load_weights_from_checkpoint({}, mapping)
    with pytest.raises(ConfigError, match="by itself"):
        bert4x.load(saved, model=OwnNames)
