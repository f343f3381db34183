"""What scripts for bert4keras use of models, builders and layers."""

import keras
import numpy as np
import pytest
from keras import ops

import bert4x
from bert4x.errors import TensorMismatchError
from bert4x.layers import Loss
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
