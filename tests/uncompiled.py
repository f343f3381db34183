"""Decoding without XLA, for its first steps: on TensorFlow a tiny model compiles for 2 seconds or more, and takes 0.05
for a token.

What a test decodes is computed by the same functions, run as PyTorch runs them; one that is asked for more tokens goes
on with the compiled ones. Tests marked `compiled` compile from the start, those of tests/test_generation.py first of
all. So do all on JAX (tests/test_generation_backends.py), and here with `python -m pytest --compiled`.
"""

import keras

from bert4x.generation.compiled import CompiledByShape

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
