"""What happens around a script of bert4keras' that tests/bert4keras_scripts.py runs: order, first weights, records."""

import atexit
import importlib.util
import json
import os
import runpy
import sys
import types
import zlib
from pathlib import Path

import numpy as np

NAMED = (
    "Embedding-",
    "Transformer-",
    "Input-",
    "MLM-",
    "LM-",
    "NSP-",
    "Pooler",
    "Output-",
    "Attention-",
    "Encoder-",
    "Decoder-",
)
GRAPHS = ("adversarial", "gradient", "web_serving")  # scripts that need the graphs of TensorFlow 1
PREFIXES = ("Predecessor-", "Successor-")


def run(script: str, results: Path, original: bool) -> None:
    """Runs the script as the main program."""
    if original:
        use_tf_keras(graphs=any(part in script for part in GRAPHS))
    replace_missing_modules()
    np.random.seed(0)
    record(results, original)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")


def use_tf_keras(graphs: bool) -> None:
    """Keras 2, under both of its names, with the optimizers that bert4keras extends."""
    import tensorflow as tf
    import tf_keras

    if graphs:
        tf.compat.v1.disable_eager_execution()
    tf_keras.optimizers.Optimizer = tf_keras.optimizers.legacy.Optimizer
    sys.path.insert(0, os.environ["BERT4KERAS_PATCHED"])
    sys.modules["keras"] = tf_keras
    for name in ("backend", "models", "layers", "optimizers", "initializers", "activations", "callbacks", "utils"):
        sys.modules[f"keras.{name}"] = getattr(tf_keras, name)


def replace_missing_modules() -> None:
    """Stands in for modules that scripts import and that are not installed."""

    def fake(name, **members):
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module

    def missing(name):
        return importlib.util.find_spec(name) is None

    if missing("cv2"):
        fake(
            "cv2",
            BORDER_CONSTANT=0,
            imread=lambda path: np.random.default_rng(zlib.crc32(Path(path).name.encode())).integers(
                0, 256, (32, 32, 3)
            ),
            resize=lambda image, size: image[: size[1], : size[0]],
            copyMakeBorder=lambda image, **options: image,
        )
    if missing("cchess"):
        fake("cchess", Move=object, ChessBoard=object)
    if missing("nltk"):
        fake("nltk")
        fake("nltk.translate")
        smoothing = types.SimpleNamespace(method1=None)
        fake("nltk.translate.bleu_score", sentence_bleu=lambda **options: 0.5, SmoothingFunction=lambda: smoothing)
    for name, members in {
        "pandas": {},
        "sympy": {"Integer": int},
        "rouge": {},
        "jieba_fast": {"initialize": lambda: None, "lcut": list},
    }.items():
        if missing(name):
            fake(name, **members)


def record(results: Path, original: bool) -> None:
    """Data in order, first weights by rule, and a record of losses and of what is predicted."""
    import keras

    found = {"losses": [], "predicted": []}
    atexit.register(lambda: results.write_text(json.dumps(found)))
    if original:
        from bert4keras.snippets import DataGenerator
    else:
        from bert4x.snippets import DataGenerator
    sample = DataGenerator.sample
    DataGenerator.sample = lambda self, random=False: sample(self, False)

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found["losses"].append(float(np.mean(logs["loss"])))

    model_class = keras.models.Model
    compile_, fit, predict = model_class.compile, model_class.fit, model_class.predict

    def compiled(self, *args, **options):
        first_weights(self, original)
        return compile_(self, *args, **options)

    def fitted(self, *args, callbacks=(), **options):
        np.random.seed(1)
        return fit(self, *args, callbacks=[Recorder(), *callbacks], **options)

    def predicted(self, inputs, *args, **options):
        outputs = predict(self, inputs, *args, **({"verbose": 0} | options))
        first = outputs[0] if isinstance(outputs, list) else outputs
        found["predicted"].append(float(np.sqrt(np.mean(first[np.isfinite(first)] ** 2))))
        return outputs

    model_class.compile, model_class.fit, model_class.predict = compiled, fitted, predicted
    image_model = keras.applications.mobilenet_v2.MobileNetV2
    keras.applications.mobilenet_v2.MobileNetV2 = lambda **options: image_model(**options, weights=None)


def layers_of(layer):
    """A layer and all in it."""
    yield layer
    for inner in getattr(layer, "layers", None) or []:
        if inner is not layer:
            yield from layers_of(inner)


def first_weights(model, original: bool) -> None:
    """Numbers that depend on the shape alone for every matrix that no checkpoint has; zeros and ones stay."""
    import keras

    for layer in layers_of(model):
        if getattr(layer, "layers", None):
            continue
        name = layer.name
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        weights = layer.weights
        if name.startswith(NAMED):
            weights = [weight for weight in weights if "hidden_dense" in getattr(weight, "path", weight.name)]
        for weight in weights:
            old = np.asarray(keras.backend.get_value(weight) if original else keras.ops.convert_to_numpy(weight))
            if old.ndim > 1 and np.any(old != old.flat[0]):
                generator = np.random.default_rng(zlib.crc32(repr(tuple(old.shape)).encode()))
                scale = 0.05 / getattr(layer, "lr_multiplier", 1)
                new = (scale * generator.standard_normal(old.shape)).astype("float32")
                keras.backend.set_value(weight, new) if original else weight.assign(new)
