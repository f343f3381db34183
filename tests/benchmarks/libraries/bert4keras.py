"""bert4keras 0.11.5 on tf_keras, the Keras 2 that goes on with TensorFlow."""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = os.environ["TF_KERAS"] = "1"

import numpy as np
import tf_keras

# It asks for Keras by the name that Keras 3 has now.
sys.modules["keras"] = tf_keras
for part in ("backend", "models", "layers", "optimizers", "callbacks", "utils", "initializers", "activations"):
    sys.modules[f"keras.{part}"] = getattr(tf_keras, part)

from bert4keras.backend import set_gelu  # noqa: E402
from bert4keras.models import build_transformer_model  # noqa: E402

from tests.benchmarks.libraries import CLIP, DECAY, EPSILON, LABELS, PLAIN, RATE, Setup, head  # noqa: E402

set_gelu("tanh")


def load(setup: Setup, **options):
    tf_keras.mixed_precision.set_global_policy(setup.dtype)
    folder = f"{setup.folder}/tf1"
    rates = {"dropout_rate": setup.dropout, "attention_dropout_rate": setup.dropout}
    return build_transformer_model(
        f"{folder}/bert_config.json", f"{folder}/bert_model.ckpt", hidden_act="gelu", **rates | options
    )


def call(model, form: str):
    import tensorflow as tf

    run = tf.function(lambda *inputs: model(list(inputs), training=False), jit_compile=form == "XLA")

    def encode(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        return run(tf.constant(ids), tf.constant(segments)).numpy().astype("float32", copy=False)

    return encode


def encoder(setup: Setup):
    return call(load(setup), setup.form)


def classifier(setup: Setup):
    tf_keras.utils.set_random_seed(0)
    bert = load(setup)
    first = tf_keras.layers.Lambda(lambda x: x[:, 0], dtype="float32")(bert.output)
    first = tf_keras.layers.Dropout(setup.dropout, dtype="float32")(first)
    dense = tf_keras.layers.Dense(LABELS, dtype="float32")
    model = tf_keras.Model(bert.inputs, dense(first))
    dense.set_weights(head(bert.output_shape[-1]))
    optimizer = tf_keras.optimizers.AdamW(RATE, weight_decay=DECAY, epsilon=EPSILON, global_clipnorm=CLIP)
    optimizer.exclude_from_weight_decay(var_names=list(PLAIN))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=setup.form == "XLA")

    def learn(ids: np.ndarray, segments: np.ndarray, labels: np.ndarray) -> float:
        return float(model.train_on_batch([ids, segments], labels))

    return call(model, setup.form), learn
