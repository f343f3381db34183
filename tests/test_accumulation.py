"""Several batches as if they were one: the gradient of an update, for every task, whatever the parts have in them."""

import keras
import numpy as np
import pytest
from keras import ops
from random_models import tiny_config

import bert4x
from bert4x.tasks.gplinker import GPLinker
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import METHODS, TokenClassification
from bert4x.tasks.triple_extraction import TripleExtraction
from bert4x.training.losses import masked_crossentropy, multilabel_categorical_crossentropy
from bert4x.training.trainer import Trainer

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"张三李四去了北京上海，。好坏在"]
LONG = "张三去了北京，李四在上海。"
PARTS = [slice(0, 1), slice(1, 2), slice(2, 5)]  # of few labels and of many, of one row and of three
ENTITIES = [[("人", 0, 2)], [], [("人", 0, 2), ("地", 4, 6), ("人", 7, 9), ("地", 10, 12)], [("地", 10, 12)], []]
TEXTS = ["张三", "去了", LONG, LONG, LONG[:7]]
ENTITY_ROWS = [{"text": t, "entities": e} for t, e in zip(TEXTS, ENTITIES, strict=True)]
TRIPLE_ROWS = [
    {"text": "张三在北京", "spo_list": [("张三", "在", "北京")]},
    {"text": "李四去了上海，上海。", "spo_list": [("李四", "去", "上海")]},
    *[{"text": LONG, "spo_list": [("张三", "去", "北京")]}] * 2,
    {"text": LONG + LONG, "spo_list": [("李四", "在", "上海")]},
]
ANSWERS = [("张三", "北京"), ("张三", "张三"), (LONG, "李四"), (LONG, "上海"), (LONG, "张三去了")]
READ_ROWS = [{"question": "在", "passage": p + "北京", "answers": [(a, (p + "北京").index(a))]} for p, a in ANSWERS]
TASKS = {
    "one label": (TextClassification, {"labels": ["好", "坏"]}, list(zip(TEXTS, "好坏好好坏", strict=True))),
    "several labels": (
        TextClassification, {"labels": ["好", "坏"], "multi_label": True}, [(t, ["好"]) for t in TEXTS],
    ),
    **{m: (TokenClassification, {"labels": ["人", "地"], "method": m}, ENTITY_ROWS) for m in METHODS},
    "reading": (ReadingComprehension, {}, READ_ROWS),
    "gplinker": (GPLinker, {"schema": ["在", "去"], "head_size": 4}, TRIPLE_ROWS),
    "triples": (TripleExtraction, {"schema": ["在", "去"]}, TRIPLE_ROWS),
    "seq2seq": (Seq2Seq, {"max_target": 16}, [(t, t[: 1 + 3 * i]) for i, t in enumerate(TEXTS)]),
}  # fmt: skip


def make(cls, settings):
    keras.utils.set_random_seed(0)
    config = tiny_config("bert", vocab_size=len(VOCAB), num_hidden_layers=1, dropout_rate=0.0, max_position=64)
    config |= {"attention_probs_dropout_prob": 0.0}
    options = {"application": "unilm", "with_mlm": "linear"} if cls is Seq2Seq else {}
    backbone = bert4x.build_transformer_model(config, **options)
    backbone.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(VOCAB)})
    if cls in (TextClassification, TokenClassification, ReadingComprehension):
        settings = settings | {"dropout": 0.0}
    return cls(backbone, maxlen=32, **settings)


def updates(model, loss, batches, joined):
    """The update of each variable by the gradient alone, from the joined batch and from its parts; and both losses."""
    before, found, losses = [ops.convert_to_numpy(v) for v in model.trainable_variables], [], []
    for several in ([joined], batches):
        for variable, value in zip(model.trainable_variables, before, strict=True):
            variable.assign(value)
        trainer = Trainer(model, loss, keras.optimizers.SGD(1.0), gathers=len(several) > 1)
        losses.append(float(trainer.learn(several, 1.0)))
        after = [ops.convert_to_numpy(v) for v in model.trainable_variables]
        found.append(np.concatenate([(a - b).ravel() for a, b in zip(after, before, strict=True)]))
    return found, losses


@pytest.mark.parametrize("name", TASKS)
def test_parts_have_the_gradient_of_the_whole(name):
    cls, settings, rows = TASKS[name]
    task = make(cls, settings)
    examples = task.prepare(rows)
    assert len(examples) == len(rows)

    def batch(part):
        longest = max(example.length for example in examples[part])
        return task.batch(examples[part], 8 * -(-longest // 8), np.random.default_rng(0))

    (whole, parts), losses = updates(task.model, task.loss, [batch(part) for part in PARTS], batch(slice(None)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-4 * np.abs(whole).max())
    assert np.abs(whole).max() > 1e-3


def test_a_loss_of_several_means():
    """Means over two kinds of places, and one over rows, in one loss; and a part in which nothing counts."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(5, 6, 4)).astype("float32")
    one, two = draw.integers(0, 3, (2, 5, 6))
    one[:2, 1:], one[2:, 3:], two[0], two[1:, :4] = -1, -1, -1, -1
    binary = (draw.random((5, 3)) > 0.5).astype("float32")
    inputs = keras.Input((6, 4))
    model = keras.Model([inputs], keras.layers.Dense(3)(inputs))

    def loss(outputs, targets):
        tokens = masked_crossentropy(targets[0], outputs) + 2 * masked_crossentropy(targets[1], outputs)
        return ops.mean(tokens) + ops.mean(multilabel_categorical_crossentropy(targets[2], outputs[:, 0]))

    def batch(part):
        return [x[part]], (one[part], two[part], binary[part])

    (whole, parts), losses = updates(model, loss, [batch(part) for part in PARTS], batch(slice(None)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)
