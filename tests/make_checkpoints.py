"""Tiny checkpoints of odd sizes in every published layout, and their variables compared bit by bit."""

from pathlib import Path

import numpy as np
from random_models import tiny_config

from bert4x.checkpoints.checkpoint import bits
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import BFLOAT16, from_array
from bert4x.checkpoints.write import write, write_config
from bert4x.config import TransformerConfig
from bert4x.families import family_of

DTYPES = {"float32": np.dtype("f4"), "float16": np.dtype("f2"), "bfloat16": BFLOAT16}
FAMILIES = ("bert", "albert", "albert_unshared", "gpt2", "transformer")
# Layouts a family can be written in; the first is one it was published in.
LAYOUTS = {
    "bert": ("tf1", "hf", "uer", "keras", "bert4x"),
    "albert": ("tf1", "hf", "uer", "keras", "bert4x"),
    "albert_unshared": ("bert4x", "keras"),
    "gpt2": ("hf", "tf1", "megatron", "uer", "keras", "bert4x"),
    "transformer": ("bert4x", "keras"),
}


def config_of(family="bert", **changes) -> TransformerConfig:
    """A config in which no two sizes are equal (heads and vocabulary of those with ranks divide by 2 and 3)."""
    if family in ("gpt2", "megatron_bert"):
        changes = {"num_attention_heads": 6, "vocab_size": 90, "intermediate_size": 54} | changes
    return family_of(family).config_class(**tiny_config(family, **changes))


def draw(config, dtype="float32", *, heads=True, any_bits=False, seed=0) -> dict[str, np.ndarray]:
    """Our path -> random values; with `any_bits` every bit pattern of a finite number, -0 among them."""
    generator, dtype = np.random.default_rng(seed), DTYPES[dtype]
    shapes = {path: shape for path, (shape, head) in variables(config).items() if heads or head is None}
    if any_bits:
        size, found = 8 * dtype.itemsize, {}
        for path, shape in shapes.items():
            bits = generator.integers(0, 1 << size, shape).astype(f"u{dtype.itemsize}")
            with np.errstate(invalid="ignore"):
                infinite = ~np.isfinite(bits.view(dtype).astype("float64"))
            bits[infinite] ^= 1 << size - 2  # the highest bit of the exponent
            found[path] = bits.view(dtype)
        return found
    return {path: (0.4 * generator.standard_normal(shape)).astype(dtype) for path, shape in shapes.items()}


def write_checkpoint(folder, format, config, weights=None, shards=None) -> Path:
    """Writes weights of ours in a layout, with its config."""
    weights = draw(config) if weights is None else weights
    ours = {path: from_array(path, values) for path, values in weights.items()}
    write(Path(folder), format, config, ours, shards=shards)
    write_config(Path(folder), format, config, ours)
    return Path(folder)


def read_all(folder) -> dict[str, np.ndarray]:
    """Our variables of a checkpoint, copied."""
    checkpoint = open_checkpoint(folder)
    return {path: np.array(checkpoint.read(path)) for path in checkpoint.variables}


def assert_same_bits(found: dict, expected: dict) -> None:
    """The same variables, dtypes, shapes and bits."""
    assert set(found) == set(expected)
    for path, values in expected.items():
        assert (found[path].dtype, found[path].shape) == (values.dtype, values.shape), path
        assert np.array_equal(bits(found[path]), bits(values)), path
