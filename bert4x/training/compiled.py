"""Functions that change variables, compiled, and the gradients within them: all of training that differs by backend."""

import contextlib
from collections.abc import Callable, Iterable

import keras
from keras import ops

from bert4x.devices import layout
from bert4x.generation.compiled import CompiledByShape
from bert4x.optimizers.extension import Extension

Gradients = list  # one tensor for every variable, of its shape


class Compiled(CompiledByShape):
    """A function of tensors that may assign to variables, compiled anew for new shapes only.

    Its arguments and results may be nested in tuples, lists and dicts. PyTorch runs the function as it is where it
    assigns something.

    Args:
        variables: all that the function reads or changes.
        assigns: whether the function changes variables at all.
    """

    def __init__(self, function: Callable, variables: Iterable, assigns: bool = True):
        self.assigns = assigns
        super().__init__(function, unique(variables))

    def __call__(self, *args):
        return self.run(*keras.tree.map_structure(ops.convert_to_tensor, args))

    def on_tensorflow(self, donate):  # not by XLA, which compiles for each combination of shapes: one graph serves all
        import tensorflow as tf

        return tf.function(self.function, autograph=False, reduce_retracing=True)

    def on_torch(self, donate):
        return self.function if self.assigns else super().on_torch(donate)

    def on_jax(self, donate):
        if not self.assigns:
            return super().on_jax(donate)
        import jax

        def pure(values, *args):
            with keras.StatelessScope(zip(self.variables, values, strict=True)) as scope:
                results = self.function(*args)
            return results, [scope.get_current_value(variable) for variable in self.variables]

        # Variables stay where they are: divided over devices as they were, or anywhere (None).
        shardings = [getattr(layout(variable), "backend_layout", None) for variable in self.variables]
        jitted = jax.jit(pure, donate_argnums=0, out_shardings=(None, shardings))

        def run(*args):
            results, values = jitted([variable.value for variable in self.variables], *args)
            for variable, value in zip(self.variables, values, strict=True):
                variable.assign(value)
            return results

        # For those who want to see the program: what it tells other devices, what memory it needs.
        self.lower = lambda *args: jitted.lower([variable.value for variable in self.variables], *args)
        return run


def value_and_gradients(
    function: Callable, variables: list, state: Iterable, differentiable: bool = False
) -> tuple[tuple, Gradients]:
    """What a function without arguments returns, (value, others), and the gradients of the value.

    Args:
        variables: those to differentiate by.
        state: all variables that the function reads or changes (dropout's seeds among them).
        differentiable: whether these gradients will be differentiated again.
    """
    on = {"tensorflow": gradients_on_tensorflow, "jax": gradients_on_jax, "torch": gradients_on_torch}
    results, found = on[keras.backend.backend()](function, variables, unique(state), differentiable)
    dense = [ops.zeros(v.shape, v.dtype) if g is None else g for g, v in zip(found, variables, strict=True)]
    return results, dense


def gradients_on_tensorflow(function, variables, state, differentiable):
    """By a tape."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        results = function()
    found = tape.gradient(results[0], [variable.value for variable in variables])
    # An embedding table's is a list of rows: looked up in, it would be one thing here and another on other backends.
    found = [None if g is None else tf.convert_to_tensor(g) for g in found]
    # A graph may compute one gradient after the weights were updated by another, from the new weights (TensorFlow 2.21
    # without XLA; it is drawn when it is traced). So none is handed out before all are there.
    with tf.control_dependencies([g for g in [*found, *tf.nest.flatten(results)] if tf.is_tensor(g)]):
        return tf.nest.map_structure(lambda x: tf.identity(x) if tf.is_tensor(x) else x, (results, found))


def gradients_on_jax(function, variables, state, differentiable):
    """Of a pure function of the variables; afterwards the state is as the function left it."""
    import jax

    def pure(values):
        now = {id(v): v.value for v in state} | {id(v): x for v, x in zip(variables, values, strict=True)}
        pairs = ((v, now[id(v)]) for v in unique([*state, *variables]))
        with keras.StatelessScope(pairs, collect_losses=True) as scope:  # of layers that add a loss
            value, others = function()
        return value, (others, [scope.get_current_value(v) for v in state])

    (value, (others, after)), found = jax.value_and_grad(pure, has_aux=True)([v.value for v in variables])
    differentiated = {id(v) for v in variables}
    for variable, now in zip(state, after, strict=True):
        if id(variable) not in differentiated:
            variable.assign(now)
    return (value, others), found


def gradients_on_torch(function, variables, state, differentiable):
    """By autograd."""
    import torch

    with torch.enable_grad():
        value, others = function()
        found = torch.autograd.grad(value, [v.value for v in variables], create_graph=differentiable, allow_unused=True)
    if not differentiable:
        value, others = keras.tree.map_structure(lambda x: x.detach() if torch.is_tensor(x) else x, (value, others))
    return (value, others), list(found)


def gradients_of(function: Callable, tensors: list) -> tuple:
    """What a function of tensors returns, (value, others), and the gradients of the value by each of them."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            results = function(*tensors)
        return results, tape.gradient(results[0], tensors)
    if backend == "jax":
        import jax

        return jax.value_and_grad(function, argnums=tuple(range(len(tensors))), has_aux=True)(*tensors)
    import torch

    with torch.enable_grad():
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        value, others = function(*tensors)
        return (value.detach(), others.detach()), torch.autograd.grad(value, tensors)


def apply_gradients(optimizer, gradients: Gradients, variables: list) -> None:
    """One update. On JAX by Keras' stateless form: what an optimizer assigns within a condition is lost there."""
    with no_gradient():
        if keras.backend.backend() == "tensorflow":
            apply_on_tensorflow(optimizer, gradients, variables)
            return
        if keras.backend.backend() == "torch":
            optimizer.apply(gradients, variables)
            return
        slots = optimizer.variables
        values, after = optimizer.stateless_apply([s.value for s in slots], gradients, [v.value for v in variables])
        for variable, value in [*zip(variables, values, strict=True), *zip(slots, after, strict=True)]:
            variable.assign(value)


def apply_on_tensorflow(optimizer, gradients, variables):
    """An update compiled by XLA, whatever else is: it reads and writes each number once, in a third of the time.

    The norm of all gradients is taken outside: XLA adds one number after the other, and would keep all gradients once
    more, clipped.
    """
    import tensorflow as tf

    def update(*found):
        optimizer.apply(found, variables)

    def update_clipped(scale, *found):
        limit, optimizer.global_clipnorm = optimizer.global_clipnorm, None
        try:
            optimizer.apply([gradient * scale for gradient in found], variables)
        finally:
            optimizer.global_clipnorm = limit

    limit = optimizer.global_clipnorm
    # What is clipped may be something else than these gradients: their sum over several batches, or what an operation
    # makes of them.
    if limit is None or optimizer.gradient_accumulation_steps or isinstance(optimizer, Extension):
        tf.function(update, jit_compile=True, autograph=False)(*gradients)
    else:
        norm = tf.linalg.global_norm(gradients)
        scale = limit / tf.maximum(norm, limit) + (norm - norm)  # NaN for what is not finite, as Keras has it
        tf.function(update_clipped, jit_compile=True, autograph=False)(scale, *gradients)


def divided(arrays):
    """The arrays of a batch, their rows divided over the devices of a `keras.distribution`, if there is one."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return arrays
    return keras.tree.map_structure(
        lambda x: keras.distribution.distribute_tensor(x, distribution.get_data_layout(x.shape)), arrays
    )


def no_gradient():
    """A block whose operations PyTorch does not record; the others record only what they are asked to."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def unique(variables: Iterable) -> list:
    """Each variable once, in order; Keras' cannot be hashed by value."""
    return list({id(variable): variable for variable in variables}.values())
