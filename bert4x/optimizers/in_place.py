"""AdamW on PyTorch, where no compiler joins the operations of an update: as many as possible write in place."""

import keras
from keras import ops


class InPlaceOnTorch:
    """A mixin in front of Keras' Adam or AdamW: on PyTorch the same numbers to the bit in half of the time; the norm
    of all gradients alone adds up their squares in another order.
    """

    def update_step(self, gradient, variable, learning_rate):
        if keras.backend.backend() != "torch" or self.amsgrad or gradient.dtype != variable.value.dtype:
            super().update_step(gradient, variable, learning_rate)
            return
        import torch

        with torch.no_grad():  # as Keras assigns values, whoever calls
            self.write_step(gradient, variable, learning_rate)

    def write_step(self, gradient, variable, learning_rate):
        """The update, in place. Shape: that of the variable, twice, ()"""
        index, dtype = self._get_variable_index(variable), variable.dtype
        m, v = self._momentums[index].value, self._velocities[index].value
        step = ops.cast(self.iterations + 1, dtype)
        powers = [ops.power(ops.cast(beta, dtype), step) for beta in (self.beta_1, self.beta_2)]
        alpha = ops.cast(learning_rate, dtype) * ops.sqrt(1 - powers[1]) / (1 - powers[0])
        m.lerp_(gradient, 1 - self.beta_1)
        v.lerp_(gradient.square(), 1 - self.beta_2)
        variable.value.sub_((m * alpha).div_(v.sqrt().add_(self.epsilon)))

    def _clip_gradients(self, grads):
        if keras.backend.backend() != "torch" or not self.global_clipnorm or self.clipnorm:
            return super()._clip_gradients(grads)
        import torch

        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        scale = self.global_clipnorm / norm.clamp(min=self.global_clipnorm)
        scale = scale + (norm - norm)  # NaN where the norm is not finite
        return torch._foreach_mul(grads, scale)
