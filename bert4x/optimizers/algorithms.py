"""bert4keras' optimizers."""

import keras
import numpy as np
from keras import ops

from bert4x.errors import ConfigError
from bert4x.optimizers.checks import check_patterns, matches
from bert4x.optimizers.extension import Settled

Lion = keras.optimizers.Lion  # Keras' own: Chen et al. 2023, arXiv:2302.06675


@keras.saving.register_keras_serializable("bert4x")
class Adam(Settled, keras.optimizers.Adam):
    """Adam (Kingma and Ba 2014, arXiv:1412.6980, algorithm 1) as in bert4keras: the correction of bias is optional.

    Unlike Keras' own, epsilon is added to the corrected root, as in the paper, and is 1e-6 by default.

    Raises: ConfigError for amsgrad.
    """

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-6, bias_correction=True, **kwargs):
        if kwargs.get("amsgrad"):
            raise ConfigError("amsgrad is not part of this Adam; use keras.optimizers.Adam")
        super().__init__(learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, **kwargs)
        self.bias_correction = bias_correction

    def update_step(self, gradient, variable, learning_rate):
        index, dtype = self._get_variable_index(variable), variable.dtype
        m, v = self._momentums[index], self._velocities[index]
        gradient, rate = ops.cast(gradient, dtype), ops.cast(learning_rate, dtype)
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        if self.bias_correction:
            t = ops.cast(self.iterations + 1, dtype)
            m, v = (x / (1 - ops.power(ops.cast(beta, dtype), t)) for x, beta in ((m, self.beta_1), (v, self.beta_2)))
        self.assign_sub(variable, rate * m / (ops.sqrt(v) + self.epsilon))

    def get_config(self):
        return super().get_config() | {"bias_correction": self.bias_correction}


@keras.saving.register_keras_serializable("bert4x")
class RelativeStep(keras.optimizers.schedules.LearningRateSchedule):
    """AdaFactor's own learning rate: scale * min(1 / sqrt(t), 0.01), t from 1."""

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, step):
        return self.scale * ops.minimum(ops.rsqrt(ops.cast(step, "float32") + 1), 0.01)

    def get_config(self):
        return {"scale": self.scale}


@keras.saving.register_keras_serializable("bert4x")
class AdaFactor(Settled, keras.optimizers.Optimizer):
    """AdaFactor (Shazeer and Stern 2018, arXiv:1804.04235) with bert4keras' arguments.

    A matrix' second moments are kept as those of its rows and columns. Keras' Adafactor keeps the whole matrix beside
    them, which saves no memory, and has neither momentum nor exclusions.

    Args:
        learning_rate: None for min(1 / sqrt(t), 0.01), times 0.05 without scaling by parameters.
        beta1: momentum of the updates; 0 keeps none.
        beta2: None for 1 - t^-0.8.
        multiply_by_parameter_scale: updates are relative to the root mean square of the variable, at least `epsilon2`.
        clipping_threshold: of the root mean square of an update; None for no clipping.
        min_dim_size_to_factor: variables whose second largest dimension is smaller are not factored.
        exclude_from_parameter_scale: regular expressions, searched for in variables' paths.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta1=0.0,
        beta2=None,
        epsilon1=1e-30,
        epsilon2=1e-3,
        multiply_by_parameter_scale=True,
        clipping_threshold=1.0,
        min_dim_size_to_factor=128,
        exclude_from_parameter_scale=None,
        **kwargs,
    ):
        if learning_rate is None:
            learning_rate = RelativeStep(1.0 if multiply_by_parameter_scale else 0.05)
        super().__init__(learning_rate=learning_rate, **kwargs)
        settings = {
            "beta1": beta1,
            "beta2": beta2,
            "epsilon1": epsilon1,
            "epsilon2": epsilon2,
            "multiply_by_parameter_scale": multiply_by_parameter_scale,
            "clipping_threshold": clipping_threshold,
            "min_dim_size_to_factor": min_dim_size_to_factor,
            "exclude_from_parameter_scale": exclude_from_parameter_scale or [],
        }
        check_patterns(settings, "exclude_from_parameter_scale")
        vars(self)["settings"] = settings

    def get_config(self):
        return super().get_config() | self.settings

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        if self.settings["beta1"] > 0:
            self.momentums = self.add_optimizer_variables(variables, "momentum")
        self.second_moments = [self.add_second_moments(v) for v in variables]

    def add_second_moments(self, variable):
        axes = self.factored_axes(variable.shape)
        if axes is None:
            return [self.add_variable_from_reference(variable, "velocity")]
        shapes = [[1 if i == axis else n for i, n in enumerate(variable.shape)] for axis in axes]
        return [self.add_variable(shape, dtype=variable.dtype, name="velocity") for shape in shapes]

    def factored_axes(self, shape) -> tuple[int, int] | None:
        """The largest dimension and the second largest; None where moments are not factored."""
        if len(shape) < 2:
            return None
        second, first = np.argsort(shape, kind="stable")[-2:]
        return None if shape[second] < self.settings["min_dim_size_to_factor"] else (int(first), int(second))

    def update_step(self, gradient, variable, learning_rate):
        index, dtype, settings = self._get_variable_index(variable), variable.dtype, self.settings
        t = ops.cast(self.iterations + 1, dtype)
        beta2 = 1 - ops.power(t, -0.8) if settings["beta2"] is None else settings["beta2"]
        gradient = ops.cast(gradient, dtype)
        moments = self.second_moment(index, ops.square(gradient) + settings["epsilon1"], beta2)
        update = gradient / ops.sqrt(moments + settings["epsilon1"])
        if settings["clipping_threshold"] is not None:
            update = update / ops.maximum(1.0, root_mean_square(update) / settings["clipping_threshold"])
        if settings["beta1"] > 0:
            momentum = self.momentums[index]
            self.assign(momentum, settings["beta1"] * momentum + (1 - settings["beta1"]) * update)
            update = ops.convert_to_tensor(momentum)
        path = self._trainable_variables[index].path
        if settings["multiply_by_parameter_scale"] and not matches(path, settings["exclude_from_parameter_scale"]):
            update = update * ops.maximum(root_mean_square(variable), settings["epsilon2"])
        self.assign_sub(variable, ops.cast(learning_rate, dtype) * update)

    def second_moment(self, index, squares, beta2):
        slots, axes = self.second_moments[index], self.factored_axes(squares.shape)
        means = [squares] if axes is None else [ops.mean(squares, axis=axis, keepdims=True) for axis in axes]
        for slot, mean in zip(slots, means, strict=True):
            self.assign(slot, beta2 * slot + (1 - beta2) * mean)
        if axes is None:
            return slots[0]
        rows, columns = slots
        return rows * columns / ops.mean(rows, axis=axes[1], keepdims=True)


def root_mean_square(x):
    """The root of the mean square. Shape: any -> ()"""
    return ops.sqrt(ops.mean(ops.square(x)))
