"""Functions of tensors and a model's variables: compiled by XLA on TensorFlow and JAX, recorded on PyTorch."""

from collections.abc import Callable

import keras

from bert4x.layers.recording import Recorded


class CompiledByShape:
    """A function compiled once for every combination of shapes it is called with.

    Its tensors may be nested in tuples and dicts. Variables are looked up when it is called, so that new values are
    seen. `traces` counts compilations (on PyTorch: how often the function itself was run, which for one that can be
    recorded is once for each combination of shapes). On JAX the memory of the arguments at the positions `donate` is
    reused for the results.
    """

    def __init__(self, function: Callable, variables: list, donate: tuple[int, ...] = ()):
        self.function = function
        self.variables = variables
        self.traces = 0
        self.run = {"tensorflow": self.on_tensorflow, "jax": self.on_jax}.get(keras.backend.backend(), self.on_torch)(
            donate
        )

    def __call__(self, *args):
        return self.run(*args)

    def traced(self, *args):
        """The function; that it runs in Python means that it is being traced."""
        self.traces += 1
        return self.function(*args)

    def on_tensorflow(self, donate):
        import tensorflow as tf

        function, concrete = tf.function(self.traced, jit_compile=True, autograph=False), {}

        def run(*args):  # asked for once for all shapes, TensorFlow would warn that it compiles again for new ones
            shapes = tuple((tuple(x.shape), x.dtype) for x in keras.tree.flatten(args))
            if shapes not in concrete:
                concrete[shapes] = function.get_concrete_function(*args)
            return concrete[shapes](*args)

        return run

    def on_jax(self, donate):
        import jax

        def pure(values, *args):  # values as arguments: as constants they would be compiled in, and there twice
            with keras.StatelessScope(state_mapping=zip(self.variables, values, strict=True)):
                return self.traced(*args)

        jitted = jax.jit(pure, donate_argnums=tuple(n + 1 for n in donate))
        return lambda *args: jitted([variable.value for variable in self.variables], *args)

    def on_torch(self, donate):
        return Recorded(self.traced)


def in_loop(function: Callable) -> Callable:
    """What a loop repeats. It is compiled with the loop; PyTorch, which compiles no loop, records it by itself."""
    return Recorded(function) if keras.backend.backend() == "torch" else function
