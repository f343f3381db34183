"""Tiger, the optimizer that needs one number a weight."""

import re

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.optimizers.algorithms import root_mean_square
from bert4x.optimizers.checks import check_count
from bert4x.optimizers.extension import Settled
from bert4x.optimizers.path_rates import PathRates

ELEMENTWISE = re.compile(r"(bias|beta|gamma)$")
LEAST = 1e-3  # scale of a matrix that is zero, such as B of an adapter, which would never leave it


@keras.saving.register_keras_serializable("bert4x")
class Tiger(Settled, PathRates, keras.optimizers.Optimizer):
    """Tiger (Su 2023, kexue.fm/archives/9512): the sign of the momentum, by a rate relative to the weights.

    A matrix moves by the learning rate times its root mean square, biases and the numbers of norms by half the learning
    rate, and these do not decay. Accumulating gradients takes no memory of its own: the momentum does it
    (kexue.fm/archives/8634). Where a gradient holds NaN or infinity, a variable keeps its momentum, and shrinks to
    where it began: 1 for gamma, 0 for all else.

    Args:
        learning_rate: relative; 0.001 to 0.002 at its peak. With accumulation it counts batches, not updates.
        beta: of the momentum; 0.965 for texts, 0.945 for pictures.
        weight_decay: of the update; None for none.
        grad_accum_steps: batches of an update.
        shrink_ratio: of a variable whose gradient is not finite; 1 leaves it as it is.
        rates: path of a variable -> multiplier of its learning rate.

    Raises: ConfigError for numbers that cannot be.
    """

    def __init__(
        self, learning_rate=1e-3, beta=0.965, weight_decay=0.01, grad_accum_steps=1, shrink_ratio=0.99, **kwargs
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta, self.grad_accum_steps, self.shrink_ratio = beta, grad_accum_steps, shrink_ratio
        check_count({"grad_accum_steps": grad_accum_steps}, "grad_accum_steps")
        for name, value in {"beta": beta, "shrink_ratio": shrink_ratio}.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} = {value!r}; expected a number from 0 to 1")

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.momentums = self.add_optimizer_variables(variables, "momentum")

    def _apply_weight_decay(self, variables):
        """Nothing yet: it is a part of `update_step`, by a variable's own rate."""

    def update_step(self, gradient, variable, learning_rate):
        index, dtype, steps = self._get_variable_index(variable), variable.dtype, self.grad_accum_steps
        path, momentum = self._trainable_variables[index].path, self.momentums[index]
        elementwise, gradient = ELEMENTWISE.search(path), ops.cast(gradient, dtype)
        finite = ops.all(ops.isfinite(gradient))
        kept = ops.where(ops.equal(self.iterations % steps, 0), self.beta, 1.0) if steps > 1 else self.beta
        before, weights = ops.convert_to_tensor(momentum), ops.convert_to_tensor(variable)
        moved = ops.cast(kept, dtype) * before + (1 - self.beta) / steps * gradient
        moved = ops.where(finite, moved, before)
        self.assign(momentum, moved)
        update = ops.sign(moved)
        if self.weight_decay and not elementwise and self._use_weight_decay(self._trainable_variables[index]):
            update = update + self.weight_decay * weights
        scale = 0.5 if elementwise else ops.maximum(root_mean_square(weights), LEAST)
        due = ops.cast(ops.equal((self.iterations + 1) % steps, 0), dtype)
        stepped = weights - due * ops.cast(learning_rate, dtype) * scale * update
        center = 1.0 if path.endswith("gamma") else 0.0
        shrunk = (weights - center) * self.shrink_ratio + center
        self.assign(variable, ops.where(finite, stepped, shrunk))

    def get_config(self):
        return super().get_config() | {
            "beta": self.beta, "grad_accum_steps": self.grad_accum_steps, "shrink_ratio": self.shrink_ratio,
        }  # fmt: skip
