"""Averages of the weights over training."""

import contextlib
from collections.abc import Iterator

import keras
from keras import ops

from bert4x.devices import layout
from bert4x.errors import ConfigError


class ExponentialMovingAverage:
    """The exponential moving average of variables (Polyak averaging).

    The first average is the first value, and the momentum of update n is min(momentum, (1 + n) / (10 + n)): the average
    is worth evaluating after any number of steps. bert4keras' starts at zero and divides by 1 - momentum^n, where an n
    that is not counted, or few steps, give weights of no use (F1 = 0; its issues 109, 225, 332).

    Raises: ConfigError for a momentum that is not between 0 and 1.
    """

    def __init__(self, variables: list, momentum: float = 0.999):
        if not 0 < momentum < 1:
            raise ConfigError(f"momentum {momentum!r} of the moving average; expected a number between 0 and 1")
        self.of, self.momentum = list(variables), momentum
        self.updates = keras.Variable(0, dtype="int32", trainable=False, name="ema_updates")
        self.averages = [
            keras.Variable(ops.copy(v.value), dtype=v.dtype, trainable=False, name=f"ema_{i}", layout=layout(v))
            for i, v in enumerate(self.of)
        ]

    @property
    def variables(self) -> list:
        """What a state of training must hold."""
        return [self.updates, *self.averages]

    def update(self) -> None:
        """Moves the averages; after every real update of the weights."""
        n = ops.cast(self.updates.value + 1, "float32")
        momentum = ops.minimum(self.momentum, (1 + n) / (10 + n))
        self.updates.assign(self.updates.value + 1)
        for average, variable in zip(self.averages, self.of, strict=True):
            share = ops.cast(1 - momentum, average.dtype)
            average.assign(average.value + share * (variable.value - average.value))

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the variables hold their averages; afterwards, bit for bit what they held."""
        own = [ops.convert_to_numpy(v.value) for v in self.of]
        try:
            for variable, average in zip(self.of, self.averages, strict=True):
                variable.assign(average.value)
            yield
        finally:
            for variable, value in zip(self.of, own, strict=True):
                variable.assign(value)
