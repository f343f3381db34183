"""The extensions of optimizers' updates, one class each; `bert4x.optimizers.extend` makes optimizers of them."""

import math
import numbers
import re
from typing import ClassVar

from keras import ops

from bert4x.errors import ConfigError
from bert4x.optimizers.checks import check_count, check_patterns, matches, warn_unmatched
from bert4x.optimizers.extension import OWN, Extension
from bert4x.optimizers.schedules import piecewise_linear

# Names of what weight decay usually leaves out. Keras' optimizers see TensorFlow's own variables, named "bias:0".
NOT_DECAYED = (r"bias(:0)?$", r"gamma(:0)?$", r"beta(:0)?$")


class WeightDecay(Extension):
    """Keras' decoupled weight decay, for some variables only. Raises: ConfigError"""

    defaults: ClassVar = {"weight_decay_rate": 0.01, "exclude_from_weight_decay": NOT_DECAYED}

    def __init__(self, *args, weight_decay=None, **kwargs):
        rate = kwargs.setdefault("weight_decay_rate", 0.01 if weight_decay is None else weight_decay)
        if weight_decay not in (None, rate):
            raise ConfigError(f"weight_decay {weight_decay!r} and weight_decay_rate {rate!r}; expected one of them")
        if not (isinstance(rate, numbers.Real) and 0 <= rate < math.inf):
            raise ConfigError(f"weight_decay_rate {rate!r}; expected a number, 0 or more")
        super().__init__(*args, weight_decay=rate, **kwargs)

    def configure(self):
        check_patterns(self.options, "exclude_from_weight_decay")
        super().configure()

    def _use_weight_decay(self, variable):
        excluded = matches(self.path(variable), self.options["exclude_from_weight_decay"])
        return not excluded and super()._use_weight_decay(variable)


class LayerAdaptation(Extension):
    """LAMB; see `extend_with_layer_adaptation`. Raises: ConfigError"""

    defaults: ClassVar = {"exclude_from_layer_adaptation": ()}

    def configure(self):
        check_patterns(self.options, "exclude_from_layer_adaptation")
        super().configure()

    def adapted(self, after, before, path, learning_rate):
        after = super().adapted(after, before, path, learning_rate)
        if matches(path, self.options["exclude_from_layer_adaptation"]):
            return after
        update = after - before
        size, length = norm(before), norm(update)
        # In the norm of the update is the learning rate already.
        ratio = size * ops.cast(learning_rate, size.dtype) / ops.where(length > 0, length, 1.0)
        ratio = ops.where(ops.logical_and(size > 0, length > 0), ratio, 1.0)
        return before + update * ops.cast(ratio, update.dtype)


class PiecewiseLinearLr(Extension):
    """A schedule; see `extend_with_piecewise_linear_lr`. Raises: ConfigError"""

    defaults: ClassVar = {"lr_schedule": {0: 1}}

    def configure(self):
        # JSON has made strings of the steps of a saved schedule.
        schedule = {int(step): float(value) for step, value in self.options["lr_schedule"].items()}
        piecewise_linear(0, schedule)
        self.options["lr_schedule"] = schedule
        super().configure()

    def _get_current_learning_rate(self):
        multiplier = piecewise_linear(ops.convert_to_tensor(self.iterations), self.options["lr_schedule"])
        return super()._get_current_learning_rate() * multiplier


class ParameterWiseLr(Extension):
    """Rates by variable; see `extend_with_parameter_wise_lr`. Raises: ConfigError"""

    defaults: ClassVar = {"paramwise_lr_schedule": {}}

    def configure(self):
        schedule = dict(self.options["paramwise_lr_schedule"])
        wrong = [k for k, v in schedule.items() if not (isinstance(v, numbers.Real) and math.isfinite(v))]
        if wrong:
            raise ConfigError(f"paramwise_lr_schedule {schedule!r}: {wrong} have no finite number as multiplier")
        self.options["paramwise_lr_schedule"] = schedule
        super().configure()

    def build(self, variables):
        if not self.built:
            super().build(variables)
            warn_unmatched("paramwise_lr_schedule", map(re.escape, self.options["paramwise_lr_schedule"]), variables)

    def multiplied(self, after, before, path):
        after = super().multiplied(after, before, path)
        multiplier = math.prod(v for k, v in self.options["paramwise_lr_schedule"].items() if k in path)
        return after if multiplier == 1 else before + (after - before) * multiplier


class LazyOptimization(Extension):
    """Rows without a gradient stay; see `extend_with_lazy_optimization`. Raises: ConfigError"""

    defaults: ClassVar = {"include_in_lazy_optimization": ()}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        vars(self)["moments"] = {}  # of each variable, by its id: the optimizer's slots of its shape

    def configure(self):
        check_patterns(self.options, "include_in_lazy_optimization")
        super().configure()

    def build(self, variables):
        if not self.built:
            super().build(variables)
            warn_unmatched("include_in_lazy_optimization", self.options["include_in_lazy_optimization"], variables)

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        slot = super().add_variable_from_reference(reference_variable, name=name, initializer=initializer)
        if not (name or "").startswith(OWN):
            self.moments.setdefault(id(reference_variable), []).append(slot)
        return slot

    def step(self, gradient, variable, learning_rate):
        if not matches(self.path(variable), self.options["include_in_lazy_optimization"]):
            super().step(gradient, variable, learning_rate)
            return
        nonzero = ops.not_equal(gradient, 0)
        touched = ops.any(nonzero, axis=-1, keepdims=True) if len(gradient.shape) else nonzero
        reference = self._trainable_variables[self._get_variable_index(variable)]
        kept = [variable, *self.moments.get(id(reference), ())]
        values = [ops.copy(v) for v in kept]
        super().step(gradient, variable, learning_rate)
        for now, value in zip(kept, values, strict=True):
            self.assign(now, ops.where(touched, ops.convert_to_tensor(now), value))


class Lookahead(Extension):
    """Slow and fast weights; see `extend_with_lookahead`. Raises: ConfigError"""

    defaults: ClassVar = {"steps_per_slow_update": 5, "slow_step_size": 0.5}

    def configure(self):
        check_count(self.options, "steps_per_slow_update")
        if not 0 <= (size := self.options["slow_step_size"]) <= 1:
            raise ConfigError(f"slow_step_size {size!r}; expected a number from 0 to 1")
        super().configure()

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.slow_weights = self.add_slots(variables, "slow")

    def looked_ahead(self, after, before, index):
        fast = super().looked_ahead(after, before, index)
        slow = begun(self, self.slow_weights[index], before)
        synced = slow + (fast - slow) * self.options["slow_step_size"]
        due = ops.equal((self.iterations + 1) % self.options["steps_per_slow_update"], 0)
        self.assign(self.slow_weights[index], ops.where(due, synced, slow))
        return ops.where(due, synced, fast)


class ExponentialMovingAverage(Extension):
    """Averages of weights; see `extend_with_exponential_moving_average`. Raises: ConfigError"""

    defaults: ClassVar = {"ema_momentum": 0.999}

    def configure(self):
        if not 0 < (momentum := self.options["ema_momentum"]) < 1:
            raise ConfigError(f"ema_momentum {momentum!r}; expected a number between 0 and 1")
        vars(self)["old_weights"] = None
        super().configure()

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.ema_weights = self.add_slots(variables, "ema")

    def averaged(self, after, before, index):
        super().averaged(after, before, index)
        n = ops.cast(self.iterations + 1, "float32")
        share = ops.cast(1 - ops.minimum(self.options["ema_momentum"], (1 + n) / (10 + n)), after.dtype)
        average = begun(self, self.ema_weights[index], before)
        self.assign(self.ema_weights[index], average + (after - average) * share)

    def apply_ema_weights(self, bias_correction: bool = True) -> None:
        """Puts the averages into the model, after remembering what is there; a second call changes nothing.

        The averages have no bias, so `bias_correction`, an argument of bert4keras', does nothing. Before the first
        update the averages are the weights themselves.
        """
        if self.old_weights is not None:
            return
        variables = self._trainable_variables
        vars(self)["old_weights"] = [ops.convert_to_numpy(v) for v in variables]
        if self.built and int(self.iterations) > 0:
            for variable, average in zip(variables, self.ema_weights, strict=True):
                variable.assign(average)

    def reset_old_weights(self) -> None:
        """Puts back into the model what `apply_ema_weights` took out.

        Raises: ConfigError when it has not been called.
        """
        if self.old_weights is None:
            raise ConfigError("there are no old weights to reset: apply_ema_weights comes first")
        for variable, value in zip(self._trainable_variables, self.old_weights, strict=True):
            variable.assign(value)
        vars(self)["old_weights"] = None


def begun(optimizer, slot, value):
    """A slot that begins, at the first update, as `value`: not when the optimizer is built, since a model may be given
    its weights after that."""
    return ops.where(ops.equal(optimizer.iterations, 0), value, ops.convert_to_tensor(slot))


def norm(x):
    """The Euclidean norm. Shape: any -> (), float32"""
    return ops.sqrt(ops.sum(ops.square(ops.cast(x, "float32"))))
