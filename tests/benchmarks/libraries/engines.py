"""What only infers, by `bert4x export`: OpenVINO, ONNX Runtime in float32 and int8, and TensorFlow alone."""

import fcntl
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.benchmarks.libraries import Setup


def exported(setup: Setup, to: str) -> Path:
    """The engine's file, written once, by another process: this one's memory is to be the engine's."""
    folder = Path(setup.folder)
    name = f"{to}-int8" if setup.dtype == "int8" else to
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name).exists():
            command = [sys.executable, "-m", "bert4x", "export", str(folder), str(folder / name), "--to", to]
            command += ["--quantize", "int8", "--tolerance", "1"] if setup.dtype == "int8" else []
            subprocess.run(command, check=True, stdout=sys.stderr)
    # As bert4x.exporting has them, which would bring Keras into this process.
    return folder / name / {"onnx": "model.onnx", "openvino": "model.xml", "savedmodel": "model"}[to]


def openvino_encoder(setup: Setup):
    import openvino

    precision = {"float32": "f32", "bfloat16": "bf16"}[setup.dtype]
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(exported(setup, "openvino"), "CPU", options)

    def encode(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        return np.array(model({"token_ids": ids, "segment_ids": segments})[0])

    return encode


def onnxruntime_encoder(setup: Setup):
    import onnxruntime

    path = exported(setup, "onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}

    def encode(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        inputs = {"token_ids": ids, "segment_ids": segments}
        return session.run(None, {name: array for name, array in inputs.items() if name in names})[0]

    return encode


def savedmodel_encoder(setup: Setup):
    import tensorflow as tf

    model = tf.saved_model.load(str(exported(setup, "savedmodel")))

    def encode(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        (found,) = model.serve({"token_ids": tf.constant(ids), "segment_ids": tf.constant(segments)}).values()
        return found.numpy()

    return encode
