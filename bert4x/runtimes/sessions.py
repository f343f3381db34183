"""What runs an exported file: of each format, a function from named arrays to named arrays."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bert4x.errors import Bert4xError, CorruptFileError

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "savedmodel": "tensorflow"}  # that run a format
ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "savedmodel": ""}


class MissingRuntimeError(Bert4xError, ImportError):
    """An export needs a package that is not installed."""


def runner(to: str, file: Path) -> Run:
    """What runs an exported file on the CPU, in float32; several threads may call it at once.

    Raises: MissingRuntimeError; CorruptFileError for a file that the runtime cannot read.
    """
    package = PACKAGES[to]
    if importlib.util.find_spec(package) is None:
        raise MissingRuntimeError(
            f'{file} is run by {package}, which is not installed: pip install {package}, or "bert4x[export]"'
        )
    if not file.exists():
        raise CorruptFileError(f"{file} does not exist, though export.json beside it speaks of it; export again")
    try:
        return {"onnx": run_onnx, "openvino": run_openvino, "savedmodel": run_savedmodel}[to](file)
    except Exception as error:  # each has errors of its own
        raise CorruptFileError(f"{package} cannot read {file}: {shortened(error)}") from error


def shortened(error: Exception, most: int = 600) -> str:
    """An error of a converter or runtime in one line; some repeat the whole graph."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= most else f"{text[:most]} ..."


def run_onnx(file: Path) -> Run:
    """A function that runs a file by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of constants that int8 leaves behind
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def run_openvino(file: Path) -> Run:
    """A function that runs a file by OpenVINO."""
    import openvino

    # Where the processor has bfloat16, OpenVINO computes in it unless told otherwise.
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs):
        found = compiled.create_infer_request().infer(inputs)  # one for each call: threads cannot share one
        return {output.any_name: found[output] for output in compiled.outputs}

    return run


def run_savedmodel(file: Path) -> Run:
    """A function that runs a SavedModel by TensorFlow."""
    import tensorflow as tf

    model = tf.saved_model.load(str(file))
    return lambda inputs: {name: values.numpy() for name, values in model.serve(inputs).items()}
