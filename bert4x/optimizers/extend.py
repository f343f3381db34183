"""bert4keras' `extend_with_*`: classes of optimizers that do one thing more."""

import keras

from bert4x.errors import ConfigError
from bert4x.optimizers import extensions, gradients


def extend(extension: type, base: type, name: str | None) -> type:
    """A subclass of `base` with an extension, registered with Keras so that a saved model finds it.

    Raises: ConfigError when `base` is no class of optimizers, or has this extension already.
    """
    if not (isinstance(base, type) and issubclass(base, keras.optimizers.Optimizer)):
        raise ConfigError(f"{base!r} cannot be extended; expected a class of optimizers such as keras.optimizers.Adam")
    if issubclass(base, keras.optimizers.LossScaleOptimizer):
        raise ConfigError("LossScaleOptimizer makes no updates itself: extend the optimizer that it is put around")
    if issubclass(base, extension):
        raise ConfigError(
            f"{base.__name__} is extended with {extension.__name__} already; give it other arguments instead"
        )
    name = name or f"{base.__name__}With{extension.__name__}"
    made = type(name, (extension, base), {"__module__": __name__, "__doc__": extension.__doc__})
    return keras.saving.register_keras_serializable("bert4x", name)(made)


def extend_with_weight_decay(BaseOptimizer: type, name: str | None = None) -> type:
    """Decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101): learning rate times rate times weight.

    Args of the new class: `weight_decay_rate=0.01`; `exclude_from_weight_decay`, regular expressions searched for in
    variables' paths, by default `NOT_DECAYED`: biases and the scales and shifts of normalisations. bert4keras' default
    is to exclude nothing: `[]`.
    """
    return extend(extensions.WeightDecay, BaseOptimizer, name)


def extend_with_layer_adaptation(BaseOptimizer: type, name: str | None = None) -> type:
    """LAMB (You et al. 2019, arXiv:1904.00962): a variable's update is as long as learning rate times its norm.

    With weight decay, decay is a part of the update, as in the paper and in bert4keras; it is not in Keras' own Lamb.

    Args of the new class: `exclude_from_layer_adaptation=[]`, regular expressions searched for in variables' paths.
    """
    return extend(extensions.LayerAdaptation, BaseOptimizer, name)


def extend_with_piecewise_linear_lr(BaseOptimizer: type, name: str | None = None) -> type:
    """The learning rate times `piecewise_linear(iterations, lr_schedule)`.

    Args of the new class: `lr_schedule={0: 1}`, `{step: multiplier}`. Steps are real updates: bert4keras counts every
    batch when gradients are accumulated.
    """
    return extend(extensions.PiecewiseLinearLr, BaseOptimizer, name)


def extend_with_gradient_accumulation(BaseOptimizer: type, name: str | None = None) -> type:
    """One update with the average gradient of `grad_accum_steps` batches; the others only add to a sum.

    Equal to one batch of all of them: decay, clipping, schedules, moving averages and `iterations` know of real updates
    only. bert4keras' first update was made at once, of an empty sum, and Adam's bias correction counted batches; with
    Keras' `gradient_accumulation_steps`, schedules count batches and `use_ema` moves with every one.

    Args of the new class: `grad_accum_steps=2`.
    """
    return extend(gradients.GradientAccumulation, BaseOptimizer, name)


def extend_with_lookahead(BaseOptimizer: type, name: str | None = None) -> type:
    """Lookahead (Zhang et al. 2019, arXiv:1907.08610): every k updates, slow weights go a part of the way to the
    weights, which then begin anew from there.

    Slow weights begin as the weights; in bert4keras' TensorFlow version they begin as 0, which halves the weights.

    Args of the new class: `steps_per_slow_update=5` (k), `slow_step_size=0.5` (alpha).
    """
    return extend(extensions.Lookahead, BaseOptimizer, name)


def extend_with_lazy_optimization(BaseOptimizer: type, name: str | None = None) -> type:
    """Rows of a variable whose gradient is zero are left as they are, as are their moments: momentum and decay do not
    change the embeddings of tokens that are not in the batch. Source: kexue.fm/archives/6869.

    bert4keras' moments decayed all the same.

    Args of the new class: `include_in_lazy_optimization=[]`, regular expressions searched for in variables' paths.
    """
    return extend(extensions.LazyOptimization, BaseOptimizer, name)


def extend_with_exponential_moving_average(BaseOptimizer: type, name: str | None = None) -> type:
    """Averages of the weights, `ema_weights`; `apply_ema_weights` puts them in, `reset_old_weights` the others back.

    The average begins as the weights, and the momentum of update t is min(ema_momentum, (1 + t) / (10 + t)), so that it
    is worth using from the first update on. bert4keras' begins at 0 and divides by 1 - momentum^t.

    Args of the new class: `ema_momentum=0.999`.
    """
    return extend(extensions.ExponentialMovingAverage, BaseOptimizer, name)


def extend_with_parameter_wise_lr(BaseOptimizer: type, name: str | None = None) -> type:
    """A variable's update times the product of the multipliers whose key is a part of its path.

    Args of the new class: `paramwise_lr_schedule={}`, `{substring: multiplier}`; `layerwise_schedule` makes one.
    """
    return extend(extensions.ParameterWiseLr, BaseOptimizer, name)


def extend_with_gradient_operations(BaseOptimizer: type, name: str | None = None) -> type:
    """Functions of single gradients: set to zero, scale, clip, add noise.

    They see gradients before Keras clips them, and averages when gradients are accumulated. A gradient of zero does not
    keep a variable as it is: momentum and weight decay go on.

    Args of the new class: `gradient_operations={}`, `{regular expression: function of a gradient}`; all whose
    expression is found in a variable's path are applied in order. To be saved, functions must be registered with Keras.
    """
    return extend(gradients.GradientOperations, BaseOptimizer, name)


# bert4keras' names of the versions for tf.keras.
extend_with_weight_decay_v2 = extend_with_weight_decay
extend_with_layer_adaptation_v2 = extend_with_layer_adaptation
extend_with_piecewise_linear_lr_v2 = extend_with_piecewise_linear_lr
extend_with_gradient_accumulation_v2 = extend_with_gradient_accumulation
extend_with_lookahead_v2 = extend_with_lookahead
extend_with_lazy_optimization_v2 = extend_with_lazy_optimization
extend_with_exponential_moving_average_v2 = extend_with_exponential_moving_average
extend_with_parameter_wise_lr_v2 = extend_with_parameter_wise_lr
