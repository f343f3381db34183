"""TensorFlow checkpoints: against TensorFlow in both directions, and damaged in every way."""

import random
import shutil
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from odd_tensors import assert_same, lazy, odd_arrays

from bert4x.checkpoints.formats.leveldb_table import read_table, write_table
from bert4x.checkpoints.formats.tf1_bundle import read_tf1, write_tf1
from bert4x.checkpoints.tensors import LazyTensor, from_array
from bert4x.errors import (
    Bert4xError,
    CheckpointNotFoundError,
    ConversionError,
    CorruptFileError,
    UnknownFormatError,
)

TOYS = Path(__file__).parents[2] / "shared" / "data" / "checkpoints"


@pytest.fixture
def small(tmp_path) -> Path:
    """A checkpoint of three small tensors; its prefix."""
    arrays = {"a/w": np.arange(12, dtype="f4").reshape(3, 4), "a/b": np.float16([1, 2, 3]), "step": np.int64(7)}
    write_tf1(tmp_path / "m.ckpt", lazy(arrays))
    return tmp_path / "m.ckpt"


@pytest.mark.parametrize("toy", ["bert_tf1_toy/bert_model.ckpt", "gpt2_tf1_toy/model.ckpt"])
def test_published_checkpoint(toy):
    if not TOYS.exists():
        pytest.skip("../shared/data/checkpoints is absent")
    import tensorflow as tf

    reference = tf.train.load_checkpoint(str(TOYS / toy))
    arrays = {name: np.asarray(reference.get_tensor(name)) for name in reference.get_variable_to_shape_map()}
    assert len(arrays) >= 40
    assert_same(read_tf1(TOYS / toy), arrays, has_checksums=True)


def test_tensorflow_reads_what_is_written(tmp_path):
    import tensorflow as tf

    arrays = odd_arrays(("c8", "c16"))
    write_tf1(tmp_path / "deep" / "m.ckpt", lazy(arrays))
    reference = tf.train.load_checkpoint(str(tmp_path / "deep" / "m.ckpt"))
    assert set(reference.get_variable_to_shape_map()) == set(arrays)
    for name, array in arrays.items():
        value = np.asarray(reference.get_tensor(name))
        assert (value.shape, value.dtype) == (array.shape, array.dtype)
        assert value.tobytes() == array.tobytes()
    assert tf.train.latest_checkpoint(str(tmp_path / "deep")) == str(tmp_path / "deep" / "m.ckpt")
    assert_same(read_tf1(tmp_path / "deep" / "m.ckpt"), arrays, has_checksums=True)


def test_reads_what_tensorflow_wrote(tmp_path):
    import tensorflow as tf

    arrays = odd_arrays(("c8", "c16"))
    tensors = [tf.constant(array) for array in arrays.values()]
    names = [*arrays, "text"]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[*tensors, tf.constant(["skipped"])],
    )
    assert_same(read_tf1(tmp_path / "m"), arrays, has_checksums=True)


def test_partitioned_variables(tmp_path):
    import tensorflow as tf

    whole = np.arange(7 * 4, dtype="f4").reshape(7, 4)
    cuts = {"rows": (0, [0, 2, 5, 7]), "columns": (1, [0, 1, 4])}
    names, slices, pieces = ["plain"], [""], [whole]
    for name, (axis, ends) in cuts.items():
        for start, end in reversed(list(pairwise(ends))):
            names.append(name)
            slices.append(f"7 4 {start},{end - start}:-" if axis == 0 else f"7 4 -:{start},{end - start}")
            pieces.append(np.take(whole, range(start, end), axis))
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "m"), tensor_names=names, shape_and_slices=slices, tensors=pieces)
    assert_same(read_tf1(tmp_path / "m"), {"plain": whole, "rows": whole, "columns": whole}, has_checksums=True)

    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "q"),
        tensor_names=["quarters"] * 4,
        shape_and_slices=[f"2 2 {i},1:{j},1" for i in (0, 1) for j in (0, 1)],
        tensors=[tf.ones((1, 1))] * 4,
    )
    with pytest.raises(UnknownFormatError, match="quarters"):
        read_tf1(tmp_path / "q")


def test_object_based_checkpoint(tmp_path):
    import tensorflow as tf

    path = tf.train.Checkpoint(step=tf.Variable(3), w=tf.Variable([1.0, 2.0])).write(str(tmp_path / "m"))
    tensors = read_tf1(path)
    assert tensors["w/.ATTRIBUTES/VARIABLE_VALUE"].read().tolist() == [1, 2]
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" not in tensors


def test_index_of_many_blocks(tmp_path):
    import tensorflow as tf

    arrays = {f"{'scope/' * 30}layer_{i}/kernel": np.float32([i]) for i in range(3000)}
    write_tf1(tmp_path / "ours", lazy(arrays))
    reference = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert all(reference.get_tensor(name) == array for name, array in arrays.items())
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    for name in ("ours", "theirs"):
        tensors = read_tf1(tmp_path / name)
        assert {key: tensor.read().tolist() for key, tensor in tensors.items()} == {
            key: array.tolist() for key, array in arrays.items()
        }


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_any_file_names_the_checkpoint(small, suffix):
    assert list(read_tf1(f"{small}{suffix}")) == ["a/b", "a/w", "step"]


def test_writes_views_and_big_endian_arrays(tmp_path):
    arrays = {"t": np.arange(6, dtype=">f4").reshape(2, 3).T, "s": np.arange(9, dtype="i2")[::2]}
    write_tf1(tmp_path / "m", lazy(arrays), checkpoint_file=False)
    tensors = read_tf1(tmp_path / "m")
    assert all((tensors[name].read() == array).all() for name, array in arrays.items())
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "bad",
    [
        [from_array("a", np.zeros(2)), from_array("a", np.zeros(2))],
        [from_array("", np.zeros(2))],
        [from_array("text", np.array(["a"]))],
    ],
    ids=["duplicate", "nameless", "string"],
)
def test_refused_tensors_leave_nothing(tmp_path, bad):
    with pytest.raises(ConversionError):
        write_tf1(tmp_path / "m", bad)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_checkpoint(small):
    def fail():
        raise RuntimeError("no such tensor")

    before = {path.name: path.read_bytes() for path in small.parent.iterdir()}
    with pytest.raises(RuntimeError):
        write_tf1(small, [*lazy({"x": np.zeros(9)}), LazyTensor("y", (1,), np.dtype("f4"), fail)])
    assert {path.name: path.read_bytes() for path in small.parent.iterdir()} == before


def test_flipped_data_byte(small):
    data = Path(f"{small}.data-00000-of-00001")
    raw = bytearray(data.read_bytes())
    for at in range(len(raw)):
        raw[at] ^= 0x10
        data.write_bytes(raw)
        failed = []
        for name, tensor in read_tf1(small).items():
            try:
                assert tensor.verify() is True
            except CorruptFileError:
                failed.append(name)
        assert len(failed) == 1, at
        raw[at] ^= 0x10


def test_flipped_index_byte(small):
    index = Path(f"{small}.index")
    raw = bytearray(index.read_bytes())
    for at in range(len(raw)):
        raw[at] ^= 0x10
        index.write_bytes(raw)
        with pytest.raises((CorruptFileError, UnknownFormatError)):
            read_tf1(small)
            pytest.fail(f"byte {at}")
        raw[at] ^= 0x10


def test_truncations(small):
    for suffix in (".index", ".data-00000-of-00001"):
        path = Path(f"{small}{suffix}")
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises((CorruptFileError, UnknownFormatError)):
                read_tf1(small)
        path.write_bytes(whole)


def test_missing_files(small):
    with pytest.raises(CheckpointNotFoundError, match=r"absent\.index"):
        read_tf1(small.parent / "absent")
    Path(f"{small}.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointNotFoundError, match="data-00000-of-00001"):
        read_tf1(small)


def test_file_replaced_after_opening(small):
    tensor = read_tf1(small)["a/w"]
    shutil.copy(f"{small}.index", f"{small}.data-00000-of-00001")
    with pytest.raises(CorruptFileError, match="changed"):
        tensor.read()


def test_hostile_entries(small):
    """Messages that lie, under valid checksums."""
    index = Path(f"{small}.index")
    good = dict(read_table(index.read_bytes()))
    entry = good[b"step"]
    cases = {
        "big-endian": {b"": b"\x08\x01\x10\x01"},
        "99999 shards": {b"": b"\x08\xff\xff\xff\xff\x0f"},
        "no header": {b"": b""},
        "other shard": {b"step": entry + b"\x18\x05"},
        "negative shard": {b"step": entry + b"\x18" + b"\xff" * 9 + b"\x01"},
        "negative offset": {b"step": entry + b"\x20" + b"\xff" * 9 + b"\x01"},
        "size": {b"step": entry + b"\x28\x09"},
        "negative dim": {b"step": entry + b"\x12\x0d\x12\x0b\x08" + b"\xff" * 9 + b"\x01"},
        "huge dims": {b"step": entry + b"\x12\x18" + (b"\x12\x0a\x08" + b"\xff" * 8 + b"\x7f") * 2},
        "empty but huge": {b"step": entry + b"\x28\x00\x12\x10\x12\x0a\x08" + b"\xff" * 8 + b"\x7f\x12\x02\x08\x00"},
        "too many dims": {b"step": entry + b"\x12\x84\x01" + b"\x12\x02\x08\x01" * 33},
        "unknown rank": {b"step": entry + b"\x12\x02\x18\x01"},
        "quantized": {b"step": entry + b"\x08\x0b"},
        "slice of nothing": {b"step": entry + b"\x3a\x00"},
        "slices absent": {b"a/b": good[b"a/b"] + b"\x3a\x02\x0a\x00"},
        "group": {b"step": entry + b"\x0b"},
        "long field": {b"step": entry + b"\x3a\x7f"},
        "endless varint": {b"step": entry + b"\x28" + b"\xff" * 20},
        "name": {b"\xff\xfe": entry},
    }
    for case, changed in cases.items():
        index.write_bytes(write_table(sorted({**good, **changed}.items())))
        with pytest.raises((CorruptFileError, UnknownFormatError)):
            read_tf1(small)
            pytest.fail(case)
    index.write_bytes(write_table(sorted({**good, b"text": b"\x08\x07" + entry}.items(), reverse=True)))
    with pytest.raises(CorruptFileError, match="order"):
        read_tf1(small)


def test_prefix_compression_is_bounded(small, monkeypatch):
    monkeypatch.setattr("bert4x.checkpoints.formats.leveldb_table._FREE_KEY_BYTES", 1 << 18)
    for length in (4000, 10_000):  # too long together, too long each
        keys = [b"x" * length + b"%04d" % i for i in range(200)]
        with pytest.raises(CorruptFileError, match="too long"):
            dict(read_table(write_table((key, b"") for key in keys)))


def test_mutations(small):
    """Deterministic damage under valid and invalid checksums: only Bert4xError, quickly."""
    index, data = Path(f"{small}.index"), Path(f"{small}.data-00000-of-00001")
    whole = {index: index.read_bytes(), data: data.read_bytes()}
    entries = list(read_table(whole[index]))
    rng = random.Random(0)
    refused = 0
    for _ in range(3000):
        kind = rng.randrange(3)
        if kind == 0:  # the messages, in a table whose checksums agree
            key, value = entries[at := rng.randrange(len(entries))]
            mutated = [*entries[:at], (key, mutate(value, rng)), *entries[at + 1 :]]
            index.write_bytes(write_table(mutated))
        else:
            path = index if kind == 1 else data
            path.write_bytes(mutate(whole[path], rng))
        start = time.perf_counter()
        try:
            for tensor in read_tf1(small).values():
                assert tensor.read().shape == tensor.shape
                tensor.verify()
        except Bert4xError:
            refused += 1
        assert time.perf_counter() - start < 1
        for path in whole:
            path.write_bytes(whole[path])
    assert refused > 2000


def mutate(raw: bytes, rng: random.Random) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del out[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            out[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f"])
    return bytes(out)
