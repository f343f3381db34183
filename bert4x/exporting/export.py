"""`export`: a model into a folder from which other runtimes run it, compared with what Keras computes."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras

from bert4x.checkpoints.convert import place_to_stage
from bert4x.checkpoints.staging import staging_folder
from bert4x.checkpoints.task_file import FILE
from bert4x.checkpoints.write import write_config, write_json
from bert4x.errors import ConversionError
from bert4x.exporting.decoder import graphs_of
from bert4x.exporting.forward import Exportable, Forward, application_of, difference, open_source
from bert4x.exporting.readme import readme
from bert4x.exporting.targets import check, check_weights, write
from bert4x.runtimes.exported import describe
from bert4x.runtimes.sessions import Arrays, Run, runner, shortened

# The largest difference allowed, as a share of the largest output (or of 1, if all are smaller).
TOLERANCES = {None: 1e-4, "float16": 0.02, "int8": 0.5}
LOW_PRECISION = 0.05  # of a model that computes in two bytes a number, which fuses differently when compiled


@dataclass(frozen=True)
class Export:
    """A folder that was written. Shapes have None for any size; differences are from what Keras computes."""

    folder: Path
    to: str
    quantize: str | None
    inputs: Mapping[str, tuple]
    outputs: Mapping[str, tuple]
    differences: Mapping[str, float]  # the largest
    scales: Mapping[str, float]  # the largest value of each output


def export(
    source,
    destination: str | os.PathLike,
    to: str = "onnx",
    application: str | None = None,
    *,
    quantize: str | None = None,
    padding_mask: bool | None = None,
    tolerance: float | None = None,
    cache: bool = True,
    **options,
) -> Export:
    """Writes a model for ONNX Runtime ("onnx"), OpenVINO ("openvino") or TensorFlow alone ("savedmodel") into a new
    folder, with its vocabulary, its config and a README.md that says how to run it; batch and length may be any.

    What was written is run by its runtime on batches of several shapes, with padding, and compared with the Keras
    model. If it fails or differs too much, nothing is left. TensorFlow has to be the backend.

    Args:
        source: what `bert4x.load` gives or takes, a Keras model over such a one, or a trained task or its folder.
        application: of `bert4x.load`, for a path; or "mlm", "nsp", "pooled": an encoder with this head.
        quantize: "int8" of onnx (matrices, and by batch what they multiply), "float16" of openvino (weights only).
        padding_mask: whether the mask is an input, 1 for real tokens. By default only if no id is padding and later
            tokens are seen; else padding is told by its id.
        tolerance: the largest difference allowed, as a share of the largest output. Default: 1e-4; 0.5 with "int8",
            0.02 with "float16".
        cache: of a language model, also a second graph, "decoder", by which `generate` works without Keras; it has
            the weights once more.
        options: of `bert4x.load`, for a path.

    Raises: ConversionError, MissingRuntimeError; the errors of `bert4x.load`.
    """
    check(to, quantize)
    check_backend()
    target = new_folder(destination)
    place = place_to_stage(target)
    opened = open_source(source, application, **options)
    forward = Forward(opened, needs_mask(opened) if padding_mask is None else padding_mask)
    forward.tables()  # raises for a model that is not of bert4x, before anything is computed
    parts = {"model": forward} | other_parts(opened, cache)
    check_weights(to, forward)
    allowed = tolerance_of(forward, quantize, tolerance)

    with staging_folder(place, target.name) as staging:
        folder = staging / "export"
        folder.mkdir()
        done = {name: write_part(to, name, part, folder, quantize, allowed) for name, part in parts.items()}
        shapes = {name: tuple(spec.shape) for name, spec in forward.signature().items()}
        result = Export(target, to, quantize, shapes, *done["model"])
        add_companions(folder, opened, forward, result, writes="decoder" in parts)
        graphs = {name: (parts[name].all_inputs, outputs) for name, (outputs, *_) in done.items()}
        describe(folder, to, quantize, application_of(opened), graphs)
        move(folder, target)
    return result


def new_folder(destination: str | os.PathLike) -> Path:
    """The folder to write. Raises: ConversionError for a file, and for a folder that has something in it."""
    target = Path(destination).expanduser()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ConversionError(f"{target} is there already; choose a new or an empty folder, or delete it")
    return target


def move(folder: Path, target: Path) -> None:
    """Moves a folder to its place. A target that is there is an empty folder, perhaps a link or a mount: it stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        os.replace(folder, target)
        return
    for path in folder.iterdir():
        os.replace(path, target / path.name)


def check_backend() -> None:
    """Raises: ConversionError unless TensorFlow runs the model: what the others would have to write, they cannot with a
    batch and length of any size."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ConversionError(
            f"exports are written by TensorFlow, and the backend is {backend}. Set KERAS_BACKEND=tensorflow before "
            "keras is imported, or save the model and run `bert4x export FOLDER`, which does so by itself"
        )


def needs_mask(source: Exportable) -> bool:
    """Whether only a mask can tell padding, and it matters."""
    builder = getattr(source.model, "builder", None)
    return builder is not None and builder.application != "lm" and source.config.pad_token_id is None


def tolerance_of(forward: Forward, quantize: str | None, given: float | None) -> float:
    """The largest difference allowed, as a share of the largest output. Raises: ConversionError for NaN."""
    if given is not None:
        if math.isnan(given):
            raise ConversionError(f"tolerance = {given!r}; expected a share of the largest output, such as 1e-4")
        return given
    lowest = 0 if forward.dtypes == {"float32"} else LOW_PRECISION
    return max(lowest, TOLERANCES[quantize])


def other_parts(source: Exportable, cache: bool) -> dict[str, Forward]:
    """What else is exported beside the model, each in a graph of its own."""
    parts = {} if source.task is None else source.task.parts_to_export()
    found = {
        name: Forward(Exportable(model, outputs, None, None), padding_mask=False)
        for name, (model, outputs) in parts.items()
    }
    return found | (graphs_of(source) if cache else {})


def write_part(
    to: str, name: str, part: Forward, folder: Path, quantize: str | None, allowed: float
) -> tuple[dict, dict, dict]:
    """Writes one graph and compares what it computes with Keras: the shapes of its outputs, how much each differs at
    most, and its largest value.
    """
    samples = list(part.samples())
    expected = [part.run(inputs) for inputs in samples]
    return output_shapes(expected), *compare(written(to, name, part, folder, quantize), samples, expected, allowed, to)


def written(to: str, name: str, part: Forward, folder: Path, quantize: str | None) -> Run:
    """Writes a file, and what runs it. Raises: ConversionError for what a converter or runtime refuses."""
    try:
        return runner(to, write(to, part, folder, name, quantize))
    except Exception as error:  # each has errors of its own
        raise ConversionError(f"this model cannot be exported to {to}: {shortened(error)}") from error


def compare(run: Run, samples: list[Arrays], expected: list[Arrays], allowed: float, to: str) -> tuple[dict, dict]:
    """The largest difference of each output over all samples, and its largest value.

    Raises: ConversionError
    """
    differences, scales = (dict.fromkeys(expected[0], 0.0) for _ in range(2))
    for inputs, right in zip(samples, expected, strict=True):
        first = "token_ids" if "token_ids" in inputs else next(iter(inputs))
        what = f"{first.replace('_', ' ')} {inputs[first].shape}"
        try:
            found = run(inputs)
        except Exception as error:
            raise ConversionError(f"{to} fails on {what}: {shortened(error)}") from error
        if missing := right.keys() - found.keys():
            raise ConversionError(f"the export lacks {sorted(missing)}; it has {sorted(found)}")
        for name, values in right.items():
            apart, scale = difference(values, found[name])
            if apart > allowed * max(1.0, scale):
                raise ConversionError(
                    f"{to} differs from Keras by {apart:.3g} in {name} on {what}; its values go up to "
                    f"{scale:.3g}, and {allowed:g} of that was allowed. Nothing was written; see tolerance"
                )
            differences[name], scales[name] = max(differences[name], apart), max(scales[name], scale)
    return differences, scales


def output_shapes(expected: list[Arrays]) -> dict[str, tuple]:
    """The shapes of outputs: None where they are not always the same."""
    shapes = {name: list(zip(*(arrays[name].shape for arrays in expected), strict=True)) for name in expected[0]}
    return {name: tuple(s[0] if len(set(s)) == 1 else None for s in sizes) for name, sizes in shapes.items()}


def add_companions(folder: Path, source: Exportable, forward: Forward, result: Export, writes: bool) -> None:
    """Writes what belongs to a model: vocabulary, config, the task's settings, README.md. `writes`: it can generate."""
    if source.tokenizer is not None:
        source.tokenizer.save(folder)
    if source.config is not None:
        write_config(folder, "bert4x", source.config, {})
    if source.task is not None:
        settings = {name: getattr(source.task, name) for name in ("maxlen", *source.task.settings)}
        write_json(folder / FILE, {"task": source.task.name, "settings": settings})
    (folder / "README.md").write_text(readme(source, forward.signature(), result, writes), "utf-8")
