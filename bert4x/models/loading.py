"""A model's variables filled from an opened checkpoint."""

import warnings

from bert4x import devices
from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.weights import Weights
from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError
from bert4x.families import family_name, family_of
from bert4x.layers import weights_from


def fill(builder, checkpoint: Checkpoint, strict: bool = True):
    """Builds the model of a builder from a checkpoint; what is built already (layers of another model, too) takes its
    values.

    Raises: ConfigError, TensorMismatchError.
    """
    from bert4x.training.lora import clear_adapters

    check_family(checkpoint, family_name(type(builder)))
    leave_segments_out(builder.config, checkpoint)
    if strict and not builder.loading.get("ignore_invalid_weights"):
        checkpoint.report.raise_for_problems(checkpoint.files.path)
    checkpoint.check_tied()
    loading = builder.loading | {"prefix": builder.prefix}
    weights = Weights(checkpoint, builder.config, loading, builder.is_new)
    existing = {id(v): v for layer in builder.layers.values() for v in layer.variables}
    if any(v.dtype == "int8" for v in existing.values()):
        raise ConfigError("int8 weights cannot be overwritten; build another model with quantize='int8'")
    if builder.model is None:
        with weights_from(weights):
            builder.build()
    found = [(v, initial(v, weights)) for v in builder.model.variables if id(v) in existing]
    weights.settle(strict)
    for variable, values in found:
        if values is not None:
            variable.assign(values)
    clear_adapters(builder.model)  # they belonged to other matrices
    if not weights.loaded:
        raise ConfigError(f"nothing of {checkpoint.files.path} fits this model: {builder.config}")
    builder.model.load_report = checkpoint.report
    return builder


def leave_segments_out(config: TransformerConfig, checkpoint: Checkpoint) -> None:
    """With `segment_vocab_size=0` a file may lack the embeddings of segments; warns of those that it has."""
    path = "Embedding-Segment/embeddings"
    if config.segment_vocab_size or not checkpoint.config.segment_vocab_size:
        return
    name, report = checkpoint.table_name(path), checkpoint.report
    report.missing = [line for line in report.missing if not line.startswith(f"{name}: ")]
    if path in checkpoint.entries:
        warnings.warn(
            f"segment_vocab_size=0 leaves out {name}, which {checkpoint.files.path} has: what it adds to each token is "
            "missing in the outputs",
            stacklevel=2,
        )


def initial(variable, weights: Weights):
    """The values of a variable that is there already, or None; divided over devices as the variable is."""
    path, shape = variable.path, tuple(variable.shape)
    if not devices.divided():
        return weights(path, shape)
    read = weights.parts(path, shape)
    return None if read is None else devices.place(path, shape, variable.dtype, read)


def check_family(checkpoint: Checkpoint, asked: str) -> None:
    """Raises: ConfigError when a checkpoint of one family is asked to be another."""
    found = checkpoint.config.model
    if found not in (asked, family_of(asked).written_as):
        raise ConfigError(f"{checkpoint.files.path} is a {found} checkpoint; it cannot be loaded as model={asked!r}")
