"""Learning rates as functions of the step: of a number, without a backend at work, or of a tensor."""

import itertools
import math
import numbers
from typing import Any

import keras
from keras import ops

from bert4x.errors import ConfigError

DECAYS = ("linear", "cosine", "constant", "stable")
STABLE = 0.8  # share of the updates after which the rate of "stable" falls


def piecewise_linear(t: Any, schedule: dict[int, float], from_zero: bool = True) -> Any:
    """bert4keras' piecewise linear function through the points `{step: value}`; constant after the last one.

    `{1000: 1, 2000: 0.1}` rises from 0 to 1 at step 1000, falls to 0.1 at step 2000 and stays there.

    Args:
        t: the step; a number, for which a float is returned, or a scalar tensor.
        from_zero: begin at (0, 0) unless there is a value for step 0; otherwise it is constant before the first point.
    Raises: ConfigError for a schedule without points or with a negative step.
    """
    points = sorted((int(step), float(value)) for step, value in schedule.items())
    if not points or points[0][0] < 0:
        raise ConfigError(f"schedule {schedule!r}; expected {{step: multiplier}} with at least one step, none negative")
    if from_zero and points[0][0] != 0:
        points.insert(0, (0, 0.0))
    t, value = as_float(t), points[0][1]
    for (start, low), (end, high) in itertools.pairwise(points):
        value = value + (high - low) * portion(t, start, end)
    return value


def warmup_decay(t: Any, total_steps: float, warmup_steps: float = 0, decay: str = "linear", end: float = 0.0) -> Any:
    """A multiplier that rises linearly from 0 to 1 over the warm-up, then falls to `end` at `total_steps`.

    "linear" is the schedule of BERT (Devlin et al. 2018), "cosine" half a period of it (Loshchilov and Hutter 2016,
    arXiv:1608.03983), "constant" stays at 1; "stable" does for four fifths of the steps, and then falls by 1 - sqrt
    (warm-up-stable-decay; Hägele et al. 2024, arXiv:2405.18392): how long a run is may be decided late.

    Args:
        t: the step; a number, for which a float is returned, or a scalar tensor.
    Raises: ConfigError.
    """
    if decay not in DECAYS:
        raise ConfigError(f"decay {decay!r}; expected one of {', '.join(DECAYS)}")
    if not 0 <= warmup_steps <= total_steps or total_steps < 1:
        raise ConfigError(
            f"warmup_steps {warmup_steps!r} and total_steps {total_steps!r}; expected 0 <= warmup_steps <= total_steps"
            " and at least one step"
        )
    t = as_float(t)
    warm = portion(t, 0, warmup_steps) if warmup_steps else 1.0
    if decay == "constant" or warmup_steps == total_steps:
        return warm
    past = portion(t, warmup_steps, total_steps)
    if decay == "stable":
        past = portion(t, max(STABLE * total_steps, warmup_steps), total_steps)
        past = past**0.5 if isinstance(past, float) else ops.sqrt(past)
    elif decay == "cosine":
        past = (1 - (math if isinstance(past, float) else ops).cos(math.pi * past)) / 2
    return warm * (1 - (1 - end) * past)


def as_float(t):
    """A number, or a tensor as float32."""
    return float(t) if isinstance(t, numbers.Number) else ops.cast(t, "float32")


def portion(t, start, end):
    """How far t has come from start to end, from 0 to 1."""
    x = (t - start) / (end - start)
    return min(max(x, 0.0), 1.0) if isinstance(x, float) else ops.clip(x, 0.0, 1.0)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times a multiplier; called with a number it returns a float, so that it can be plotted."""

    def __init__(self, learning_rate: float, **settings):
        super().__init__()
        self.learning_rate, self.settings = learning_rate, settings
        self.multiplier(0)  # says now what is wrong

    def multiplier(self, step):
        raise NotImplementedError

    def __call__(self, step):
        rate = self.learning_rate * self.multiplier(step)
        return rate if isinstance(step, numbers.Number) else ops.convert_to_tensor(rate, "float32")

    def get_config(self):
        return {"learning_rate": self.learning_rate, **self.settings}


@keras.saving.register_keras_serializable("bert4x")
class PiecewiseLinear(Schedule):
    """`learning_rate` times `piecewise_linear(step, schedule)`, as the learning rate of any Keras optimizer."""

    def __init__(self, learning_rate: float, schedule: dict[int, float], from_zero: bool = True):
        super().__init__(learning_rate, schedule=dict(schedule), from_zero=from_zero)

    def multiplier(self, step):
        return piecewise_linear(step, **self.settings)


@keras.saving.register_keras_serializable("bert4x")
class WarmupDecay(Schedule):
    """`learning_rate` times `warmup_decay(step, ...)`, as the learning rate of any Keras optimizer."""

    def __init__(
        self, learning_rate: float, total_steps: int, warmup_steps: int = 0, decay: str = "linear", end: float = 0.0
    ):
        super().__init__(learning_rate, total_steps=total_steps, warmup_steps=warmup_steps, decay=decay, end=end)

    def multiplier(self, step):
        return warmup_decay(step, **self.settings)
