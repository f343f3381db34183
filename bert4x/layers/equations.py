"""Differential equations as cells of recurrent networks (Su, kexue.fm/archives/5643)."""

import keras


class EquationCell(keras.layers.Layer):
    """One step of dx/dt = slope(x), as a cell of `keras.layers.RNN`; a class of its own has the slope, and weights for
    its constants. What comes in at each step only says that there is one.

    Args:
        size: of x.
        length: of a step.
        runge_kutta: the step of four terms (error h^4 in all); otherwise Euler's, x + h slope(x) (error h).

    Shape: (B, 1), [(B, D)] -> (B, D), [(B, D)]
    """

    def __init__(self, size: int, length: float, runge_kutta: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.length, self.runge_kutta, self.state_size, self.output_size = length, runge_kutta, size, size

    def slope(self, x):
        """Shape: (B, D) -> the same"""
        raise NotImplementedError

    def call(self, tick, states):
        x, h = states[0], self.length
        first = self.slope(x)
        if self.runge_kutta:
            second = self.slope(x + h / 2 * first)
            third = self.slope(x + h / 2 * second)
            first = (first + 2 * second + 2 * third + self.slope(x + h * third)) / 6
        x = x + h * first
        return x, [x]

    def get_config(self):
        own = {"size": self.state_size, "length": self.length, "runge_kutta": self.runge_kutta}
        return super().get_config() | own


def solver(cell: EquationCell) -> keras.Model:
    """A model of a beginning, and one tick for each step, to the solution after each.

    Shape: (B, D), (B, T, 1) -> (B, T, D)
    """
    start, ticks = keras.Input((cell.state_size,)), keras.Input((None, 1))
    return keras.Model([start, ticks], keras.layers.RNN(cell, return_sequences=True)(ticks, initial_state=start))
