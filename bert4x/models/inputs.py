"""What users give a model: a dict by name or a list, put in the order of its input layers, and looked at."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bert4x.errors import InputError, nearest

INPUT_NAMES = {
    "token_ids": "Input-Token",
    "segment_ids": "Input-Segment",
    "position_ids": "Input-Position",
    "target_ids": "Input-Target",
    "text_ids": "Input-Text",
}
OF_BERT4KERAS = {"Encoder-Input-Token": "token_ids", "Decoder-Input-Token": "target_ids"}  # its T5's input layers


def by_layer(model, inputs) -> tuple[dict, Any]:
    """What the user gave for each input layer, and the padding mask or None.

    Raises: InputError for names no input has, and without token ids.
    """
    names = [tensor.name for tensor in model.inputs]
    if isinstance(inputs, dict):
        given = {key: value for key, value in inputs.items() if value is not None and key != "padding_mask"}
        found, padding_mask = {layer_name(key, names): given[key] for key in given}, inputs.get("padding_mask")
    else:
        values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        found, padding_mask = dict(zip(names, values, strict=False)), None
        if len(values) > len(names):
            raise InputError(f"got {len(values)} inputs, but this model takes {len(names)}: {', '.join(names)}")
    if found.get(token_input(names)) is None:
        raise InputError(f"no token_ids among the inputs; got {sorted(inputs) if isinstance(inputs, dict) else 0}")
    return found, padding_mask


def as_arrays(model, x):
    """Nested Python lists, one for each input of a model, as arrays, which Keras takes; all else as it is.

    Raises: InputError for rows of different lengths.
    """
    lists = isinstance(x, list | tuple) and len(x) == len(model.inputs)
    if not lists or not all(isinstance(one, list | tuple) and one for one in x):
        return x
    try:
        return [np.asarray(one) for one in x]
    except ValueError as error:
        raise InputError("rows of different lengths; pad them to one") from error


def standardize(model, inputs, mask=None) -> tuple[list, list | None]:
    """The list of inputs the graph takes, and the list of their Keras masks (or None).

    Raises: InputError as `by_layer`, and for an input that is missing.
    """
    names = [tensor.name for tensor in model.inputs]
    given, padding_mask = by_layer(model, inputs)
    first, values = given[token_input(names)], []
    for name in names:
        if given.get(name) is None and not name.endswith(INPUT_NAMES["segment_ids"]):
            raise InputError(f"input {name!r} is missing; this model takes {', '.join(names)}")
        value = given[name] if given.get(name) is not None else ops.zeros_like(first)
        values.append(value if isinstance(value, keras.KerasTensor) else ops.convert_to_tensor(value))
    if padding_mask is not None:
        mask = [ops.cast(padding_mask, "bool") if name == token_input(names) else None for name in names]
    return values, mask


def token_input(names: list[str]) -> str:
    """The input layer of the token ids: the first one, unless a model over ours has others before it."""
    return next((name for name in names if name.endswith(INPUT_NAMES["token_ids"])), names[0])


def layer_name(key: str, names: list[str]) -> str:
    """The input layer that a user's key means. Raises: InputError"""
    known = OF_BERT4KERAS.get(key, key)
    for name in names:
        if key == name or (known in INPUT_NAMES and name.endswith(INPUT_NAMES[known])):
            return name
    if key == "segment_ids":  # a model without segments may be given them all the same
        return key
    valid = [*names, "padding_mask", *(k for k, v in INPUT_NAMES.items() if any(n.endswith(v) for n in names))]
    raise InputError(f"no input {key!r}; {nearest(key, valid)}")


def check_shapes(arrays: dict[str, Any]) -> None:
    """Raises InputError unless all have the shape of the token ids, (batch, length); sizes not known yet may be any.

    The targets of an encoder-decoder have a length of their own.
    """
    try:
        shapes = {name: tuple(np.shape(values)) for name, values in arrays.items() if values is not None}
    except ValueError as error:  # of nested lists
        raise InputError("rows of different lengths; pad them to one") from error
    first = shapes["token_ids"]
    if len(first) != 2 or first[1] == 0:
        raise InputError(f"token_ids have shape {first}; expected (batch, length), at least one token long")
    for name, shape in shapes.items():
        if name.endswith(INPUT_NAMES["target_ids"]) and len(shape) == 2 and shape[0] == first[0] and shape[1] != 0:
            continue
        if shape != first and None not in (*shape, *first):
            raise InputError(f"{name} has shape {shape}, the token ids have {first}")


def longest_text(texts: np.ndarray) -> int:
    """The length of the longest text of packed rows, by the number of each token's text. Shape: (B, T)"""
    return max(int(np.unique(row, return_counts=True)[1].max()) for row in texts)
