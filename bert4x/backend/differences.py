"""`K.gradients` and `K.function`, as far as Keras 3 can."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from bert4x.errors import InputError

INSTEAD = {
    "tensorflow": """
    with tf.GradientTape() as tape:
        loss = loss_of(model(x, training=True))
    gradients = tape.gradient(loss, variables)""",
    "torch": """
    loss = loss_of(model(x, training=True))
    gradients = torch.autograd.grad(loss, [variable.value for variable in variables])""",
    "jax": """
    def loss_of(values):
        return loss(y, model.stateless_call(values, model.non_trainable_variables, x)[0])
    gradients = jax.grad(loss_of)(values)""",
}
READY = (
    "for adversarial training, a gradient penalty, virtual adversarial training and integrated gradients there are "
    "functions in bert4x.training.adversarial"
)


def gradients(loss: Any, variables: Any) -> list:
    """The gradients of what was computed by what it was computed from: variables or tensors; None where it was not.

    On TensorFlow within a graph, such as the loss or a layer of a model that is fitted; an embedding table's are
    `tf.IndexedSlices`, as in Keras 2. On PyTorch within what is recorded. They can be differentiated again.

    Raises: InputError elsewhere, with what to write instead.
    """
    backend = keras.backend.backend()
    variables = list(variables) if isinstance(variables, list | tuple) else [variables]
    values = [x.value if isinstance(x, keras.Variable) else x for x in variables]
    if in_symbolic_scope():  # where only shapes are asked for
        return [ops.zeros_like(x) for x in values]
    if backend == "tensorflow" and not any(map(keras.backend.is_keras_tensor, [loss, *values])):
        import tensorflow as tf

        if not tf.executing_eagerly():
            return tf.gradients(loss, values)
    if backend == "torch" and getattr(loss, "requires_grad", False):
        import torch

        return list(torch.autograd.grad(loss.sum(), values, create_graph=True, allow_unused=True))
    raise InputError(
        f"K.gradients has nothing to go by: Keras 3 on {backend} does not remember how this was computed. Write instead"
        f"{INSTEAD[backend]}\n({READY})"
    )


def function(inputs: Sequence[Any], outputs: Any, updates: Any = None, name: str | None = None) -> Callable:
    """A function of arrays that gives arrays: what a model computes in between, without dropout.

    Args:
        inputs: symbolic tensors, such as `model.inputs`.
        outputs: a symbolic tensor of the same model, or several, for which a list is returned.
    Raises: InputError for what is not symbolic, and for updates.
    """
    single = not isinstance(outputs, list | tuple)
    wanted = [outputs] if single else list(outputs)
    if updates or not all(map(keras.backend.is_keras_tensor, [*inputs, *wanted])):
        raise InputError(
            "K.function takes symbolic tensors, from model.inputs to a layer's output, and no updates; what else is to "
            f"be computed is a function of Python over keras.ops, or a train_step ({READY})"
        )
    model = keras.Model(list(inputs), wanted, name=name)

    def run(values: Sequence[Any]) -> Any:
        arrays = [ops.convert_to_tensor(np.asarray(value)) for value in values]
        found = [ops.convert_to_numpy(x) for x in keras.tree.flatten(model(arrays, training=False))]
        return found[0] if single else found

    return run
