"""Weights by bert4keras' `variable_mapping`: layer -> names of variables in a TensorFlow checkpoint."""

import functools
import os
import warnings

import numpy as np

from bert4x import layers as L
from bert4x.errors import ConfigError, TensorMismatchError


def entries_of(builder) -> dict:
    """Name in the layout of bert4keras -> the rule that ties it to variables of ours.

    Raises: ConfigError for a family that was not published so.
    """
    from bert4x.checkpoints.tables import writer

    tables = [table for table in writer(builder.config.model).tables if table.format == "tf1"]
    if not tables:
        raise ConfigError(
            f"there is no TensorFlow layout of {builder.model_name}; write variable_mapping without super()"
        )
    return {entry.theirs: entry for entry in tables[-1].entries(builder.config.num_hidden_layers)}


def default_mapping(builder) -> dict[str, list[str]]:
    """See `Hooks.variable_mapping`."""
    from bert4x.checkpoints.tables import variables

    names = {path: name for name, entry in entries_of(builder).items() for path in entry.ours}
    found: dict[str, list[str]] = {}
    for path in sorted(variables(builder.config), key=lambda path: path.endswith("/gamma")):  # after beta
        name = names.get(builder.as_written(path))
        if name is not None:
            found.setdefault(path.split("/")[0], []).append(name)
    return found


def read_variable(builder, checkpoint, name: str) -> np.ndarray:
    """See `Hooks.load_variable`. Raises: TensorMismatchError"""
    from bert4x.checkpoints.weights import VOCABULARY_AXIS

    tensors = checkpoint if isinstance(checkpoint, dict) else opened(os.fspath(checkpoint))
    if name not in tensors:
        raise TensorMismatchError(
            f"no variable {name!r} in the checkpoint {checkpoint if tensors is not checkpoint else ''}"
        )
    values = np.asarray(tensors[name]) if tensors is checkpoint else tensors[name].read()
    entry = entries_of(builder).get(name)
    if entry is not None and entry.layout.transpose:
        values = values.T
    if entry is not None and entry.ours[0] in VOCABULARY_AXIS:
        across = VOCABULARY_AXIS[entry.ours[0]]
        values = builder.load_embeddings(values.T).T if across else builder.load_embeddings(values)
    return values


@functools.lru_cache(maxsize=2)
def opened(path: str):
    """The tensors of a TensorFlow checkpoint, read when asked."""
    from bert4x.checkpoints.formats.tf1_bundle import read_tf1

    return read_tf1(path)


def weights_in_order(layer) -> list:
    """A layer's weights as bert4keras lists them, frozen or not: the offset of a norm before its scale."""
    weights = [v for v in layer.weights if not v.path.split("/")[-1].startswith("seed_generator")]
    if isinstance(layer, L.LayerNorm):
        weights = sorted(weights, key=lambda v: not v.path.endswith("/beta"))
    if isinstance(layer, L.GatedAttentionUnit):
        order = ("intermediate/kernel", "query_scale", "key_scale", "output/kernel")
        weights = sorted(weights, key=lambda v: next(i for i, name in enumerate(order) if v.path.endswith(name)))
    return weights


def load_by_mapping(builder, checkpoint, mapping: dict) -> None:
    """Gives layers the variables that a mapping names; warns of layers that it does not.

    Raises: TensorMismatchError for a variable that is not there or has another shape, unless told otherwise.
    """
    from bert4x.checkpoints.weights import check_finite, resized

    filled = set()
    for name, names in mapping.items():
        layer = builder.layers.get(builder.prefixed(name))
        for variable, theirs in zip(weights_in_order(layer) if layer else (), names, strict=False):
            try:
                values = builder.load_variable(checkpoint, theirs)
            except (TensorMismatchError, KeyError) as error:
                if not builder.loading.get("ignore_invalid_weights"):
                    raise
                warnings.warn(f"{variable.path} starts at random: {error}", stacklevel=2)
                continue
            if values.shape != tuple(variable.shape):
                if not builder.loading.get("autoresize_weights"):
                    raise TensorMismatchError(
                        f"{theirs}: shape {values.shape}, but {variable.path} has {variable.shape}"
                    )
                path = variable.path.removeprefix(builder.prefix)
                values = resized(path, values, tuple(variable.shape), builder.config.hidden_act)
            check_finite(theirs, values)
            variable.assign(values)
            filled.add(id(variable))
    used = {id(layer) for layer in builder.model.layers}
    left = [v.path for layer in builder.layers.values() if id(layer) in used for v in weights_in_order(layer)]
    left = [v for v in left if not any(v == w.path for w in builder.model.weights if id(w) in filled)]
    if left:
        warnings.warn(
            f"{len(left)} variables that variable_mapping does not name start at random: {left[:8]}", stacklevel=2
        )


def save_by_mapping(builder, prefix, mapping: dict, dtype=None) -> None:
    """Writes a TensorFlow checkpoint of the variables that a mapping names."""
    from bert4x.checkpoints.convert import of_variable
    from bert4x.checkpoints.formats.tf1_bundle import write_tf1
    from bert4x.checkpoints.tensors import LazyTensor

    tensors = []
    for name, names in mapping.items():
        layer = builder.layers.get(builder.prefixed(name))
        for variable, theirs in zip(weights_in_order(layer) if layer else (), names, strict=False):
            _, values = builder.create_variable(theirs, of_variable(theirs, variable).read(), dtype)
            tensors.append(LazyTensor(theirs, values.shape, values.dtype, lambda values=values: values))
    write_tf1(prefix, tensors)
