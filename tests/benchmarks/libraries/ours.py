"""bert4x, on the backend of Keras."""

import keras
import numpy as np

import bert4x
from bert4x.training.trainer import Trainer
from tests.benchmarks.libraries import CLIP, DECAY, EPSILON, LABELS, RATE, Setup, compiled, head


def call(model: keras.Model, form: str):
    """The model as one compiled function from NumPy to NumPy; PyTorch runs it as it is."""
    run = compiled(lambda *inputs: model(list(inputs), training=False), model, form)

    def encode(*inputs: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(run(*inputs)).astype("float32", copy=False)

    return encode


def encoder(setup: Setup):
    """The form "scores" holds those of attention, where by default PyTorch's own attention does not."""
    options = {"flash_attention": False} if setup.form == "scores" else {}
    return call(bert4x.load(setup.folder, dtype=setup.dtype, **options), setup.form)


def classifier(setup: Setup):
    from bert4x.tasks.text_classification import TextClassification

    rates = {"dropout_rate": setup.dropout, "attention_dropout_rate": setup.dropout}
    keras.utils.set_random_seed(0)
    model = bert4x.load(setup.folder, dtype=setup.dtype, **rates)
    task = TextClassification(model, [str(i) for i in range(LABELS)], dropout=setup.dropout)
    for variable, value in zip(task.head.values(), head(model.config.hidden_size), strict=True):
        variable.assign(value)
    optimizer = task.optimizer(RATE, weight_decay=DECAY, epsilon=EPSILON, global_clipnorm=CLIP)
    trainer = Trainer(task.model, task.loss, optimizer)

    def learn(ids: np.ndarray, segments: np.ndarray, labels: np.ndarray) -> float:
        return float(trainer.learn([([ids, segments], (labels,))], RATE))

    return call(task.model, setup.form), learn
