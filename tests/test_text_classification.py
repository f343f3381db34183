"""Labels of texts: what decays, what counts as padding, adapters that come and go, and odd input."""

import keras
import numpy as np
import pytest
from random_models import tiny_config

import bert4x
from bert4x import layers as L
from bert4x.errors import DataError, InputError
from bert4x.tasks.text_classification import TextClassification
from bert4x.training.lora import add_lora
from bert4x.training.losses import binary_divergence

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"好坏很不东西店家人菜服务差快慢"]


def backbone(**options):
    keras.utils.set_random_seed(3)
    model = bert4x.build_transformer_model(tiny_config("bert", vocab_size=len(VOCAB)), **options)
    model.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(VOCAB)})
    return model


def make(labels=("好", "坏", "中"), **options):
    return TextClassification(backbone(), labels, maxlen=16, **options)


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def test_biases_and_norms_do_not_decay():
    """Without gradients, what decays shrinks, and the rest stays."""
    task = make()
    for variable in task.model.trainable_variables:
        variable.assign(np.ones(variable.shape, "float32"))
    optimizer = task.optimizer(0.5, weight_decay=0.1)
    variables = task.model.trainable_variables
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    for variable in variables:
        stays = variable.path.endswith(("bias", "gamma", "beta"))
        assert np.all(numpy(variable.value) == 1) == stays, variable.path


@pytest.mark.parametrize("segments", [0, 2])
def test_layers_on_a_backbone_know_its_padding(segments):
    keras.utils.set_random_seed(0)
    bert = bert4x.build_transformer_model(tiny_config("bert", vocab_size=30, segment_vocab_size=segments))
    crf = L.ConditionalRandomField()
    tags = keras.Model(bert.inputs, crf(keras.layers.Dense(4)(bert.output)))
    mean = keras.Model(bert.inputs, keras.layers.GlobalAveragePooling1D()(bert.output))
    ids = np.array([[2, 7, 9, 3]], "int32")
    longer = np.pad(ids, ((0, 0), (0, 3)))

    def given(tokens):
        return [tokens, tokens * 0][: len(bert.inputs)]

    labels = crf.decode(tags(given(longer)))
    assert (numpy(labels)[:, 4:] == -1).all() and (numpy(labels)[:, :4] >= 0).all()
    np.testing.assert_allclose(numpy(mean(given(longer))), numpy(mean(given(ids))), atol=1e-5)


def test_answers_follow_adapters():
    task = make()
    before = task.predict(task.model, task.inputs(task.prepare([("菜很差", "坏")])))
    add_lora(task.backbone, 2)
    draw = np.random.default_rng(0)
    for variable in task.backbone.trainable_variables:
        variable.assign(draw.normal(0, 0.3, variable.shape))
    inputs = task.inputs(task.prepare([("菜很差", "坏")]))
    after = task.predict(task.model, inputs)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, numpy(task.model(inputs, training=False)), atol=2e-5)


def test_divergence_of_several_labels():
    """That all are given instead of none is far, though a softmax sees no difference."""
    task, several = make(), make(multi_label=True)
    none, all_ = np.full((1, 3), -3.0, "float32"), np.full((1, 3), 3.0, "float32")
    assert float(numpy(task.divergence(none, all_))) == pytest.approx(0, abs=1e-5)
    p, q = (1 / (1 + np.exp(-2 * x[0, 0])) for x in (none, all_))
    expected = 3 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert float(numpy(several.divergence(none, all_))) == pytest.approx(expected, rel=1e-4)
    assert float(numpy(binary_divergence(all_, all_))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("texts", [5, [5], ("好", "坏", "很"), [("好", None)], [["好", 1]], None])
def test_what_is_no_text(texts):
    with pytest.raises(InputError, match="expected a text"):
        make()(texts)


def test_rows_that_cannot_be():
    task = make()
    assert task([]) == []
    assert task(["", "  ", "😀"])[1].label in task.labels
    with pytest.raises(DataError, match="no rows"):
        task.evaluate([])
    for rows in ([("好", "坏", "好"), ("很", "好")], [("很", "好"), ("好", "坏", "好")]):
        with pytest.raises(DataError, match="some rows have one text, others two"):
            task.prepare(rows)


def test_one_of_several_labels_may_stand_alone():
    """A str is a label, not the letters that it has."""
    task = make(labels=("1", "2", "12"), multi_label=True)
    rows = [("好", "12"), ("好", ["1", "2"]), ("好", 2), ("好", {"12"}), ("好", ())]
    assert [example.labels for example in task.prepare(rows)] == [(2,), (0, 1), (1,), (2,), ()]
    with pytest.raises(DataError, match="'21'"):
        task.prepare([("好", "21")])
