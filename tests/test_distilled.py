"""A student's answers are its teacher's where it is in its place; what it learns from is what NumPy says."""

import keras
import numpy as np
import pytest

import bert4x
from bert4x.models.intermediate import intermediate
from bert4x.tasks.distilled import FromStates, InPlace, student_of
from bert4x.tasks.text_classification import TextClassification
from bert4x.training.trainer import Trainer

TEXTS = ["今天天气很好，我们去公园散步吧", "床前明月光"]


@pytest.fixture
def teacher(tiny):
    model = bert4x.load(tiny(num_hidden_layers=4), dropout_rate=0.0, attention_dropout_rate=0.0)
    return TextClassification(model, ["a", "b"], dropout=0.0, maxlen=24)


@pytest.fixture
def arrays(teacher):
    return teacher.model_inputs(*teacher.tokenizer.encode_batch(TEXTS, padding=True))


def same(found, expected):
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), keras.ops.convert_to_numpy(expected), atol=2e-6)


def test_a_student_begins_as_some_of_its_teachers_layers(teacher, arrays):
    student = student_of(teacher, 2)
    values = {v.path: keras.ops.convert_to_numpy(v.value) for v in teacher.model.variables}
    for path, number in (("Transformer-0", 1), ("Transformer-1", 3)):
        for v in student.model.variables:
            if v.path.startswith(path):
                assert np.array_equal(v, values[v.path.replace(path, f"Transformer-{number}")])
    assert student.config.num_hidden_layers == 2 and student.settings == teacher.settings
    with pytest.raises(bert4x.Bert4xError, match="expected 1 to 3"):
        student_of(teacher, 4)


def test_states_and_answers(teacher, arrays):
    student = student_of(teacher, 2)
    learner = FromStates(student, teacher, share=0.25, states=3.0)
    outputs = learner.model(arrays, training=True)
    same(outputs[0], student.model(arrays))
    same(outputs[1], teacher.model(arrays))
    ours, theirs = (
        intermediate(task.backbone, ["Embedding-Dropout", *(f"Transformer-{i}-FeedForward-Norm" for i in numbers)])
        for task, numbers in ((student, (0, 1)), (teacher, (1, 3)))
    )
    expected = np.zeros(2)
    for mine, aim in zip(ours(arrays), theirs(arrays), strict=True):
        mine, aim = np.asarray(keras.ops.convert_to_numpy(mine)), np.asarray(keras.ops.convert_to_numpy(aim))
        shares = ((mine - aim) ** 2).sum(-1) / (aim**2).sum(-1)
        expected += [shares[i][arrays[0][i] != 0].mean() for i in range(2)]
    same(outputs[2], expected / 3)
    labels = (np.array([0, 1], "int32"),)
    answers, taught = (keras.ops.convert_to_numpy(x) for x in outputs[:2])
    logs, aims = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (answers, taught))
    loss = (
        -0.75 * (logs[0, 0] + logs[1, 1]) / 2 + 0.25 * (np.exp(aims) * (aims - logs)).sum(-1).mean() + expected.mean()
    )
    same(learner.loss(outputs, labels), loss)


def test_in_the_teachers_place(teacher, arrays):
    student = student_of(teacher, 2)
    never = InPlace(student, teacher, 10, start=1e-9, share=1e9).model
    same(never(arrays, training=True), teacher.model(arrays))
    same(never(arrays, training=False), student.model(arrays))
    model = InPlace(student, teacher, 10, start=0.5, share=0.2).model
    drawn = [keras.ops.convert_to_numpy(model(arrays, training=True)) for _ in range(6)]
    for later in drawn[2:]:  # after a fifth of ten updates the student is alone
        same(later, student.model(arrays))


@pytest.mark.parametrize("way", ["states", "theseus"])
def test_only_the_student_learns(teacher, arrays, way):
    student = student_of(teacher, 2)
    learner = FromStates(student, teacher) if way == "states" else InPlace(student, teacher, 8)
    before = [np.array(keras.ops.convert_to_numpy(v.value)) for v in teacher.model.variables]
    trainer = Trainer(learner.model, learner.loss, student.optimizer(3e-3))
    batch = [np.asarray(array) for array in arrays], (np.array([0, 1], "int32"),)
    losses = [float(trainer.learn([batch], 3e-3)) for _ in range(8)]
    assert losses[-1] < losses[0]
    for variable, values in zip(teacher.model.variables, before, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(variable.value), values)


def test_families_with_a_forward_of_their_own(teacher, monkeypatch):
    monkeypatch.setattr(teacher.backbone.builder, "in_parts", lambda: False)
    with pytest.raises(bert4x.Bert4xError, match="a bert has no student"):
        student_of(teacher, 2)
