"""HDF5: files of h5py and Keras read without libhdf5, files written for them, and damaged ones."""

import random
import struct
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from odd_tensors import assert_same, lazy, odd_arrays

from bert4x.checkpoints.formats.hdf5 import read_hdf5, read_hdf5_attributes, write_hdf5
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, from_array
from bert4x.errors import (
    Bert4xError,
    CheckpointNotFoundError,
    ConversionError,
    CorruptFileError,
    UnknownFormatError,
    UnsafeFileError,
)


def keras2_file(path: Path) -> dict[str, np.ndarray]:
    """The layout of tf.keras' and bert4keras' `save_weights("x.h5")`, whose attributes are fixed-length strings."""
    rng = np.random.default_rng(1)
    layers = {
        "Input-Token": [],
        "Embedding-Token": ["Embedding-Token/embeddings:0"],
        "Transformer-0-MultiHeadSelfAttention": [
            f"Transformer-0-MultiHeadSelfAttention/dense_{i}/{part}:0" for i in range(4) for part in ("kernel", "bias")
        ],
    }
    arrays = {}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in layers])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.3.1"
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in weights])
            for weight in weights:
                arrays[f"{layer}/{weight}"] = rng.normal(size=(3, 4)).astype("f4")
                group.create_dataset(weight, data=arrays[f"{layer}/{weight}"])
    return arrays


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "small.weights.h5"
    arrays = {"layers/a/vars/0": np.arange(6, dtype="f4"), "layers/b/vars/0": np.ones((2, 2), BFLOAT16)}
    write_hdf5(path, lazy(arrays), {"layers/a/vars": {"name": "Embedding-Token", "names": ["x", "yy"]}})
    return path


def test_reads_what_h5py_writes(tmp_path):
    arrays = odd_arrays()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array)
            if array.dtype == BFLOAT16:
                dataset.attrs["dtype"] = "bfloat16"
        file["text"] = "skipped"
        file["texts"] = np.array([b"skipped", b"too"])
    assert_same(read_hdf5(tmp_path / "x.h5"), arrays, has_checksums=False)


def test_round_trip(tmp_path):
    arrays = odd_arrays()
    write_hdf5(tmp_path / "deep" / "x.h5", lazy(arrays))
    assert_same(read_hdf5(tmp_path / "deep" / "x.h5"), arrays, has_checksums=False)
    with h5py.File(tmp_path / "deep" / "x.h5") as file:
        for name, array in arrays.items():
            assert file[name].shape == array.shape
            assert file[name][()].tobytes() == array.tobytes()


def test_big_groups_have_tree_levels(tmp_path):
    arrays = {f"layers/layer_with_a_name_{i}/vars/{j}": np.float32([i, j]) for i in range(1000) for j in range(2)}
    write_hdf5(tmp_path / "x.h5", lazy(arrays))
    assert_same(read_hdf5(tmp_path / "x.h5"), arrays, has_checksums=False)


def test_keras2_layout(tmp_path):
    arrays = keras2_file(tmp_path / "x.h5")
    assert_same(read_hdf5(tmp_path / "x.h5"), arrays, has_checksums=False)
    attributes = read_hdf5_attributes(tmp_path / "x.h5")
    assert attributes[""]["layer_names"] == ["Input-Token", "Embedding-Token", "Transformer-0-MultiHeadSelfAttention"]
    assert attributes[""]["backend"] == "tensorflow"
    assert attributes["Embedding-Token"]["weight_names"] == ["Embedding-Token/embeddings:0"]
    assert len(attributes["Transformer-0-MultiHeadSelfAttention"]["weight_names"]) == 8
    assert len(attributes["Input-Token"]["weight_names"]) == 0


def test_attributes_of_every_kind(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["variable"] = "任意长"
        file.attrs["list"] = ["a", "", "ccc"]
        file.attrs["number"] = np.float32(1.5)
        file.attrs["numbers"] = np.arange(3)
        file.attrs["名"] = b"fixed"
        file.attrs["null"] = h5py.Empty("f4")
        file.attrs["matrix"] = np.ones((2, 2))
        file.attrs["long"] = "x" * 60000
        for i in range(50):  # so that the header continues elsewhere
            file.attrs[f"filler{i}"] = "y" * 100
    attributes = read_hdf5_attributes(tmp_path / "x.h5")[""]
    assert attributes["variable"] == "任意长"
    assert attributes["list"] == ["a", "", "ccc"]
    assert attributes["number"] == 1.5
    assert attributes["numbers"].tolist() == [0, 1, 2]
    assert attributes["名"] == "fixed"
    assert attributes["long"] == "x" * 60000
    assert attributes["filler49"] == "y" * 100
    assert not {"null", "matrix"} & set(attributes)


def test_long_lists_are_cut_as_keras_does(tmp_path):
    names = [f"layer_{i:04d}_{'x' * 50}" for i in range(2000)]
    write_hdf5(tmp_path / "x.h5", [], {"": {"layer_names": names}, "group": {"weight_names": ["a", "b"]}})
    attributes = read_hdf5_attributes(tmp_path / "x.h5")
    assert attributes[""]["layer_names"] == names
    assert attributes["group"] == {"weight_names": ["a", "b"]}
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file.attrs) == {"layer_names0", "layer_names1"}


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_keras_both_ways(tmp_path, policy):
    import keras

    def build():
        inputs = keras.Input((4,), dtype=policy)
        hidden = keras.layers.BatchNormalization(dtype=policy)(keras.layers.Dense(5, dtype=policy, name="one")(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3, dtype=policy, name="two")(hidden))
        model.compile("adam", "mse")
        return model

    model, other = build(), build()
    model.save_weights(tmp_path / "theirs.weights.h5")
    tensors = read_hdf5(tmp_path / "theirs.weights.h5")
    kernel = tensors["layers/dense/vars/0"]
    assert kernel.dtype == (BFLOAT16 if policy == "bfloat16" else np.float32)
    assert (kernel.read() == np.asarray(keras.ops.convert_to_numpy(model.get_layer("one").kernel))).all()
    assert len([name for name in tensors if name.startswith("layers/")]) == len(model.weights)

    attributes = read_hdf5_attributes(tmp_path / "theirs.weights.h5")
    assert attributes["layers/dense_1/vars"]["name"] == "two"
    write_hdf5(tmp_path / "ours.weights.h5", tensors.values(), attributes)
    other.load_weights(tmp_path / "ours.weights.h5")
    for a, b in zip(model.weights, other.weights, strict=True):
        assert (keras.ops.convert_to_numpy(a) == keras.ops.convert_to_numpy(b)).all()


def test_refused_files(tmp_path):
    def write(name, fill, **options):
        with h5py.File(tmp_path / name, "w", **options) as file:
            fill(file)
        return tmp_path / name

    def soft(file):
        file["a"] = np.zeros(2)
        file["b"] = h5py.SoftLink("/a")

    def committed(file):
        file["t"] = np.dtype("f4")
        file.create_dataset("a", (2,), file["t"])

    big_endian = {"data": np.zeros(2, ">f4")}
    cases = {
        "chunks": write("1.h5", lambda f: f.create_dataset("a", data=np.zeros((9, 9)), chunks=(3, 3))),
        "compressed": write("2.h5", lambda f: f.create_dataset("a", data=np.zeros((9, 9)), compression="gzip")),
        "newer": write("3.h5", lambda f: f.create_group("a", track_order=True)),
        "superblock": write("4.h5", lambda f: None, libver="latest"),
        "soft link": write("5.h5", soft),
        "point out": write("6.h5", lambda f: f.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/"))),
        "class 0": write("7.h5", lambda f: f.create_dataset("a", dtype=">i4", data=np.zeros(2))),
        "class 1": write("8.h5", lambda f: f.create_dataset("a", **big_endian)),
        "class 6": write("9.h5", lambda f: f.create_dataset("a", data=np.zeros(2, [("x", "f4")]))),
        "opaque": write("10.h5", lambda f: f.create_dataset("a", data=np.zeros(2, "V2"))),
        "shape None": write("11.h5", lambda f: f.create_dataset("a", data=h5py.Empty("f4"))),
        "committed": write(
            "12.h5", lambda f: (f.__setitem__("t", np.dtype("f4")), f.create_dataset("a", (2,), f["t"]))
        ),
    }
    for message, path in cases.items():
        with pytest.raises(UnknownFormatError, match=message):
            read_hdf5(path)
            pytest.fail(message)
    external = [(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)]
    path = write("13.h5", lambda f: f.create_dataset("a", (4,), "f4", external=external))
    with pytest.raises(UnsafeFileError, match="another file"):
        read_hdf5(path)


def test_compact_datasets(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        create.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2, 3))
        dataset = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, dcpl=create)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(6, dtype="f4").reshape(2, 3))
    assert_same(read_hdf5(tmp_path / "x.h5"), {"a": np.arange(6, dtype="f4").reshape(2, 3)}, has_checksums=False)


def test_not_hdf5(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"PK\x03\x04" * 99)
    with pytest.raises(UnknownFormatError, match=r"x\.h5: not an HDF5 file"):
        read_hdf5(tmp_path / "x.h5")
    with pytest.raises(CheckpointNotFoundError):
        read_hdf5(tmp_path / "absent.h5")
    with pytest.raises(CheckpointNotFoundError):
        read_hdf5(tmp_path)


def test_truncations_are_found_at_opening(small):
    whole = small.read_bytes()
    for size in [*range(0, len(whole), 17), len(whole) - 1]:
        small.write_bytes(whole[:size])
        with pytest.raises((CorruptFileError, UnknownFormatError)):
            read_hdf5(small)


def test_cycles_and_lies(small):
    whole = small.read_bytes()
    root = struct.unpack_from("<Q", whole, 64)[0]
    node = whole.index(b"SNOD")
    cases = {
        "group that holds itself": (node + 8 + 8, struct.pack("<Q", root)),
        "table of 65535 members": (node + 6, b"\xff\xff"),
        "tree that is its own child": (whole.index(b"TREE") + 4, b"\x00\x01"),
        "header of 4 GiB": (root + 8, b"\xff\xff\xff\xff"),
        "heap of 2**63 bytes": (whole.index(b"HEAP") + 8, struct.pack("<Q", 1 << 63)),
    }
    for case, (at, patch) in cases.items():
        small.write_bytes(whole[:at] + patch + whole[at + len(patch) :])
        start = time.perf_counter()
        with pytest.raises(CorruptFileError):
            read_hdf5(small)
            pytest.fail(case)
        assert time.perf_counter() - start < 1, case


@pytest.mark.parametrize(
    "bad",
    [
        [from_array("a", np.zeros(2)), from_array("a", np.zeros(2))],
        [from_array("a", np.zeros(2)), from_array("a/b", np.zeros(2))],
        [from_array("", np.zeros(2))],
        [from_array("a//b", np.zeros(2))],
        [from_array("text", np.array(["a"]))],
        [from_array("complex", np.zeros(2, "c8"))],
    ],
    ids=["duplicate", "clash", "nameless", "slashes", "string", "complex"],
)
def test_refused_tensors_leave_nothing(tmp_path, bad):
    with pytest.raises(ConversionError):
        write_hdf5(tmp_path / "x.h5", bad)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(small):
    def fail():
        raise RuntimeError("no such tensor")

    before = small.read_bytes()
    with pytest.raises(RuntimeError):
        write_hdf5(small, [*lazy({"x": np.zeros(9)}), LazyTensor("y", (1,), np.dtype("f4"), fail)])
    assert list(small.parent.iterdir()) == [small]
    assert small.read_bytes() == before


def test_mutations(tmp_path, small):
    """Deterministic damage: only Bert4xError, quickly."""
    keras2_file(tmp_path / "keras2.h5")
    rng = random.Random(0)
    refused = 0
    for path in (small, tmp_path / "keras2.h5"):
        whole = path.read_bytes()
        used = [at for at in range(len(whole)) if any(whole[max(0, at - 8) : at + 8])]  # mostly not in the padding
        for _ in range(2000):
            path.write_bytes(mutate(whole, used, rng))
            start = time.perf_counter()
            try:
                for tensor in read_hdf5(path).values():
                    assert tensor.read().shape == tensor.shape
                    tensor.verify()
                read_hdf5_attributes(path)
            except Bert4xError:
                refused += 1
            assert time.perf_counter() - start < 1
    assert refused > 1500


def mutate(raw: bytes, used: list[int], rng: random.Random) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.choice(used)
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + 1] = bytes([raw[at] ^ 1 << rng.randrange(8)])
        elif kind == 1:
            out[at : at + 1] = rng.choice([b"\0", b"\1", b"\x7f", b"\x80", b"\xff"])
        elif kind == 2:
            del out[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            source = rng.choice(used)
            out[at : at + 8] = raw[source : source + 8]
        else:
            out[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f"])
    return bytes(out)
