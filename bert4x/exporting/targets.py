"""The formats to export to: how each is written and run."""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras

from bert4x.errors import ConversionError, nearest
from bert4x.exporting.forward import Forward
from bert4x.runtimes.sessions import ENDINGS, MissingRuntimeError

PACKAGES = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",), "savedmodel": ()}
QUANTIZATIONS = {"onnx": ("int8",), "openvino": ("float16",), "savedmodel": ()}
OPSET = 17
LARGEST_ONNX = 2**31 - 2**20  # bytes; protobuf's limit for one file


def check(to: str, quantize: str | None) -> None:
    """Raises: ConversionError for what there is not, MissingRuntimeError for what is not installed."""
    if to not in ENDINGS:
        raise ConversionError(f"no export to {to!r}; {nearest(str(to), ENDINGS)}")
    if quantize is not None and quantize not in QUANTIZATIONS[to]:
        valid = ", ".join(f"{q} of {t}" for t, some in QUANTIZATIONS.items() for q in some)
        raise ConversionError(f"no {quantize!r} of {to}; there is {valid}")
    missing = [name for name in PACKAGES[to] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingRuntimeError(f"{to} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def check_weights(to: str, forward: Forward) -> None:
    """Raises: ConversionError for weights that do not fit into one file, or that a runtime has no operations for."""
    if to == "savedmodel":
        return
    if others := forward.dtypes - {"float32"}:
        raise ConversionError(
            f"this model holds or computes in {', '.join(sorted(others))}; for {to} load it with dtype='float32' and "
            "without quantize, and let the export quantize; or export to savedmodel"
        )
    size = 4 * forward.model.count_params()
    if to == "onnx" and size > LARGEST_ONNX:
        raise ConversionError(f"{size / 1e9:.1f} GB of weights; an ONNX file holds 2 GB. Export to savedmodel instead")


def write(to: str, forward: Forward, folder: Path, name: str, quantize: str | None) -> Path:
    """Writes a graph of this name into a folder, by Keras' own export; the path of its file."""
    file = folder / f"{name}{ENDINGS[to]}"
    first = folder / f"first-{file.name}"
    given = {"input_signature": [forward.signature()], "verbose": False}
    with quiet():
        if to == "onnx":
            with sound_tf2onnx():
                forward.export(str(first), format="onnx", opset_version=OPSET, **given)
            finish_onnx(first, file, forward.axes(), quantize)
        elif to == "openvino":
            forward.export(str(first), format="openvino", **given)
            finish_openvino(first, file, sorted(forward.output_keys), quantize)
        else:
            write_savedmodel(forward, file)
    for part in folder.glob("first-*"):
        part.unlink()
    return file


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the converters' warnings, and without OpenVINO's reports to its makers, which it leaves out in CI: users
    of bert4x were not asked.
    """
    with environment(CI="true"):
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


@contextlib.contextmanager
def environment(**wanted: str) -> Iterator[None]:
    """Variables of the environment, for as long as the block runs."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def sound_tf2onnx() -> Iterator[None]:
    """tf2onnx without its passes over the graph but one: ONNX Runtime has its own. In tf2onnx 1.17 the one that merges
    reshapes breaks models (of 12 heads, for instance), and each copies all weights: BERT-base took more than 17 GB.
    """
    from tf2onnx import optimizer

    passes = optimizer._get_optimizers()
    before = dict(passes)
    for name in before.keys() - {"remove_identity"}:  # which hides from quantization what is constant
        passes.pop(name)
    try:
        with environment(TF2ONNX_CATCH_ERRORS="FALSE"):
            yield
    finally:
        passes.clear()
        passes.update(before)


def write_savedmodel(forward: Forward, folder: Path) -> None:
    """What `forward.export` writes, but for a second copy of all weights: it tracks Keras' variables beside
    TensorFlow's in them."""
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", lambda inputs: forward(inputs), [forward.signature()])
    archive.write_out(str(folder), verbose=False)


def finish_onnx(first: Path, file: Path, axes: dict[str, tuple[str, ...]], quantize: str | None) -> None:
    """Calls the axes of inputs what they are, instead of unk__509; with int8, replaces each matrix by one of int8 with
    a scale for each output, and what it multiplies is quantized as it comes."""
    import onnx

    model = onnx.load(first)
    for value in model.graph.input:
        for axis, name in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=False):
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
