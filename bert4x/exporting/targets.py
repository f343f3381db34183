"""The formats to export to: how each is written and run."""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from bert4x.errors import Bert4xError, ConversionError, nearest
from bert4x.exporting.forward import Arrays, Forward

FILES = {"onnx": "model.onnx", "openvino": "model.xml", "savedmodel": "model"}
KERAS_FORMATS = {"onnx": "onnx", "openvino": "openvino", "savedmodel": "tf_saved_model"}
PACKAGES = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",), "savedmodel": ()}
QUANTIZATIONS = {"onnx": ("int8",), "openvino": ("float16",), "savedmodel": ()}
OPSET = 17
LARGEST_ONNX = 2**31 - 2**20  # bytes; protobuf's limit for one file

Run = Callable[[Arrays], Arrays]


class MissingRuntimeError(Bert4xError, ImportError):
    """An export needs a package that is not installed."""


def check(to: str, quantize: str | None) -> None:
    """Raises: ConversionError for what there is not, MissingRuntimeError for what is not installed."""
    if to not in FILES:
        raise ConversionError(f"no export to {to!r}; {nearest(str(to), FILES)}")
    if quantize is not None and quantize not in QUANTIZATIONS[to]:
        valid = ", ".join(f"{q} of {t}" for t, some in QUANTIZATIONS.items() for q in some)
        raise ConversionError(f"no {quantize!r} of {to}; there is {valid}")
    missing = [name for name in PACKAGES[to] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingRuntimeError(f'{to} needs {" and ".join(missing)}: pip install "bert4x[export]"')


def check_size(to: str, forward: Forward) -> None:
    """Raises: ConversionError for weights that do not fit into one ONNX file."""
    size = 4 * forward.count_params()
    if to == "onnx" and size > LARGEST_ONNX:
        raise ConversionError(f"{size / 1e9:.1f} GB of weights; an ONNX file holds 2 GB. Export to savedmodel instead")


def write(to: str, forward: Forward, folder: Path, quantize: str | None) -> Path:
    """Writes the model into a folder, by Keras' own export; the path of its file."""
    file = folder / FILES[to]
    whole = folder / f"whole-{file.name}" if quantize else file
    options = {"opset_version": OPSET} if to == "onnx" else {}
    with quiet():
        forward.export(
            str(whole), format=KERAS_FORMATS[to], input_signature=[forward.signature()], verbose=False, **options
        )
        if to == "onnx":
            name_axes(whole)
        if quantize:
            {"int8": quantize_onnx, "float16": halve_openvino}[quantize](whole, file)
            for part in folder.glob("whole-*"):
                part.unlink()
    return file


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the converters' warnings, and without OpenVINO's reports to its makers, which it does not send from CI:
    users of bert4x were not asked.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        os.environ.pop("CI") if before is None else os.environ.update(CI=before)


def name_axes(file: Path) -> None:
    """Calls the axes of an ONNX model's inputs what they are, instead of unk__509."""
    import onnx

    model = onnx.load(file)
    for value in model.graph.input:
        axes = value.type.tensor_type.shape.dim
        for axis, name in zip(
            axes, ("batch", "target_length" if value.name == "target_ids" else "length"), strict=False
        ):
            if axis.dim_param:
                axis.dim_param = name
    for value in model.graph.output:
        for axis in value.type.tensor_type.shape.dim[:1]:
            axis.dim_param = axis.dim_param and "batch"
    onnx.save(model, file)


def quantize_onnx(whole: Path, file: Path) -> None:
    """Matrices as int8, with a scale for each output; what they multiply is quantized as it comes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(whole, file, per_channel=True, weight_type=QuantType.QInt8)


def halve_openvino(whole: Path, file: Path) -> None:
    """Weights as float16, computed with as before."""
    import openvino

    openvino.save_model(openvino.Core().read_model(whole), file, compress_to_fp16=True)


def runner(to: str, file: Path) -> Run:
    """What runs an exported file on the CPU, in float32."""
    return {"onnx": run_onnx, "openvino": run_openvino, "savedmodel": run_savedmodel}[to](file)


def run_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def run_openvino(file: Path) -> Run:
    import openvino

    # Where the processor has bfloat16, OpenVINO computes in it unless told otherwise.
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs):
        found = compiled(inputs)
        return {output.any_name: found[output] for output in compiled.outputs}

    return run


def run_savedmodel(file: Path) -> Run:
    import tensorflow as tf

    model = tf.saved_model.load(str(file))
    return lambda inputs: {name: values.numpy() for name, values in model.serve(inputs).items()}
