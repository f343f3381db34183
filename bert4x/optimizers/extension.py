"""What the extensions of optimizers have in common: one update, with a place for each of them."""

from typing import Any, ClassVar

import keras
from keras import ops


class Extension:
    """Base of the extensions: mixins in front of a Keras optimizer, which may be combined in any order.

    What happens in one update, whichever extensions there are and however they were stacked:

    1. `apply`: gradients are accumulated; all that follows happens once per real update, with their average;
    2. `operated`: operations on single gradients; then Keras clips them;
    3. `step`, per variable: weight decay and the optimizer's own step, which leaves out untouched rows when lazy;
    4. `adapted`: LAMB's ratio, then `multiplied`: the variable's own multiplier, both of the whole update, decay
       included, for a ratio of norms would undo a multiplier before it;
    5. `looked_ahead`: slow weights; last `averaged`: the moving average, of what the variable now is.

    Here each of these does nothing; an extension overrides its own. All are written in Keras' operations and assign
    through the optimizer, so they work in `fit`, in a StatelessScope and where TensorFlow distributes variables.
    Keras' weight decay is moved from before the step into it.
    """

    defaults: ClassVar[dict[str, Any]] = {}  # the constructor's arguments that the extension adds

    def __init__(self, *args, **kwargs):
        options = {}
        for cls in type(self).__mro__:
            if issubclass(cls, Extension):
                options |= {name: kwargs.pop(name, default) for name, default in vars(cls).get("defaults", {}).items()}
        super().__init__(*args, **kwargs)
        # Past Keras' and TensorFlow's tracking of attributes, which would wrap dicts, and take variables for slots.
        vars(self)["options"] = options
        self.configure()

    def configure(self) -> None:
        """Checks the options."""

    def get_config(self):
        return super().get_config() | {name: plain(value) for name, value in self.options.items()}

    def add_slots(self, variables: list, name: str) -> list:
        """A variable like each of these, zero at first."""
        return self.add_optimizer_variables(variables, f"{OWN}_{name}")

    def path(self, variable) -> str:
        """TensorFlow's optimizers are given its own variables, which know their names only."""
        return self._trainable_variables[self._get_variable_index(variable)].path

    def _backend_apply_gradients(self, grads, trainable_variables):
        grads = [self.operated(g, v.path) for g, v in zip(settled(grads), trainable_variables, strict=True)]
        super()._backend_apply_gradients(grads, trainable_variables)

    def _apply_weight_decay(self, variables):
        """Nothing yet: it is a part of `step`."""

    def update_step(self, gradient, variable, learning_rate):
        index, path = self._get_variable_index(variable), self.path(variable)
        before = ops.copy(variable)
        self.step(gradient, variable, learning_rate)
        stepped = ops.convert_to_tensor(variable)
        value = self.adapted(stepped, before, path, learning_rate)
        value = self.multiplied(value, before, path)
        value = self.looked_ahead(value, before, index)
        if value is not stepped:
            self.assign(variable, value)
        self.averaged(value, before, index)

    def operated(self, gradient, path: str):
        """The gradient to go on with. Shape: that of the variable"""
        return gradient

    def step(self, gradient, variable, learning_rate) -> None:
        """Changes the variable as the base optimizer does, weight decay included."""
        if self.weight_decay and self._use_weight_decay(variable):
            share = ops.cast(learning_rate, variable.dtype) * ops.cast(self.weight_decay, variable.dtype)
            self.assign_sub(variable, variable * share)
        super().update_step(gradient, variable, learning_rate)

    def adapted(self, after, before, path: str, learning_rate):
        """The value after layer adaptation. Shape: that of the variable"""
        return after

    def multiplied(self, after, before, path: str):
        """The value after multipliers of single variables. Shape: that of the variable"""
        return after

    def looked_ahead(self, after, before, index: int):
        """The value after lookahead. Shape: that of the variable"""
        return after

    def averaged(self, after, before, index: int) -> None:
        """Takes the value into a moving average, if one is kept."""


OWN = "extension"  # begins the names of the extensions' slots


class Settled:
    """An optimizer whose gradients are `settled` first."""

    def _backend_apply_gradients(self, grads, trainable_variables):
        super()._backend_apply_gradients(settled(grads), trainable_variables)


def settled(gradients: list) -> list:
    """Gradients as dense tensors, all of them there before the first variable changes.

    TensorFlow's gradient of an embedding table is a list of rows, in which a row may be many times; Keras' Adam adds up
    the squares of such rows, not the rows. In TensorFlow's graphs, one gradient would now and then be computed after
    another's variable has been updated, and from that.
    """
    if keras.backend.backend() != "tensorflow":
        return [ops.convert_to_tensor(g, sparse=False) for g in gradients]
    import tensorflow as tf

    dense = [tf.convert_to_tensor(g) for g in gradients]
    with tf.control_dependencies(dense):
        return [tf.identity(g) for g in dense]


def plain(value):
    """A copy that JSON can hold."""
    if isinstance(value, dict):
        return dict(value)
    return list(value) if isinstance(value, list | tuple) else value


def when(condition, function, variables: list) -> None:
    """Calls a function that assigns to these variables only if the condition holds.

    On JAX a condition keeps assignments to itself, so the values are handed out of it.
    """
    if keras.backend.backend() != "jax":
        ops.cond(condition, function, lambda: None)
        return

    def after():
        with keras.StatelessScope((variable, variable.value) for variable in variables) as scope:
            function()
        return [scope.get_current_value(variable) for variable in variables]

    values = ops.cond(condition, after, lambda: [variable.value for variable in variables])
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
