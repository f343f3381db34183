"""Training on batches of many shapes, resumed after the last whole epoch."""

import os
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import ConfigError, CorruptFileError
from bert4x.training.pretraining import learning_rate

WARMUP = 0.08


def train_epochs(
    model,
    batches,
    epochs: int,
    peak: float,
    state: str | os.PathLike,
    loss,
    resume: bool = False,
    part: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Trains with AdamW, the learning rate rising to its peak and falling to 0; keeps the state of training in a file.

    Keras' own `fit` wants all batches to be as long as its first ones; these may have any shapes.

    Args:
        batches: (inputs, labels, weights) by number, and `start_epoch`; see `bert4x.training.bidirectional.Triples`.
        state: where weights and optimizer are written after every epoch.
        resume: go on from there, if there is such a file: exactly as if nothing had happened.
        part: of the schedule of the learning rate, where this training begins in it and where it ends.
    Raises: ConfigError when the file is of another model.
    """
    optimizer = keras.optimizers.AdamW(peak, weight_decay=0.01, beta_2=0.98, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    # With TensorFlow every shape would be compiled by XLA, which takes longer than all its batches.
    model.compile(optimizer, loss, jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
    optimizer.build(model.trainable_variables)
    if resume and Path(state).exists():
        load_state(model, state)
    steps, began = epochs * len(batches), time.perf_counter()
    for epoch in range(int(optimizer.iterations) // len(batches), epochs):
        losses = []
        batches.start_epoch(epoch)
        for i in range(len(batches)):
            progress = part[0] + (part[1] - part[0]) * (int(optimizer.iterations) + 1) / (steps + 1)
            optimizer.learning_rate.assign(learning_rate(progress, peak, WARMUP))
            inputs, labels, weights = batches[i]
            losses.append(float(model.train_on_batch(inputs, labels, sample_weight=weights)))
        save_state(model, state)
        print(
            f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}, {time.perf_counter() - began:.0f} s", flush=True
        )


def save_state(model, path: str | os.PathLike) -> None:
    """Writes the weights of a model and its optimizer, atomically."""
    with atomic_write(Path(path)) as file:
        save_file({name: np.asarray(ops.convert_to_numpy(v.value)) for name, v in variables(model).items()}, file)


def load_state(model, path: str | os.PathLike) -> None:
    """Reads what `save_state` wrote.

    Raises: CorruptFileError, ConfigError when the model has other variables.
    """
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise CorruptFileError(f"{path} holds no state of training: {error}; start without resuming") from error
    wanted = variables(model)
    if {name: value.shape for name, value in found.items()} != {name: tuple(v.shape) for name, v in wanted.items()}:
        raise ConfigError(f"{path} holds a model of other sizes; resume with those it had")
    for name, variable in wanted.items():
        variable.assign(found[name])


def variables(model) -> dict:
    """Everything that training changes, by names that another process gives it too."""
    named = {f"model/{i}": v for i, v in enumerate(model.variables)}
    optimizer = getattr(model, "optimizer", None)
    return named | {f"optimizer/{i}": v for i, v in enumerate(optimizer.variables if optimizer else ())}
