"""Several devices: batches divided over them, matrices divided over them, or both; on JAX.

Matrices are divided as in Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053, section 3): the first of two by columns,
the second by rows, so that a block adds up what the devices computed twice, after attention and after feed-forward. XLA
derives from the layout of the weights what the devices must tell each other.
"""

import re
from collections.abc import Callable
from types import SimpleNamespace

import keras
import numpy as np

from bert4x.errors import ConfigError, RunError

DATA, MODEL = "data", "model"
PARTS = r".*-(?:MultiHead\w+|FeedForward)"
# Paths of variables, and the axis of the device mesh that each of their axes is divided over. All others are whole.
LAYOUT = {
    PARTS + r"/(?:query|key|value|gate|intermediate)/(?:lora_kernel_b|kernel)": (None, MODEL),
    PARTS + r"/(?:query|key|value|gate|intermediate)/bias": (MODEL,),
    PARTS + r"/output/(?:lora_kernel_a|kernel)": (MODEL, None),
    r".*(?:Embedding-Token|LM-Head)/(?:lora_embeddings_a|embeddings)": (MODEL, None),
    r".*MLM-Bias/bias": (MODEL,),
}


class Devices(keras.distribution.ModelParallel):
    """A mesh of devices, (data, model): each row of it holds the model once and computes a part of the batch."""

    def __init__(self, data: int, model: int, names: list[str]):
        mesh = keras.distribution.DeviceMesh((data, model), (DATA, MODEL), names)
        layouts = keras.distribution.LayoutMap(mesh)
        for pattern, axes in LAYOUT.items():
            layouts[pattern] = axes
        super().__init__(layout_map=layouts, batch_dim_name=DATA)
        self.data, self.model = data, model

    def get_variable_layout(self, variable):
        """The layout of a variable; whole where its rows (of the vocabulary) cannot be divided."""
        found = super().get_variable_layout(variable)
        whole = layout(variable) is None and parts(variable.path, variable.shape, self.model) == 1
        return keras.distribution.TensorLayout([None] * len(variable.shape), self.device_mesh) if whole else found


def distribution(data: int | None = None, model: int = 1, *, devices: list[str] | None = None) -> Devices:
    """A `keras.distribution` for bert4x' models: use its `scope()`, or `keras.distribution.set_distribution`, before
    loading.

    Args:
        data: copies of the model, over which the rows of every batch are divided; default: as many as there are
            devices for.
        model: devices over which the matrices of each copy are divided.
        devices: their names, such as "gpu:0"; default: all of all hosts (`keras.distribution.list_devices()`).
    Raises: RunError when there are fewer devices, or on a backend that cannot do this.
    """
    check_backend()
    found = keras.distribution.list_devices() if devices is None else list(devices)
    for name, count in (("data", data), ("model", model)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise RunError(f"{name}={count!r}; expected a number of devices, at least 1")
    if data is None:
        data = max(1, len(found) // model)
    if data * model > len(found):
        raise RunError(
            f"{data} x {model} devices (data x model) are asked for, but {len(found)} found: {', '.join(found[:8])}. "
            "XLA_FLAGS=--xla_force_host_platform_device_count=8 makes a CPU look like 8, to try things out"
        )
    return Devices(data, model, found[: data * model])


def check_backend() -> None:
    """Raises: RunError where `keras.distribution` does nothing."""
    backend = keras.backend.backend()
    if backend == "jax":
        return
    strategy = "; or load, compile and fit within tf.distribute.MirroredStrategy().scope()"
    raise RunError(
        f"Keras divides models and batches over devices on JAX only, this is {backend}: set KERAS_BACKEND=jax (a "
        f"recipe's --backend jax){strategy if backend == 'tensorflow' else ''}"
    )


def check(config, quantize: str | None = None) -> None:
    """Raises: ConfigError where a model cannot be divided over the current distribution's devices."""
    current = keras.distribution.distribution()
    if not isinstance(current, Devices) or current.model == 1:
        return
    if quantize:
        raise ConfigError(f"quantize={quantize!r} is for models that are not divided; load it with model=1")
    heads, units = config.num_attention_heads, config.intermediate_size
    if heads % current.model or units % current.model:
        fitting = [n for n in range(1, heads + 1) if not (heads % n or units % n)]
        raise ConfigError(
            f"{heads} attention heads and {units} intermediate units cannot be divided over {current.model} devices; "
            f"expected model = {', '.join(map(str, fitting))}"
        )


def parts(path: str, shape: tuple[int, ...], model: int) -> int:
    """How many parts a variable is divided into over so many devices: one for each, or 1."""
    axes = next((axes for pattern, axes in LAYOUT.items() if re.fullmatch(pattern, path)), ())
    return model if MODEL in axes and shape[axes.index(MODEL)] % model == 0 else 1


def divided() -> bool:
    """Whether there is a distribution, so that variables have layouts."""
    return keras.backend.backend() == "jax" and keras.distribution.distribution() is not None


def layout(variable):
    """How a variable is divided over devices; None where it is not, for variables that must lie beside it."""
    return getattr(variable, "_layout", None)


def place(path: str, shape: tuple[int, ...], dtype: str, read: Callable[[tuple[slice, ...]], np.ndarray]):
    """A variable's values, each device's part read for it alone, and once where several hold the same.

    `read` takes a slice with bounds for each axis. In memory there is one part at a time.

    Shape: -> `shape`
    """
    import jax

    variable = SimpleNamespace(path=path, shape=shape)
    sharding = keras.distribution.distribution().get_variable_layout(variable).backend_layout
    holders: dict[tuple, list] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        holders.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, devices in holders.items():
        part = np.ascontiguousarray(read(tuple(slice(*b) for b in bounds)), dtype)
        arrays += [jax.device_put(part, device) for device in devices]
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)
