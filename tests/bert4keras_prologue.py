"""What happens around a script of bert4keras' that tests/bert4keras_scripts.py runs: order, first weights, records."""

import contextlib
import importlib
import importlib.util
import json
import os
import runpy
import sys
import threading
import time
import traceback
import types
import urllib.error
import urllib.parse
import urllib.request
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
STEPS = 3  # of a call of fit at most
PREFIXES = ("Predecessor-", "Successor-")


def run(jobs: list[str], original: bool) -> None:
    """Runs scripts as the main program, one after the other; each writes result.json and log.txt beside itself."""
    if original:
        use_tf_keras(graphs=any(part in job for part in GRAPHS for job in jobs))
    found = record(original)
    for job in map(Path, jobs):
        found.update(losses=[], predicted=[])
        os.chdir(job.parent)
        sys.path.insert(0, str(job.parent))
        sys.argv = [job.name]
        replace_missing_modules(job.read_text(encoding="utf-8"))
        np.random.seed(0)
        if "load_tfrecord" in job.read_text(encoding="utf-8"):
            importlib.import_module("tensorflow").random.set_seed(0)  # of the order of records
        with (
            open("log.txt", "w", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            try:
                runpy.run_path(job.name, run_name="__main__")
            except Exception as error:
                traceback.print_exc()
                found["error"] = f"{type(error).__name__}: {error}"[:300]
        job.with_name("result.json").write_text(json.dumps(found))
        found.pop("error", None)
        sys.path.remove(str(job.parent))
        clean(original)


def clean(original: bool) -> None:
    """What a script has set for all models is taken back."""
    import keras

    keras.backend.clear_session()
    if original:
        from bert4keras.backend import set_gelu
    else:
        from bert4x.backend import set_gelu
    set_gelu("erf")


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


def replace_missing_modules(source: str) -> None:
    """Stands in for modules that a script imports and that are not installed."""

    def fake(name, **members):
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module

    def missing(name):
        return name in source and name not in sys.modules and importlib.util.find_spec(name) is None

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
        "pandas": {"Series": (), "DataFrame": ()},
        "sympy": {"Integer": int},
        "rouge": {},
        "jieba_fast": {"initialize": lambda: None, "lcut": list},
    }.items():
        if missing(name):
            fake(name, **members)


def record(original: bool) -> dict:
    """Data in order, first weights by rule, and a record of losses and of what is predicted."""
    import keras

    found = {"losses": [], "predicted": []}
    if original:
        from bert4keras.snippets import DataGenerator
    else:
        from bert4x.snippets import DataGenerator
    seed = np.random.seed
    np.random.seed = lambda value=None: seed(value or 0)  # processes of parallel_apply ask for an unforeseeable one
    sample = DataGenerator.sample
    DataGenerator.sample = lambda self, random=False: sample(self, False)

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found["losses"].append(float(np.mean(logs["loss"])))

    forfit = DataGenerator.forfit

    def tuples(self, random=True):
        """Keras 2 takes a list of inputs without targets for inputs, targets and weights."""
        for batch in forfit(self, random):
            yield tuple(tuple(x) if isinstance(x, list) and isinstance(x[0], np.ndarray) else x for x in batch)

    if original:
        DataGenerator.forfit = tuples
    model_class = model_class_of(original)
    compile_, fit, predict = model_class.compile, model_class.fit, model_class.predict

    def compiled(self, *args, **options):
        first_weights(self, original)
        return compile_(self, *args, **options)

    def fitted(self, *args, callbacks=(), steps_per_epoch=STEPS, **options):
        np.random.seed(1)
        options["steps_per_epoch"] = min(STEPS, steps_per_epoch)
        return fit(self, *args, callbacks=[Recorder(), *callbacks], **options)

    def predicted(self, inputs, *args, **options):
        outputs = predict(self, inputs, *args, **({"verbose": 0} | options))
        first = outputs[0] if isinstance(outputs, list) else outputs
        found["predicted"].append(digest(first))
        return outputs

    model_class.compile, model_class.fit, model_class.predict = compiled, fitted, predicted
    if not original:  # where bert4keras builds a Keras model
        from bert4x.generation.last_token import LastToken

        last = LastToken.predict

        def last_predicted(self, inputs):
            outputs = last(self, inputs)
            found["predicted"].append(digest(outputs))
            return outputs

        LastToken.predict = last_predicted
    image_model = keras.applications.mobilenet_v2.MobileNetV2
    keras.applications.mobilenet_v2.MobileNetV2 = lambda **options: image_model(**options, weights=None)
    serve_once(original)
    return found


def serve_once(original: bool) -> None:
    """A server that answers one request and goes on: bert4keras' own needs TensorFlow 1, and is asked as a function."""
    snippets = importlib.import_module("bert4keras.snippets" if original else "bert4x.snippets")
    if original:

        class WebServing:
            def __init__(self, **options):
                self.functions = {}

            def route(self, path, function, arguments, method="GET"):
                self.functions[path] = function

            def start(self):
                print([function("苹果多少钱一斤", 2, 1) for function in self.functions.values()])

        snippets.module.WebServing = WebServing
    elif hasattr(snippets, "WebServing"):
        start = snippets.WebServing.start

        def ask(self):
            threading.Thread(target=start, args=(self,), daemon=True).start()
            address = f"http://127.0.0.1:{self.port}/gen_synonyms?n=2&k=1&text=" + urllib.parse.quote("苹果多少钱一斤")
            for _ in range(50):
                try:
                    print(urllib.request.urlopen(address, timeout=60).read().decode())
                    return
                except ConnectionError as error:
                    last = error
                except urllib.error.URLError as error:
                    last = error
                time.sleep(0.1)
            raise last

        snippets.WebServing.start = ask


def digest(values) -> float:
    """The root mean square of what is finite, and no score of a span that cannot be: there -inf, here -6e4."""
    return float(np.sqrt(np.mean(values[np.isfinite(values) & (values != -6e4)] ** 2)))


def model_class_of(original: bool):
    """The class whose methods models have: in the graphs of TensorFlow 1 another one."""
    import keras

    if original:
        import tensorflow as tf
        from tf_keras.src.engine import training_v1

        return keras.models.Model if tf.executing_eagerly() else training_v1.Model
    return keras.models.Model


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
            weights = weights if name.endswith("-Norm") else []  # conditions of norms are new
        for weight in weights:
            old = np.asarray(keras.backend.get_value(weight) if original else keras.ops.convert_to_numpy(weight))
            if old.ndim > 1 and np.any(old != old.flat[0]):
                generator = np.random.default_rng(zlib.crc32(repr(tuple(old.shape)).encode()))
                scale = 0.05 / getattr(layer, "lr_multiplier", 1)
                new = (scale * generator.standard_normal(old.shape)).astype("float32")
                keras.backend.set_value(weight, new) if original else weight.assign(new)
