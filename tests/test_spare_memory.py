"""Memory of large arrays is used again once nothing holds it, and not before."""

import gc
import mmap

import numpy as np
import pytest

from bert4x.checkpoints.tensors import LARGE, SPARE, SpareMemory, empty, spare_memory

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MAP_ANONYMOUS"), reason="this system maps no anonymous memory")
SIZE = 3 * LARGE


@pytest.fixture
def memory():
    memory = SpareMemory()
    with memory.while_kept():
        yield memory


@pytest.mark.parametrize(
    "held",
    [
        lambda array: array,
        lambda array: array[5:],
        lambda array: array.view("float32").reshape(-1, 4).T,
        lambda array: memoryview(array),
        lambda array: np.from_dlpack(array),
    ],
    ids=["array", "slice", "view", "buffer", "dlpack"],
)
def test_used_again_when_nothing_holds_it(memory, held):
    array = memory.array(SIZE)
    array[:] = 1
    address, kept = array.ctypes.data, held(array)
    del array
    other = memory.array(SIZE)
    other[:] = 2
    assert other.ctypes.data != address and set(np.asarray(kept).tobytes()) == {1}
    del kept
    gc.collect()
    assert memory.array(SIZE).ctypes.data == address


def test_smaller_arrays_take_wider_maps(memory):
    address = memory.array(SIZE).ctypes.data
    array = memory.array(SIZE // 3)
    assert array.ctypes.data == address and array.shape == (SIZE // 3,)
    assert memory.array(SIZE // 3).ctypes.data != address  # which that one has


def test_so_much_is_kept_and_no_more(memory):
    arrays = [memory.array(SPARE // 4) for _ in range(6)]
    addresses = [array.ctypes.data for array in arrays]
    while arrays:
        del arrays[0]
    assert len(memory.maps) == 4 and memory.array(SPARE // 4).ctypes.data not in addresses[:2]
    assert sum(map(len, memory.maps)) <= SPARE


def test_nothing_is_kept_afterwards():
    memory = SpareMemory()
    with memory.while_kept():
        array = memory.array(SIZE)
        memory.array(SIZE)
        assert len(memory.maps) == 1
    assert not memory.maps
    del array
    assert not memory.maps


def test_what_is_large_comes_from_it():
    with spare_memory.while_kept():
        array = empty((LARGE // 4, 2), "float32")
        assert array.ctypes.data % mmap.PAGESIZE == 0 and array.shape == (LARGE // 4, 2)
        del array
        assert spare_memory.maps
