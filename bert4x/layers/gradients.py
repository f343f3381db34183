"""What is trained through otherwise than the backend would by itself: faster, or more exactly."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import keras
from keras import ops

LARGE = 2048  # units: XLA compiles for each new shape, in some tenths of a second, which narrow layers do not win back


_twice: ContextVar[bool] = ContextVar("differentiated_twice", default=False)


@contextlib.contextmanager
def differentiated_twice() -> Iterator[None]:
    """Within it layers compute so that gradients of gradients are right, too."""
    token = _twice.set(True)
    try:
        yield
    finally:
        _twice.reset(token)


def layer_normalization(x, gamma=None, beta=None, epsilon=1e-12):
    """Keras'; but TensorFlow's takes the mean within the variance for a constant, which is right once, not twice.

    Shape: (..., D), (D,), (D,) -> (..., D)
    """
    if not _twice.get() or keras.backend.backend() != "tensorflow":
        return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)
    x = x - ops.mean(x, axis=-1, keepdims=True)
    x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + epsilon)
    x = x if gamma is None else x * gamma
    return x if beta is None else x + beta


def in_one_pass(function: Callable, units: int, training: bool | None) -> Callable:
    """The same function of single numbers; in training on TensorFlow, for layers of so many units, compiled by XLA.

    A plain graph has a pass over memory for every operator of gelu, and keeps what is between them for the backward
    pass. Here the argument alone is kept, and the backward pass computes the function again.
    """
    if not training or units < LARGE or keras.backend.backend() != "tensorflow":
        return function
    return compiled(function)


@functools.cache
def compiled(function: Callable) -> Callable:
    """Shape: any -> the same, of the same dtype; 16 bits are widened within."""
    import tensorflow as tf

    def forward(x):
        wide = tf.cast(x, "float32") if x.dtype.size < 4 else x
        return tf.cast(function(wide), x.dtype)

    def backward(x, gradient):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
        return tape.gradient(y, x, gradient)

    options = {"jit_compile": True, "autograph": False, "reduce_retracing": True}
    value, derivative = tf.function(forward, **options), tf.function(backward, **options)

    @tf.custom_gradient
    def run(x):
        return value(x), lambda gradient: derivative(x, gradient)

    return run


def add_bias(rows, bias, training: bool | None):
    """A sum with a bias, which in training has an exact gradient in 16 bits too: the rows' gradients are added up in
    float32.

    On a CPU TensorFlow adds them in bfloat16, and JAX in either type: of a thousand random rows the sum is off by 3%,
    and where much cancels, as within a model, by 24%.

    Shape: (..., D), (D,) -> (..., D)
    """
    if not training or keras.backend.standardize_dtype(rows.dtype) not in ("bfloat16", "float16"):
        return plain_sum(rows, bias)

    @ops.custom_gradient
    def add(rows, bias):
        def gradients(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return upstream, summed(upstream)

        return plain_sum(rows, bias), gradients

    return add(rows, ops.cast(bias, rows.dtype))


def plain_sum(rows, bias):
    """On TensorFlow in the form that oneDNN fuses with a product before it."""
    if keras.backend.backend() != "tensorflow":
        return ops.add(rows, bias)
    import tensorflow as tf

    return tf.nn.bias_add(rows, bias)


def summed(gradient):
    """The sum over all axes but the last, in float32. TensorFlow has it faster from a product with ones.

    Shape: (..., D) -> (D,)
    """
    if keras.backend.backend() == "tensorflow":
        return ops.matmul(ops.ones((1, ops.shape(gradient)[0]), gradient.dtype), gradient)[0]
    total = ops.sum(ops.cast(gradient, "float32"), axis=tuple(range(len(gradient.shape) - 1)))
    return ops.cast(total, gradient.dtype)
