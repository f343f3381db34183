"""Tests compile little: on TensorFlow a tiny model's decoding compiles for 4 seconds, a step of training for 2 to 5, a
pass for 0.5, where computed as it stands a token or a pass takes 0.05.

What a test computes is computed by the same functions. The first tokens are decoded, and the first batches scored, as
PyTorch runs them; what is asked for more goes on with the compiled functions. Steps of training are graphs without XLA
(of Keras' `fit`, too), and no graph is optimized before it runs. Tests marked `compiled` compile all from the start, as
users' programs do: those of tests/test_generation.py, test_optimizers.py and every task's in test_fit.py first of all.
So do all on JAX (tests/test_backends.py, test_generation_backends.py), and here with `python -m pytest --compiled`.
"""

import keras

from bert4x.generation.compiled import CompiledByShape
from bert4x.training import compiled as training

STEPS = 32  # of decoding, of one function and its shapes; compiling costs as much as about 40
PASSES = 16  # of a function that only reads
active = True  # whether the test that runs leaves out compiling


def use(leave_out: bool) -> None:
    """Says whether what runs from now on leaves out compiling."""
    global active
    active = leave_out
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": leave_out})


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


def first_calls(plain, compiled):
    """A function that only reads: its first calls are computed by the one, all others by the other."""
    calls = 0

    def run(*args):
        nonlocal calls
        calls += 1
        return plain(*args) if active and calls <= PASSES else compiled(*args)

    return run


def graphless(making):
    """`Compiled.__init__`, of which the first calls make no graph where they only read."""

    def make(self, function, variables, assigns=True):
        making(self, function, variables, assigns)
        if not assigns and keras.backend.backend() == "tensorflow":
            self.run = first_calls(self.function, self.run)

    return make


def inlined(compiling):
    """`apply_on_tensorflow`, by the graph that it stands in, if any."""

    def apply_on_tensorflow(optimizer, gradients, variables):
        if active:
            optimizer.apply(gradients, variables)
        else:
            compiling(optimizer, gradients, variables)

    return apply_on_tensorflow


def without_xla(making, function):
    """`make_train_function` and its like of a Keras model: plain graphs; to read, none for the first batches."""

    def made(model, **changes):
        before = {name: getattr(model, name) for name in changes}
        try:
            for name, value in changes.items():
                setattr(model, name, value)
            making(model, force=True)
        finally:
            for name, value in before.items():
                setattr(model, name, value)
        return getattr(model, function)

    def make(self, force=False):
        if not active or self.run_eagerly or not (force or getattr(self, function) is None):
            return making(self, force)
        graph = made(self, jit_compile=False)
        if function != "train_function":
            setattr(self, function, first_calls(made(self, run_eagerly=True), graph))
        return getattr(self, function)

    return make


CompiledByShape.on_tensorflow = tiered(CompiledByShape.on_tensorflow)
training.Compiled.__init__ = graphless(training.Compiled.__init__)
training.apply_on_tensorflow = inlined(training.apply_on_tensorflow)
if keras.backend.backend() == "tensorflow":
    for part in ("train", "test", "predict"):
        name = f"make_{part}_function"
        setattr(keras.Model, name, without_xla(getattr(keras.Model, name), f"{part}_function"))
