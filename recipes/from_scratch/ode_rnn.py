"""A recurrent network is a differential equation, solved by steps (Su, kexue.fm/archives/5643).

    dx/dt = f(x)    is solved by    x(t + h) = x(t) + h f(x(t)),

whose right side is the cell of a recurrent network (Euler; Runge and Kutta's step of four terms is another cell). Its
weights are the equation's constants: so training finds an equation from what was observed. Here it is that of eaten and
eaters (Lotka and Volterra), dx_i/dt = x_i (r_i - sum_j a_ij x_j), with six constants.

    python recipes/from_scratch/ode_rnn.py
    python recipes/from_scratch/ode_rnn.py --noise 0.1 --steps 2000

Shown beside scipy, where it is installed: errors of solutions by the length of a step, and the constants found from
observations with noise, by both from nothing (all constants 0). In the output folder: equation.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.layers.equations import EquationCell, solver
from bert4x.plots.figures import optional, picture

RATES, EFFECTS = np.array([1.0, -0.6]), np.array([[0.1, 0.8], [-0.7, 0.05]])
START, END = np.array([1.0, 0.5]), 20.0
JIT = keras.config.backend() == "jax"  # elsewhere compiling takes longer than it saves here


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"steps": 2, "lengths": (0.5, 0.25), "observed": 20}

    output: Path = recipe.option(Path("runs/ode_rnn"), "folder of the picture")
    lengths: tuple[float, ...] = recipe.option((0.4, 0.2, 0.1, 0.05), "of steps of the solutions")
    observed: int = recipe.option(100, "points of time", least=20)
    noise: float = recipe.option(0.05, "of what is observed, as a share of it", least=0)
    steps: int = recipe.option(500, "of training, on short stretches and as many on the whole", least=1)
    learning_rate: float = recipe.option(0.02, "of Adam", above=0)


class LotkaVolterra(EquationCell):
    """The equation, with its constants as weights."""

    def __init__(self, length, runge_kutta=True):
        super().__init__(2, length, runge_kutta)
        self.rates = self.add_weight((2,), "zeros", name="rates")
        self.effects = self.add_weight((2, 2), "zeros", name="effects")

    def slope(self, x):
        return x * (self.rates - ops.matmul(x, ops.transpose(self.effects)))


def exact(rates, effects, times):
    """scipy's solution. Shape: -> (T, 2); None without scipy"""
    try:
        from scipy.integrate import solve_ivp
    except ImportError:
        return None
    found = solve_ivp(lambda t, x: x * (rates - effects @ x), (0, END), START, "DOP853", times, rtol=1e-9, atol=1e-9)
    return found.y.T if found.success else np.full((len(times), 2), 1e3)


def scipy_fit(times, observed):
    """The constants that scipy finds from nothing, by least squares of its own solutions."""
    from scipy.optimize import least_squares

    def off(constants):
        return (exact(constants[:2], constants[2:].reshape(2, 2), times) - observed).ravel()

    return least_squares(off, np.zeros(6), bounds=(-2, 2), max_nfev=200).x


def main(args):
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    # 1. Solutions by steps of several lengths; without scipy, beside the finest of our own.
    def solved(length, runge_kutta):
        cell, ticks = LotkaVolterra(length, runge_kutta), np.zeros((1, round(END / length), 1), "float32")
        cell.set_weights([RATES, EFFECTS])
        return ops.convert_to_numpy(solver(cell)([START[None].astype("float32"), ticks]))[0]

    errors = {}
    print("| step | error, Euler | error, Runge-Kutta |\n|---|---|---|")
    for length in args.lengths:
        times = length * np.arange(1, round(END / length) + 1)
        truth = exact(RATES, EFFECTS, times)
        truth = solved(length / 8, True)[7::8] if truth is None else truth
        errors[length] = [float(np.abs(solved(length, better) - truth).max()) for better in (False, True)]
        print(f"| {length:g} | {errors[length][0]:.2e} | {errors[length][1]:.2e} |", flush=True)

    # 2. What was observed; the network finds the constants, on stretches of a tenth first, then on the whole.
    length = END / args.observed
    clean = np.concatenate([START[None], solved(length / 8, True)[7::8]])
    observed = clean * rng.normal(1, args.noise, clean.shape)
    observed[0] = START
    cell = LotkaVolterra(length)
    model = solver(cell)
    model.compile(keras.optimizers.Adam(args.learning_rate), "mse", jit_compile=JIT)
    for reach in (args.observed // 10, args.observed):
        starts = np.arange(0, args.observed - reach + 1)
        targets = observed[starts[:, None] + np.arange(1, reach + 1)]
        x = [observed[starts], np.zeros((len(starts), reach, 1))]
        model.fit(x, targets, batch_size=len(starts), epochs=args.steps, verbose=0)
    found = {"true": np.concatenate([RATES, EFFECTS.ravel()])}
    found["network"] = np.concatenate([ops.convert_to_numpy(w).ravel() for w in (cell.rates, cell.effects)])
    times = length * np.arange(args.observed + 1)
    if exact(RATES, EFFECTS, times[1:]) is not None:
        found["scipy"] = scipy_fit(times[1:], observed[1:])
    print("| | r1 | r2 | a11 | a12 | a21 | a22 |\n|---|---|---|---|---|---|---|")
    for name, constants in found.items():
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in constants) + " |")

    # 3. The solution of the equation that was found, as a picture.
    ours = np.concatenate([START[None], ops.convert_to_numpy(model([START[None], np.zeros((1, args.observed, 1))]))[0]])
    with optional(), picture(args.output / "equation.png") as (axis,):
        for i, name in enumerate(("eaten", "eaters")):
            axis.plot(times, observed[:, i], ".", color=f"C{i}", label=f"{name}, observed")
            axis.plot(times, ours[:, i], color=f"C{i}", label=f"{name}, of the equation found")
        axis.set(xlabel="time")
        axis.legend()
    return errors, found


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
