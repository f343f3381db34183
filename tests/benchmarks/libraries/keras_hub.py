"""keras-hub, on the backend of Keras; its compiled calls are bare ones, without what `predict` adds."""

import keras
import numpy as np
from keras_hub.models import BertBackbone

from tests.benchmarks.libraries import CLIP, DECAY, EPSILON, LABELS, PLAIN, RATE, Setup, compiled, head


def backbone_of(setup: Setup) -> BertBackbone:
    return BertBackbone.from_preset(setup.folder, dtype=setup.dtype, dropout=setup.dropout)


def inputs_of(ids, segments) -> dict:
    return {"token_ids": ids, "segment_ids": segments, "padding_mask": (ids != 0).astype("int32")}


def call(model: keras.Model, form: str, output=lambda x: x):
    run = compiled(lambda inputs: output(model(inputs, training=False)), model, form)

    def encode(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(run(inputs_of(ids, segments))).astype("float32", copy=False)

    return encode


def encoder(setup: Setup):
    return call(backbone_of(setup), setup.form, lambda outputs: outputs["sequence_output"])


def classifier(setup: Setup):
    keras.utils.set_random_seed(0)
    backbone = backbone_of(setup)
    first = keras.layers.Dropout(setup.dropout, dtype="float32")(backbone.output["sequence_output"][:, 0])
    dense = keras.layers.Dense(LABELS, dtype="float32")
    model = keras.Model(backbone.input, dense(first))
    for variable, value in zip(dense.weights, head(backbone.hidden_dim), strict=True):
        variable.assign(value)
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=DECAY, epsilon=EPSILON, global_clipnorm=CLIP)
    optimizer.exclude_from_weight_decay(var_names=list(PLAIN))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=setup.form == "XLA" or keras.backend.backend() == "jax")

    def learn(ids: np.ndarray, segments: np.ndarray, labels: np.ndarray) -> float:
        return float(model.train_on_batch(inputs_of(ids, segments), labels))

    return call(model, setup.form), learn
