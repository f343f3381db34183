"""Optimizers and learning-rate schedules under bert4keras' names, for `model.fit` and for bert4x' own training.

`extend_with_*(BaseOptimizer)` returns a new class that does one thing more, made from any Keras optimizer, an extended
one included:

    AdamW = extend_with_weight_decay(Adam)
    AdamWLR = extend_with_piecewise_linear_lr(AdamW)
    optimizer = AdamWLR(1e-5, weight_decay_rate=0.01, lr_schedule={1000: 1, 10000: 0.1})

The order of extending does not matter: see `bert4x.optimizers.extension.Extension` for what happens in which order.
"""

from bert4x.optimizers.algorithms import AdaFactor, Adam, Lion
from bert4x.optimizers.extend import (
    extend_with_exponential_moving_average,
    extend_with_exponential_moving_average_v2,
    extend_with_gradient_accumulation,
    extend_with_gradient_accumulation_v2,
    extend_with_gradient_operations,
    extend_with_layer_adaptation,
    extend_with_layer_adaptation_v2,
    extend_with_lazy_optimization,
    extend_with_lazy_optimization_v2,
    extend_with_lookahead,
    extend_with_lookahead_v2,
    extend_with_parameter_wise_lr,
    extend_with_parameter_wise_lr_v2,
    extend_with_piecewise_linear_lr,
    extend_with_piecewise_linear_lr_v2,
    extend_with_weight_decay,
    extend_with_weight_decay_v2,
)
from bert4x.optimizers.extensions import NOT_DECAYED
from bert4x.optimizers.gradients import GradientNoise
from bert4x.optimizers.layerwise import layerwise_schedule
from bert4x.optimizers.muon import Muon
from bert4x.optimizers.path_rates import TwoRateAdamW
from bert4x.optimizers.schedules import PiecewiseLinear, WarmupDecay, piecewise_linear, warmup_decay
from bert4x.optimizers.tiger import Tiger

__all__ = [
    "NOT_DECAYED",
    "AdaFactor",
    "Adam",
    "GradientNoise",
    "Lion",
    "Muon",
    "PiecewiseLinear",
    "Tiger",
    "TwoRateAdamW",
    "WarmupDecay",
    "extend_with_exponential_moving_average",
    "extend_with_exponential_moving_average_v2",
    "extend_with_gradient_accumulation",
    "extend_with_gradient_accumulation_v2",
    "extend_with_gradient_operations",
    "extend_with_layer_adaptation",
    "extend_with_layer_adaptation_v2",
    "extend_with_lazy_optimization",
    "extend_with_lazy_optimization_v2",
    "extend_with_lookahead",
    "extend_with_lookahead_v2",
    "extend_with_parameter_wise_lr",
    "extend_with_parameter_wise_lr_v2",
    "extend_with_piecewise_linear_lr",
    "extend_with_piecewise_linear_lr_v2",
    "extend_with_weight_decay",
    "extend_with_weight_decay_v2",
    "layerwise_schedule",
    "piecewise_linear",
    "warmup_decay",
]
