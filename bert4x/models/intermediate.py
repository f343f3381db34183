"""What the layers inside a model give."""

from collections.abc import Sequence

import keras

from bert4x.errors import ConfigError, nearest
from bert4x.models.functional import TransformerModel


def intermediate(model: keras.Model, names: str | Sequence[str]) -> keras.Model:
    """A model over the same layers, of the same inputs, that gives the outputs of named ones.

    For one name, what that layer gives; for a list, a list of the same. A layer that is called more than once, as all
    of ALBERT's blocks and a tied embedding table are, gives a list with the output of every call, in order.

    Raises: ConfigError for a name that no layer has.
    """
    outputs = outputs_of(model, names) if isinstance(names, str) else [outputs_of(model, name) for name in names]
    if not isinstance(model, TransformerModel):
        return keras.Model(model.inputs, outputs)
    inner = TransformerModel(model.inputs, outputs)
    inner.config, inner.tokenizer = model.config, model.tokenizer
    return inner


def outputs_of(model, name: str):
    """The symbolic outputs of a layer in a model: of its only call, or a list of each. Raises: ConfigError"""
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        raise ConfigError(f"no layer {name!r} in the model {model.name!r}; {nearest(str(name), layers)}")
    within = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    calls = [node.output_tensors for node in layers[name]._inbound_nodes if id(node) in within]
    calls = [tensors[0] if len(tensors) == 1 else list(tensors) for tensors in calls]
    return calls[0] if len(calls) == 1 else calls
