"""A dense layer that a layout's head has, and a head of ours lacks, written as the identity: answers are the same."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from bert4x.checkpoints.held_head import HeldHead
from bert4x.checkpoints.spec import Head
from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import LazyTensor, from_array
from bert4x.config import TransformerConfig
from bert4x.errors import ConversionError

# The key of a config by which a head without such a layer is told from one that has it; only we write it.
IDENTITY = "pooler_is_identity"
POOLER = ("Pooler-Dense/kernel", "Pooler-Dense/bias")
HIDDEN = ("Label-Hidden/kernel", "Label-Hidden/bias")
# An activation of x is x * 2^-k in float32 for all |x| below this power of 2; and k.
LINEAR = {"linear": (-12, 0), "tanh": (-12, 0), "gelu_erf": (-26, 1), "gelu_tanh": (-26, 1), "silu": (-26, 1)}


def missing_layer(head: Head, held: HeldHead) -> str | None:
    """The setting that says of a layer that this head of a layout has, and a head of ours lacks: "pooler", the model's;
    "hidden_act", its own.
    """
    keys = ("pooler", "hidden_act")
    return next((key for key in keys if head.settings.get(key) and not held.settings.get(key)), None)


def activation_of(layer: str, config: TransformerConfig, settings: dict[str, Any]) -> str:
    """That of a layer that `missing_layer` names."""
    return settings["hidden_act"] if layer == "hidden_act" else getattr(config, "pooler_hidden_act", "tanh")


def on_identity(
    layer: str, meant, held: HeldHead, config: TransformerConfig, ours: dict[str, LazyTensor]
) -> tuple[HeldHead, dict[str, LazyTensor], int]:
    """A head on the first token's hidden state h as one on a dense layer, f(h W + b), that `missing_layer` names, whose
    setting is `meant` to be there; the variables of the model; and the exponent of the identity.

    W is the identity times 2^-n, b is 0, and the head's kernel is multiplied by 2^n. As h comes from a norm, n can be
    chosen such that f of h W is h W in float32, or half of it, so that the scores are the same.

    Raises: ConversionError for a layer that is none such, and for a dtype that cannot hold 2^-n or the kernel.
    """
    activation = activation_of(layer, config, {layer: meant})
    whole = layer == "hidden_act" or all(path in variables(config) for path in POOLER)
    if activation not in LINEAR or not whole:
        place = "its pooler" if layer == "pooler" else f"a dense layer with {activation}"
        raise ConversionError(
            f"the head for {held.task} of a {config.model} lies on {place} in this layout, this one on the first "
            f"token: {'load the model with with_pool=True for the task, or ' if layer == 'pooler' else ''}write it as "
            "'bert4x'"
        )
    small, halved = LINEAR[activation]
    exponent = max(0, math.ceil(math.log2(largest_state(config, ours))) - small)
    kernel, dtype = held.tensors["Label-Scores/kernel"], ours["Embedding-Token/embeddings"].dtype
    identity = np.eye(config.hidden_size).astype(dtype) * np.asarray(2.0**-exponent, dtype)
    if identity[0, 0] != 2.0**-exponent:
        raise ConversionError(f"{dtype} cannot hold 2^-{exponent}, which a head without pooler needs; use float32")
    arrays = zip(POOLER if layer == "pooler" else HIDDEN, (identity, np.zeros(config.hidden_size, dtype)), strict=True)
    dense = {path: from_array(path, array) for path, array in arrays}
    tensors = held.tensors | {"Label-Scores/kernel": scaled(kernel, exponent + halved)}
    tensors, ours = (tensors, ours | dense) if layer == "pooler" else (tensors | dense, ours)
    return replace(held, tensors=tensors, settings=held.settings | {layer: meant}), ours, exponent


def largest_state(config: TransformerConfig, ours: dict[str, LazyTensor]) -> float:
    """What no number of a hidden state is above, since it comes from one of the model's norms."""
    norms = [path.rpartition("/")[0] for path in ours if path.endswith("orm/gamma") and not path.startswith("MLM")]
    scales = [(ours[f"{norm}/gamma"].read().astype("float64"), ours[f"{norm}/beta"].read()) for norm in norms]
    largest = (np.abs(gamma) * math.sqrt(config.hidden_size) + np.abs(beta) for gamma, beta in scales)
    return max(float(values.max()) for values in largest) or 1.0


def without_identity(held: HeldHead, config: TransformerConfig, pooler: dict[str, LazyTensor]) -> HeldHead:
    """What `on_identity` was given, if the layer is still what it made."""
    exponent = config.extra.get(IDENTITY)
    layer = next((key for key in ("pooler", "hidden_act") if held.settings.get(key)), None)
    if held.problem or not layer or type(exponent) is not int or not 0 <= exponent < 128:
        return held
    dense = pooler if layer == "pooler" else {path: held.tensors[path] for path in HIDDEN}
    kernel, bias = (tensor.read() for tensor in dense.values())
    activation = activation_of(layer, config, held.settings)
    identity = np.eye(config.hidden_size) * 2.0**-exponent
    if activation not in LINEAR or bias.any() or not np.array_equal(kernel, identity):
        return held
    scores = scaled(held.tensors["Label-Scores/kernel"], -exponent - LINEAR[activation][1])
    tensors = {path: tensor for path, tensor in held.tensors.items() if path not in HIDDEN}
    settings = held.settings | {layer: False if layer == "pooler" else None}
    return replace(held, tensors=tensors | {"Label-Scores/kernel": scores}, settings=settings)


def scaled(tensor: LazyTensor, exponent: int) -> LazyTensor:
    """A tensor times 2^exponent. Reading raises ConversionError where its dtype cannot hold that."""

    def read() -> np.ndarray:
        values = tensor.read()
        with np.errstate(over="ignore", under="ignore"):
            result = values * np.asarray(2.0**exponent, values.dtype)
        wide = values.astype("float64") * 2.0**exponent
        if not np.array_equal(result.astype("float64"), wide):
            raise ConversionError(f"{tensor.name} times 2^{exponent} cannot be written as {values.dtype}; use float32")
        return result

    return replace(tensor, read=read, rows=None, verify=lambda: False)
