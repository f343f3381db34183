"""Learning rates that differ from variable to variable, at no cost."""

from collections.abc import Iterable

import keras

from bert4x.optimizers.in_place import InPlaceOnTorch


class PathRates:
    """A mixin in front of a Keras optimizer: the variables at some paths learn faster or slower than the others.

    It does that one thing of `extend_with_parameter_wise_lr`, at no cost: the learning rate is all that differs.
    Decay is that of the plain rate for all.

    Args:
        rates: path of a variable -> multiplier of its learning rate.
    """

    def __init__(self, *args, rates: dict[str, float] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        vars(self)["rates"] = dict(rates or {})  # past TensorFlow's tracking of attributes, which would wrap it

    def update_step(self, gradient, variable, learning_rate):
        # TensorFlow's optimizers are given its own variables, which do not know their paths.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        super().update_step(gradient, variable, learning_rate * self.rates.get(path, 1))

    def get_config(self):
        return super().get_config() | {"rates": dict(self.rates)}


@keras.saving.register_keras_serializable("bert4x")
class TwoRateAdamW(PathRates, InPlaceOnTorch, keras.optimizers.AdamW):
    """AdamW with one learning rate for a pretrained model and another for what was put on it.

    Args:
        faster: the paths of variables that learn `multiplier` times as fast.
        multiplier: of the learning rate.
        rates: path of any other variable -> multiplier of its learning rate.
    """

    def __init__(self, *args, faster: Iterable[str] = (), multiplier: float = 1.0, rates=None, **kwargs):
        faster = sorted(faster)
        super().__init__(*args, rates=(rates or {}) | dict.fromkeys(faster, multiplier), **kwargs)
        self.faster, self.multiplier = faster, multiplier

    def get_config(self):
        return super().get_config() | {"faster": list(self.faster), "multiplier": self.multiplier}
