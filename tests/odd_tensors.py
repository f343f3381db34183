"""Tensors of every dtype in odd shapes, and the comparison of what was read with what was written."""

import numpy as np

from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, from_array

DTYPES = ("f2", BFLOAT16, "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
SHAPES = ((), (1,), (0,), (3, 5), (2, 0, 7), (1, 2, 3, 1, 4))


def odd_arrays(more_dtypes: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """One array for each dtype and shape, empty and scalar ones among them, and one with a Chinese name."""
    rng = np.random.default_rng(0)
    pairs = [(np.dtype(dtype), shape) for dtype in (*DTYPES, *more_dtypes) for shape in SHAPES]
    arrays = {f"g/{d}/vars/{i}": np.asarray(rng.normal(0, 9, s)).astype(d) for i, (d, s) in enumerate(pairs)}
    return arrays | {"中文/名": np.float32([1, 2])}


def lazy(arrays: dict[str, np.ndarray]) -> list[LazyTensor]:
    return [from_array(name, array) for name, array in arrays.items()]


def assert_same(tensors, arrays, has_checksums: bool):
    assert list(tensors) == sorted(arrays)
    for name, tensor in tensors.items():
        value = tensor.read()
        assert (value.shape, value.dtype) == (tensor.shape, tensor.dtype) == (arrays[name].shape, arrays[name].dtype)
        assert value.tobytes() == arrays[name].tobytes(), name
        assert tensor.verify() is has_checksums
