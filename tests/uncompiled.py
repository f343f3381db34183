"""Decoding without XLA, for its first steps, and updates without it: on TensorFlow a tiny model's decoding compiles for
2 seconds or more, its update for 1, and a token takes 0.05.

What a test decodes is computed by the same functions, run as PyTorch runs them; one that is asked for more tokens goes
on with the compiled ones. An update is part of its step's graph. Tests marked `compiled` compile from the start: those
of tests/test_generation.py, test_optimizers.py and test_recipe_runs.py first of all. So do all on JAX
(tests/test_generation_backends.py), and here with `python -m pytest --compiled`.
"""

import keras

from bert4x.generation.compiled import CompiledByShape
from bert4x.training import compiled as training

STEPS = 32  # of one function and its shapes; compiling costs as much as about 40
active = True  # whether the test that runs leaves out compiling


def tiered(compiling):
    """`CompiledByShape.on_tensorflow`, whose functions are compiled when they have run for so many steps."""

    def on_tensorflow(self, donate):
        compiled, taken = compiling(self, donate), {}

        def run(*args):
            shapes = tuple(tuple(x.shape) for x in keras.tree.flatten(args))
            left = STEPS - taken.get(shapes, 0) if active else 0
            if left <= 0:
                return compiled(*args)
            if len(args) != 3 or not hasattr(args[0], "step"):  # reads prompts, takes one step, or scores
                taken[shapes] = STEPS - left + 1
                return self.traced(*args)
            state, given, limit = args  # `Engine.advance`
            before = int(state.step)
            state = self.traced(state, given, keras.ops.minimum(limit, before + left))
            taken[shapes] = STEPS - left + int(state.step) - before
            done = int(state.step) >= int(limit) or bool(keras.ops.all(state.finished))
            return state if done else compiled(state, given, limit)

        return run

    return on_tensorflow


CompiledByShape.on_tensorflow = tiered(CompiledByShape.on_tensorflow)


def inlined(compiling):
    """`apply_on_tensorflow`, by the graph that it stands in."""

    def apply_on_tensorflow(optimizer, gradients, variables):
        if active:
            optimizer.apply(gradients, variables)
        else:
            compiling(optimizer, gradients, variables)

    return apply_on_tensorflow


training.apply_on_tensorflow = inlined(training.apply_on_tensorflow)
