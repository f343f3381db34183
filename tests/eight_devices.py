"""What tests/test_devices.py looks at, as JSON: one process on JAX, whose CPU looks like eight devices."""

import collections
import contextlib
import json
import re
import tempfile
from pathlib import Path

import jax
import keras
import numpy as np
from keras import ops
from make_checkpoints import config_of, write_checkpoint

import bert4x
from bert4x.checkpoints import tensors
from bert4x.checkpoints.formats.regions import RegionFile
from bert4x.devices import parts
from bert4x.training.trainer import Trainer

SIZES = {"num_attention_heads": 8, "attention_head_size": 2, "hidden_size": 16, "intermediate_size": 64}
LAYERS, VOCABULARY = 1, 768  # the table is the largest of all
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (8, 9)).astype("int32")


def checkpoint(folder: Path, format: str = "megatron", family: str = "gpt2", **changes) -> Path:
    """A tiny CPM-LM, in two model-parallel parts as it was published; or another family."""
    sizes = SIZES | {"num_hidden_layers": LAYERS, "vocab_size": VOCABULARY, "embedding_size": 16} | changes
    sizes |= {"attention_key_size": sizes["attention_head_size"], "dropout_rate": 0.1, "attention_dropout_rate": 0.1}
    sizes |= {"embedding_mapping": True} if family == "albert" else {}
    config = config_of(family, **sizes)
    return write_checkpoint(folder / f"{format}-{family}", format, config, shards=2 if format == "megatron" else None)


def forward(model, ids=IDS) -> tuple[np.ndarray, int]:
    """Logits, by one program for all devices; and how often that adds up over devices."""

    def pure(values, ids):
        with keras.StatelessScope(zip(model.variables, values, strict=True)):
            return model([ids])

    values = [v.value for v in model.variables]
    program = jax.jit(pure).lower(values, ids).compile()
    return np.asarray(program(values, ids)), len(re.findall(r" all-reduce(?:-start)?\(", program.as_text()))


def difference(a, b) -> float:
    """The largest of all."""
    return float(max(np.abs(np.asarray(x, "float64") - y).max() for x, y in zip(a, b, strict=True)))


@contextlib.contextmanager
def watched():
    """Within the block, the bytes of every read of a file and of every array that goes to a device are noted."""
    seen = collections.defaultdict(list)
    read, put = RegionFile.read, jax.device_put

    def noted_read(self, offset, size):
        seen["read"].append(size)
        return read(self, offset, size)

    def noted_put(array, device=None, *args, **kwargs):
        if isinstance(array, np.ndarray) and array.ndim == 2:
            seen["put"].append(array.nbytes)
        return put(array, device, *args, **kwargs)

    RegionFile.read, jax.device_put, tensors.ROWS = noted_read, noted_put, 256
    try:
        yield seen
    finally:
        RegionFile.read, jax.device_put, tensors.ROWS = read, put, 4 << 20


def held(variables) -> list[int]:
    """Bytes of the variables on each device."""
    count = collections.Counter()
    for variable in variables:
        for part in variable.value.addressable_shards:
            count[part.device.id] += part.data.nbytes
    return [count[device] for device in sorted(count)]


def loading(folder: Path) -> dict:
    """A model over 1, 2 and 8 devices."""
    source, results = checkpoint(folder), {}
    one = bert4x.load(source)
    (expected, _), continued = forward(one), one.generate_ids(IDS[:2], max_new_tokens=5)
    for n in (2, 8):
        with watched() as seen, bert4x.distribution(data=1, model=n).scope():
            model = bert4x.load(source)
        divided = [v for v in model.variables if "model" in v._layout.axes]
        found, all_reduces = forward(model)
        results[n] = {
            "difference": difference([found], [expected]),
            "same_ids": bool((model.generate_ids(IDS[:2], max_new_tokens=5) == continued).all()),
            "all_reduces": all_reduces,
            "divided": sorted(v.path for v in divided),
            "held": held(divided),
            "whole": sum(v.value.nbytes for v in divided),
            "foreseen": sum(v.value.nbytes // parts(v.path, v.shape, n) for v in model.variables),
            "all_held": held(model.variables)[0],
            "largest": {what: max(sizes) for what, sizes in seen.items()},
            "largest_part": max(v.value.addressable_shards[0].data.nbytes for v in model.variables),
        }
    return results


def families(folder: Path) -> dict:
    """The others, over four devices; the vocabulary of one cannot be divided."""
    results = {}
    for family, vocabulary in (("bert", 93), ("albert", 96)):
        source = checkpoint(folder, "hf", family, vocab_size=vocabulary)
        expected, _ = forward(bert4x.load(source, with_mlm=True), IDS % 90)
        with bert4x.distribution(data=2, model=4).scope():
            model = bert4x.load(source, with_mlm=True)
        divided = [v.path for v in model.variables if "model" in v._layout.axes]
        results[family] = {
            "difference": difference([forward(model, IDS % 90)[0]], [expected]),
            "divided": sorted(divided),
        }
    return results


def updates(source: Path) -> tuple[list[float], Trainer]:
    """The losses of two updates, with dropout, and what made them."""
    keras.utils.set_random_seed(3)
    model = bert4x.load(source)

    def loss(outputs, targets):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=True))

    trainer = Trainer(model, loss, keras.optimizers.AdamW(1e-3))
    batch = (IDS[:, :-1],), IDS[:, 1:]
    return [float(trainer.learn([batch], 1e-3)) for _ in range(2)], trainer


def train(source: Path, distribution=None) -> dict:
    """Two updates, with all that has copies of the weights: optimizer, average, sums of gradients."""
    with distribution.scope() if distribution else contextlib.nullcontext():
        losses, trainer = updates(source)
        other = Trainer(trainer.model, trainer.criterion, keras.optimizers.SGD(1e-3), ema=0.9, gathers=True)
        state = [*trainer.kept, *other.ema.averages, *other.sums]
        return {"losses": losses, "values": [np.asarray(v.value) for v in trainer.kept], "held": held(state)}


def training(folder: Path) -> dict:
    """The same updates on one device, and on eight in three ways."""
    source = checkpoint(folder)
    one, results = train(source), {}
    for data, model in ((8, 1), (1, 8), (2, 4)):
        other = train(source, bert4x.distribution(data, model))
        results[f"{data} x {model}"] = {
            "losses": difference(other["losses"], one["losses"]),
            "values": difference(other["values"], one["values"]),
            "share": max(other["held"]) / one["held"][0],
        }
    return results


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps({part.__name__: part(Path(name)) for part in (loading, families, training)}))
