"""bert4keras' `data_parallel`: the rows of a batch divided over the devices of one process."""

from collections.abc import Sequence

import keras

from bert4x import layers as L
from bert4x.errors import ConfigError


@keras.saving.register_keras_serializable("bert4x")
class OnDevice(keras.layers.Layer):
    """A model whose operations are placed on a device. Shape: as the model's"""

    def __init__(self, model, device: str, **kwargs):
        super().__init__(**kwargs)
        self.model, self.device = model, device
        self.supports_masking = True

    def call(self, inputs):
        with keras.device(self.device):
            return self.model(inputs)

    def compute_output_spec(self, inputs):
        return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), self.model.output)


def data_parallel(
    model: keras.Model, devices: int | Sequence[str] | None = None, parts: Sequence[int] | None = None
) -> keras.Model:
    """A model of the same inputs, outputs and weights that computes parts of a batch on several devices; the model
    itself where there is one device. A `tf.distribute` strategy, or `bert4x.devices.distribution`, is faster: here the
    weights lie on one device.

    Args:
        devices: their names, as "gpu:0", or how many GPUs; by default all.
        parts: the share of rows of each; by default equal.
    Raises: ConfigError for several devices on another backend than TensorFlow, and where shares and devices differ.
    """
    if devices is None or isinstance(devices, int):
        devices = keras.distribution.list_devices("gpu")[:devices]
    if parts is not None and len(parts) != len(devices):
        raise ConfigError(f"{len(parts)} parts for {len(devices)} devices {list(devices)}; expected one for each")
    if len(devices) < 2:
        return model
    if len(set(devices)) > 1 and keras.backend.backend() != "tensorflow":
        raise ConfigError("data_parallel places operations on TensorFlow only; see bert4x.devices.distribution")
    count = len(devices)
    split = L.BatchSplit(count if parts is None else list(parts))(model.inputs)
    found = [keras.tree.flatten(OnDevice(model, device)(split[i::count])) for i, device in enumerate(devices)]
    outputs = [L.BatchConcat()(list(same)) for same in zip(*found, strict=True)]
    return keras.Model(model.inputs, outputs if len(outputs) > 1 else outputs[0])
