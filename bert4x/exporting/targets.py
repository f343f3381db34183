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


def check_weights(to: str, forward: Forward) -> None:
    """Raises: ConversionError for weights that do not fit into one file, or that a runtime has no operations for."""
    if to == "savedmodel":
        return
    if others := forward.dtypes - {"float32"}:
        raise ConversionError(
            f"this model holds or computes in {', '.join(sorted(others))}; for {to} load it with dtype='float32' and "
            "without quantize, and let the export quantize; or export to savedmodel"
        )
    size = 4 * forward.count_params()
    if to == "onnx" and size > LARGEST_ONNX:
        raise ConversionError(f"{size / 1e9:.1f} GB of weights; an ONNX file holds 2 GB. Export to savedmodel instead")


def write(to: str, forward: Forward, folder: Path, quantize: str | None) -> Path:
    """Writes the model into a folder, by Keras' own export; the path of its file."""
    file = folder / FILES[to]
    first = folder / f"first-{file.name}"
    options = {"opset_version": OPSET} if to == "onnx" else {}
    signature = [forward.signature()]
    with quiet():
        forward.export(str(first), format=KERAS_FORMATS[to], input_signature=signature, verbose=False, **options)
        if to == "onnx":
            finish_onnx(first, file, quantize)
        elif to == "openvino":
            finish_openvino(first, file, sorted(forward.output_keys), quantize)
        else:
            first.rename(file)
    for part in folder.glob("first-*"):
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


def finish_onnx(first: Path, file: Path, quantize: str | None) -> None:
    """Calls the axes of inputs what they are, instead of unk__509; with int8, replaces each matrix by one of int8 with
    a scale for each output, and what it multiplies is quantized as it comes."""
    import onnx

    model = onnx.load(first)
    for value in model.graph.input:
        length = "target_length" if value.name == "target_ids" else "length"
        for axis, name in zip(value.type.tensor_type.shape.dim, ("batch", length), strict=False):
            if axis.dim_param:
                axis.dim_param = name
    onnx.save(model, first if quantize else file)
    if quantize:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(first, file, per_channel=True, weight_type=QuantType.QInt8)


def finish_openvino(first: Path, file: Path, outputs: list[str], quantize: str | None) -> None:
    """Names the outputs, which comes to nothing where the converter finds operations to leave out; with float16, stores
    the weights in it, and computes as before."""
    import openvino

    model = openvino.Core().read_model(first)
    for output, name in zip(model.outputs, outputs, strict=True):  # TensorFlow flattens a dict in order of its keys
        output.tensor.set_names({name})
    openvino.save_model(model, file, compress_to_fp16=quantize == "float16")


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
