"""Layers of a Functional model, found from an output of it."""


def search_layer(inputs, name: str):
    """The layer of this name that a symbolic tensor, or what a layer gives, is computed with, within models too; None
    if there is none.

    Args:
        inputs: a layer, a model or a symbolic tensor.
    """
    history = getattr(inputs, "_keras_history", None)
    seen, waiting = set(), [inputs if history is None else history.operation]
    while waiting:
        layer = waiting.pop()
        if layer.name == name:
            return layer
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        waiting += getattr(layer, "layers", ())
        for node in layer._inbound_nodes:
            waiting += [tensor._keras_history.operation for tensor in node.input_tensors]
    return None
