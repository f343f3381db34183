"""What all bert4x layers share: variables that are created straight from a checkpoint."""

import contextlib
import contextvars
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Protocol

import keras
import numpy as np
from keras import ops

from bert4x import devices
from bert4x.errors import ConfigError, nearest
from bert4x.layers.calling import CalledAtOnce
from bert4x.layers.gradients import add_bias, in_one_pass
from bert4x.layers.keras2 import KnowsCalls
from bert4x.layers.quantized import check_int8, int8_matmul, quantize


class WeightSource(Protocol):
    """Where initial values come from; both give None where the layer's own initializer should run."""

    def __call__(self, path: str, shape: tuple[int, ...], any_order: bool = False) -> np.ndarray | None:
        """All values of a variable; with `any_order` maybe transposed in memory."""

    def parts(self, path: str, shape: tuple[int, ...]) -> Callable[[tuple[slice, ...]], np.ndarray] | None:
        """A function that reads some of the values: a slice with bounds for each axis."""


_source: contextvars.ContextVar[WeightSource | None] = contextvars.ContextVar("weight_source", default=None)


@contextlib.contextmanager
def weights_from(source: WeightSource) -> Iterator[None]:
    """Within the block, every variable of a bert4x layer starts with the values `source` gives for its path.

    The array becomes the variable's memory where possible, so `source` must not keep it or give it twice. Creating
    variables at random and assigning afterwards takes more time than everything else in loading BERT-base.
    """
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


class LoadsWeights(CalledAtOnce, KnowsCalls):
    """Mix-in for a Keras layer: `add_weight` asks the enclosing `weights_from` first."""

    def add_weight(self, *args, shape=None, initializer=None, name=None, **kwargs):
        if _source.get() is not None and devices.divided():
            divided = self.from_parts(name, tuple(shape), kwargs.get("dtype") or self.variable_dtype)
            return super().add_weight(*args, shape=shape, initializer=divided or initializer, name=name, **kwargs)
        values = self.from_source(name, shape, outputs_first(self.variable_dtype) and name == "kernel")
        if values is not None:

            def initializer(shape, dtype=None):
                return taken_over(values, dtype)

        return super().add_weight(*args, shape=shape, initializer=initializer, name=name, **kwargs)

    def from_source(self, name: str, shape, any_order: bool) -> np.ndarray | None:
        """The values of a variable, if there is a source; with `any_order` maybe transposed. Shape: -> `shape`"""
        source = _source.get()
        return None if source is None else source(f"{self.path}/{name}", tuple(shape), any_order)

    def from_parts(self, name: str, shape: tuple[int, ...], dtype: str):
        """An initializer that reads for each device what it will hold, if there is a source of that."""
        path = f"{self.path}/{name}"
        read = _source.get().parts(path, shape)
        if read is None:
            return None

        def initializer(shape, dtype=dtype, layout=None):  # Keras compiles those that take no layout
            return devices.place(path, shape, dtype, read)

        return initializer

    def add_quantized(self, name: str, shape, initializer, transpose: bool = False):
        """A matrix as an int8 variable of rows for each output, (N, K), and that of their scales, (N,), in float32.

        `shape` is that of the values, (K, N) with `transpose`. The float matrix is gone before the next is read.
        """
        values = self.from_source(name, shape, any_order=True)
        if values is None:
            values = ops.convert_to_numpy(initializer(tuple(shape), "float32"))
        values, scale = quantize(values.T if transpose else values)

        add_weight = super().add_weight

        def add(name, array):
            dtype = array.dtype.name
            kwargs = {"shape": array.shape, "dtype": dtype, "initializer": lambda *_, **__: taken_over(array, dtype)}
            return add_weight(name=name, trainable=False, autocast=False, **kwargs)

        return add(name, values), add(f"{name}_scale", scale)


def outputs_first(dtype: str) -> bool:
    """Whether a kernel, (K, N), should lie in memory as (N, K): PyTorch reads one of two bytes 1.7 times faster so."""
    return keras.backend.backend() == "torch" and dtype in ("bfloat16", "float16")


def taken_over(values: np.ndarray, dtype):
    """An array of which there is no other user, as a tensor: in the same memory where the backend can use it.

    JAX takes over an aligned array by itself. TensorFlow copies it three times on the way to a variable, unless it
    comes by DLPack (and crashes, if it is not aligned).

    Shape: any -> the same
    """
    shareable = values.ctypes.data % 64 == 0 and values.flags.writeable and values.dtype.kind in "fi"
    if keras.backend.backend() == "tensorflow" and shareable and values.size:
        import tensorflow as tf

        return tf.cast(tf.experimental.dlpack.from_dlpack(values.__dlpack__()), dtype)
    return ops.convert_to_tensor(values, dtype=dtype)


def product_on_torch(layer, x):
    """What a dense layer gives, in PyTorch's own two calls. Shape: (..., K) -> (..., N)"""
    from torch.nn import functional

    kernel, bias = getattr(layer.kernel, "value", layer.kernel), layer.bias.value
    if kernel.dtype != x.dtype:
        x = x.to(kernel.dtype)
    y = functional.linear(x, kernel.T, bias)
    return y if layer.activation is None else layer.activation(y)


@keras.saving.register_keras_serializable("bert4x")
class Dense(LoadsWeights, keras.layers.Dense):
    """`keras.layers.Dense` (LoRA and all) that can start from a checkpoint.

    Under a policy such as "int8_from_bfloat16" its kernel is quantized as it is read, and lies transposed, (N, K);
    what it multiplies is not quantized.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        super().build(input_shape)
        if outputs_first(self._kernel.dtype):
            kernel = self._kernel.value
            kernel.data = kernel.data.T.contiguous().T

    def call(self, inputs, training=None):
        if self.bias is None:
            return super().call(inputs, training=training)
        if keras.backend.backend() == "torch":
            return product_on_torch(self, inputs)
        on_tensorflow = keras.backend.backend() == "tensorflow"
        # In this form only, of matrices, oneDNN takes product, bias and gelu in one go.
        rows = ops.reshape(inputs, (-1, inputs.shape[-1])) if on_tensorflow else inputs
        rows = add_bias(ops.matmul(rows, self.kernel), self.bias, training)
        if self.activation is not None:
            rows = in_one_pass(self.activation, self.units, training)(rows)
        return ops.reshape(rows, (*ops.shape(inputs)[:-1], self.units)) if on_tensorflow else rows

    def quantized_build(self, kernel_shape, mode, config=None):
        check_int8(mode)
        self._kernel, self.kernel_scale = self.add_quantized("kernel", kernel_shape, self.kernel_initializer, True)
        self._is_quantized = True

    def quantized_call(self, inputs, training=None):
        x = int8_matmul(inputs, self._kernel, self.kernel_scale)
        x = x if self.bias is None else x + self.bias
        return x if self.activation is None else self.activation(x)

    def enable_lora(self, *args, **kwargs):
        if self.quantization_mode:
            raise ConfigError("LoRA needs float weights under it; load the model without quantize")
        super().enable_lora(*args, **kwargs)


class Layer(LoadsWeights, keras.layers.Layer):
    """Base of the layers written here. Masks pass through unless a layer says otherwise.

    `settings` names what serialization repeats: those of the constructor's arguments that are attributes.
    """

    settings: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and "settings" not in vars(cls):
            given = list(inspect.signature(cls.__init__).parameters.values())[1:]
            own = [one.name for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
            cls.settings = tuple(dict.fromkeys((*cls.settings, *own)))

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def get_config(self):
        own = {name: getattr(self, name) for name in self.settings if hasattr(self, name)}
        for name, value in own.items():
            if isinstance(value, keras.initializers.Initializer):
                own[name] = keras.initializers.serialize(value)
        return own | super().get_config()

    def new_dense(self, name: str, units: int, shape, activation=None, use_bias=True, start="zeros") -> Dense:
        """A dense layer within this one, built for an input of a shape; `start` is the initializer of its kernel."""
        made = Dense(units, activation, use_bias, start, name=name, dtype=self.dtype_policy)
        made.build(shape)
        return made

    def quantized_call(self, *args, **kwargs):
        return self.call(*args, **kwargs)  # only Dense and Embedding layers within have anything to quantize

    def symbolic(self, shape, dtype=None) -> keras.KerasTensor:
        """The symbolic output of `compute_output_spec`; stating it spares Keras a trial run of every layer."""
        return keras.KerasTensor(tuple(shape), dtype=dtype or self.compute_dtype)


class Unmasked(Layer):
    """Base of layers whose output has no mask."""

    def compute_mask(self, *args, **kwargs):
        return None


@keras.saving.register_keras_serializable("bert4x")
class Dropout(CalledAtOnce, KnowsCalls, keras.layers.Dropout):
    """Dropout (Srivastava et al. 2014) whose masks follow from a variable: a resumed run goes on as it would have.

    Where no seed is given, Keras has PyTorch draw them from its own generator, which no state of training holds. So one
    always is given, drawn as Keras draws it.
    """

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        if seed is None and rate > 0:
            seed = random.randint(1, 10**9)
        super().__init__(rate, noise_shape, seed, **kwargs)

    def call(self, inputs, training=False):
        drops = training and self.rate > 0 and self.noise_shape is None and keras.config.backend() == "torch"
        if not drops or inputs.device.type == "meta":
            return super().call(inputs, training=training)
        return self.dropped(inputs)

    def dropped(self, x):
        """On PyTorch, what Keras' function gives, masks too, by one product: Keras chooses between quotients and zeros,
        which takes 6% more of a step of 12 layers x 384 on a CPU. Shape: any -> the same
        """
        import torch

        kept = 1.0 - self.rate
        generator = torch.Generator(device=x.device).manual_seed(int(self.seed_generator.next().sum()) & 0xFFFFFFFF)
        mask = torch.bernoulli(torch.full(x.shape, kept, device=x.device), generator=generator)
        return x * mask.div_(kept).to(x.dtype)


@keras.saving.register_keras_serializable("bert4x")
class Add(CalledAtOnce, KnowsCalls, keras.layers.Add):
    """A sum with the mask of the first input that has one, as in Keras 2: Keras 3 drops it if any other has none, and
    then nothing that follows (a CRF, a pointer, a mean over tokens) would know the padding.
    """

    def compute_mask(self, inputs, mask=None):
        return next((one for one in mask or () if one is not None), None)


@keras.saving.register_keras_serializable("bert4x")
class Scale(Layer):
    """Its input times a number. Shape: (...) -> (...)"""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * ops.cast(self.factor, x.dtype)

    def compute_output_spec(self, x):
        return self.symbolic(x.shape)


def initializer(stddev: float, seed: int | None = None) -> keras.initializers.Initializer:
    """BERT's initializer: a normal distribution truncated at two standard deviations."""
    return keras.initializers.TruncatedNormal(stddev=stddev, seed=seed)


def activation(name):
    """A Keras activation by name; `gelu_erf` and `gelu_tanh` name the two published forms of gelu.

    Gaussian Error Linear Units, Hendrycks and Gimpel 2016 (arXiv 1606.08415).
    Raises: ConfigError for a name that Keras does not know either.
    """
    ours = {"gelu_erf": gelu_erf, "gelu_tanh": gelu_tanh}
    if isinstance(name, str) and name in ours:
        return ours[name]
    try:
        return keras.activations.get(name)
    except (ValueError, TypeError) as error:
        known = [*ours, "linear", "relu", "silu", "softmax", "tanh"]
        raise ConfigError(f"no activation {name!r}; {nearest(str(name), known)}, or another of Keras'") from error


@keras.saving.register_keras_serializable("bert4x")
def gelu_erf(x):
    """x * Phi(x), with the error function (transformers, bert4keras). Written with Erf, which ONNX can express."""
    if keras.backend.backend() == "torch":  # which has it in one pass
        return ops.gelu(x, approximate=False)
    half, inverse_root = (ops.cast(c, x.dtype) for c in (0.5, 0.5**0.5))
    return x * (half * (1 + ops.erf(x * inverse_root)))


@keras.saving.register_keras_serializable("bert4x")
def gelu_tanh(x):
    """The tanh approximation of gelu (Google's BERT and ALBERT, OpenAI's GPT2, Megatron)."""
    return ops.gelu(x, approximate=True)
