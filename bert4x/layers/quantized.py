"""Matrices of int8, one scale for each output: a quarter of float32's memory, and what a memory-bound decoder reads."""

import keras
import numpy as np
from keras import ops

from bert4x.errors import ConfigError

CACHE_LINE = 64  # bytes
ROWS = 128  # quantized at a time: what they need stays in the processor's cache
BLOCK = 3 << 18  # weights widened at a time
PACKED_ROWS = 16  # up to so many vectors PyTorch's int8 kernel is faster than widening


def check_int8(mode: str) -> None:
    """Raises: ConfigError for a quantization that the layers here do not have."""
    if mode != "int8":
        raise ConfigError(f"cannot quantize to {mode!r}; expected 'int8'")


def quantize(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as int8 times a scale for each row: the largest absolute value of a row becomes 127, or nearly so.

    Scales are rounded up to bfloat16, so that they are exact under every policy.

    Shape: (N, K) -> (N, K) int8, (N,) float32
    """
    memory = np.empty(matrix.size + CACHE_LINE, np.int8)
    start = -memory.ctypes.data % CACHE_LINE  # backends use the array as it is if it is aligned
    values = memory[start : start + matrix.size].reshape(matrix.shape)
    scale = np.empty(len(matrix), "float32")
    for i in range(0, len(matrix), ROWS):
        rows = matrix[i : i + ROWS].astype("float32", order="C")
        bits = (np.maximum(rows.max(axis=1), -rows.min(axis=1)) / np.float32(127)).view("uint32")
        scale[i : i + ROWS] = ((bits + 0xFFFF) & 0xFFFF0000).view("float32")
        rows /= np.where(scale[i : i + ROWS] > 0, scale[i : i + ROWS], 1)[:, None]
        values[i : i + ROWS] = np.rint(rows, out=rows)
    return values, scale


def int8_matmul(x, weight, scale):
    """Vectors times a quantized matrix.

    XLA would widen the whole matrix, and that of every layer before anything else runs; widened in blocks it takes no
    memory worth mentioning, and at batch 1 less time than a float32 matrix takes to be read.

    Shape: (..., K), (N, K) int8, (N,) -> (..., N)
    """
    weight = ops.convert_to_tensor(weight)
    (n, k), shape = weight.shape, ops.shape(x)[:-1]
    flat = ops.reshape(x, (-1, k))
    multiply = on_torch if keras.backend.backend() == "torch" else in_loop
    return ops.reshape(multiply(flat, weight, ops.convert_to_tensor(scale)), (*shape, n))


def blocks(n: int, k: int) -> tuple[int, int]:
    """How many blocks of how many rows cover a matrix; the last one may overlap the one before."""
    count = max(1, round(n * k / BLOCK))
    return count, -(-n // count)


def in_loop(x, weight, scale):
    """Block by block in a loop of the backend; XLA computes in float32 whatever it is given.

    Shape: (M, K), (N, K) int8, (N,) -> (M, N)
    """
    (n, k), wide = weight.shape, ops.cast(x, "float32")
    count, size = blocks(n, k)

    def step(i, out):
        first = ops.minimum(i * size, n - size)
        rows = ops.cast(ops.slice(weight, (first, 0), (size, k)), "float32")
        return ops.slice_update(out, (0, first), ops.matmul(wide, ops.transpose(rows)))

    out = ops.fori_loop(0, count, step, ops.zeros((ops.shape(x)[0], n), "float32"))
    return ops.cast(out * scale, x.dtype)


def on_torch(x, weight, scale):
    """PyTorch's own kernel, which knows bfloat16 and no gradients; else block by block into the same memory.

    Shape: (M, K), (N, K) int8, (N,) -> (M, N)
    """
    import torch

    linear, scale = torch.nn.functional.linear, scale.to(x.dtype)
    if torch.is_grad_enabled() and x.requires_grad:
        return linear(x, weight.to(x.dtype)) * scale
    if x.dtype == torch.bfloat16 and len(x) <= PACKED_ROWS:
        return torch._weight_int8pack_mm(x.contiguous(), weight, scale)
    _, size = blocks(*weight.shape)
    widened = torch.empty((size, weight.shape[1]), dtype=x.dtype, device=x.device)
    out = [linear(x, widened[: len(rows)].copy_(rows)) for rows in weight.split(size)]
    return torch.cat(out, dim=-1) * scale
