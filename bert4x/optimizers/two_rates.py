"""AdamW with one learning rate for a pretrained model and another for what was put on it."""

from collections.abc import Iterable

import keras


@keras.saving.register_keras_serializable("bert4x")
class TwoRateAdamW(keras.optimizers.AdamW):
    """Keras' AdamW, of which the variables at some paths learn `multiplier` times as fast.

    It does that one thing of `extend_with_parameter_wise_lr`, at no cost: the learning rate is all that differs.
    Decay is that of the plain rate for all.

    Args:
        faster: the paths of those variables.
        multiplier: of the learning rate.
    """

    def __init__(self, *args, faster: Iterable[str] = (), multiplier: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.faster, self.multiplier = sorted(faster), multiplier

    def update_step(self, gradient, variable, learning_rate):
        # TensorFlow's optimizers are given its own variables, which do not know their paths.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        super().update_step(gradient, variable, learning_rate * (self.multiplier if path in self.faster else 1))

    def get_config(self):
        return super().get_config() | {"faster": list(self.faster), "multiplier": self.multiplier}
