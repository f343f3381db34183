"""What the machine can do at most, measured beside the rest: matrix products, and reading memory."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.benchmarks.workers import Prepared

PRODUCTS = {"full": ((1024, 768, 3072), (2048, 2048, 2048)), "small": ((1024, 768, 3072),), "toy": ((64, 64, 64),)}
BYTES = {"full": 1 << 30, "small": 1 << 28, "toy": 1 << 22}


def products(size: str, dtype: str) -> Prepared:
    """TensorFlow's matrix products, by XLA and by oneDNN: on CPUs now one, now the other is faster. The facts are their
    operations.
    """
    import tensorflow as tf

    def product(jit: bool, rows: int, inner: int, columns: int):
        a, b = (tf.cast(tf.random.normal(shape), dtype) for shape in ((rows, inner), (inner, columns)))
        run = tf.function(tf.matmul, jit_compile=jit)
        return lambda: run(a, b)[0, 0].numpy()

    runs, operations = {}, {}
    for shape in PRODUCTS[size]:
        for library in ("XLA", "oneDNN") if dtype == "float32" else ("oneDNN",):
            name = f"product {' x '.join(map(str, shape))}, {library}"
            runs[name], operations[name] = product(library == "XLA", *shape), float(2 * np.prod(shape))
    return Prepared(runs, facts=operations)


def memory(size: str) -> Prepared:
    """NumPy reads memory, with a thread for each core."""
    cores = os.cpu_count() or 1
    parts = np.ones((8 * cores, BYTES[size] // (32 * cores)), "float32")
    pool = ThreadPoolExecutor(cores)
    return Prepared(
        {"memory": lambda: list(pool.map(lambda part: part.dot(part), parts))}, facts={"memory": float(parts.nbytes)}
    )
