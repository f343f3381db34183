"""safetensors: against the reference library in both directions, sharded, and damaged in every way."""

import json
import random
import time

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from bert4x.checkpoints.formats.safetensors_file import (
    DTYPES,
    read_safetensors,
    read_safetensors_metadata,
    read_safetensors_sharded,
    write_safetensors,
    write_safetensors_sharded,
)
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, from_array
from bert4x.errors import (
    Bert4xError,
    CheckpointNotFoundError,
    ConversionError,
    CorruptFileError,
    TensorMismatchError,
    UnknownFormatError,
    UnsafeFileError,
)


def some_tensors() -> list[LazyTensor]:
    rng = np.random.default_rng(0)
    arrays = {f"{name}.{i}": np.ones((2, i + 1), dtype) for name, dtype in DTYPES.items() for i in range(2)}
    arrays["normal"] = rng.standard_normal((5, 7)).astype("f4")
    arrays["bfloat16"] = rng.standard_normal((3,)).astype(BFLOAT16)
    arrays["transposed"] = rng.standard_normal((4, 3)).T
    arrays["big-endian"] = np.arange(5, dtype=">i4")
    arrays["scalar"] = np.array(3, "i8")
    arrays["empty"] = np.zeros((0, 4), "f2")
    arrays["中文"] = np.arange(3, dtype="u1")
    return [from_array(name, array) for name, array in arrays.items()]


def raw(header, data: bytes = b"") -> bytes:
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def put(tmp_path):
    def put(data: bytes):
        path = tmp_path / "x.safetensors"
        path.write_bytes(data)
        return path

    return put


def assert_equal(tensors, expected) -> None:
    assert set(tensors) == {tensor.name for tensor in expected}
    for tensor in expected:
        array = tensors[tensor.name].read()
        assert array.shape == tensors[tensor.name].shape == tensor.shape
        assert array.dtype == tensors[tensor.name].dtype == tensor.dtype.newbyteorder("=")
        assert array.tobytes() == tensor.read().astype(array.dtype).tobytes()
        assert tensors[tensor.name].verify() is False  # the format has no checksum


def test_round_trip(tmp_path):
    path = tmp_path / "folder" / "x.safetensors"
    write_safetensors(path, some_tensors(), {"who": "bert4x"})
    assert_equal(read_safetensors(path), some_tensors())
    assert read_safetensors_metadata(path) == {"who": "bert4x"}


def test_the_reference_reads_what_we_write(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = some_tensors()
    write_safetensors(path, tensors)
    loaded = safetensors.numpy.load_file(path)
    assert set(loaded) == {tensor.name for tensor in tensors}
    for tensor in tensors:
        np.testing.assert_array_equal(loaded[tensor.name].astype("f8"), tensor.read().astype("f8"))
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_we_read_what_the_reference_writes(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {t.name: t.read() for t in some_tensors() if t.name != "big-endian"}
    safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    assert_equal(read_safetensors(path), [t for t in some_tensors() if t.name != "big-endian" and t.shape] + [
        from_array("scalar", np.array([3]))
    ])  # fmt: skip


def test_order_of_the_reference(tmp_path):
    ours, theirs = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    arrays = {"b": np.ones(2, "f4"), "c": np.ones(1, "f2"), "a": np.ones(3, "f4"), "d": np.ones(1, "i8")}
    write_safetensors(ours, [from_array(*item) for item in arrays.items()], {})
    safetensors.numpy.save_file(arrays, theirs, {})
    assert list(read_safetensors(ours)) == list(read_safetensors(theirs)) == ["d", "a", "b", "c"]


@pytest.mark.parametrize("options", [{"shards": 3}, {"max_shard_bytes": 300}, {"shards": 1000}], ids=str)
def test_sharded(tmp_path, options):
    tensors = some_tensors()
    files = write_safetensors_sharded(tmp_path, tensors, **options)
    *shards, index = files
    count = options.get("shards", len(shards))
    assert len(shards) == min(count, len(shards)) > 1
    assert [path.name for path in shards] == [
        f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)
    assert_equal(read_safetensors_sharded(index), tensors)
    content = json.loads(index.read_text(encoding="utf-8"))
    assert content["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors)
    if "max_shard_bytes" in options:
        for shard in shards:
            inside = read_safetensors(shard).values()
            assert len(inside) == 1 or sum(tensor.nbytes for tensor in inside) <= 300
    if options == {"shards": 3}:
        assert len(shards) == 3


def test_one_shard_needs_no_index(tmp_path):
    files = write_safetensors_sharded(tmp_path, some_tensors())
    assert [path.name for path in files] == ["model.safetensors"]
    assert_equal(read_safetensors(files[0]), some_tensors())
    write_safetensors_sharded(tmp_path, some_tensors())  # replaces it
    with pytest.raises(ConversionError, match=r"already holds model\.safetensors"):
        write_safetensors_sharded(tmp_path, some_tensors(), shards=2)


def test_index_that_lies(tmp_path):
    *_, index = write_safetensors_sharded(tmp_path, some_tensors(), shards=2)
    good = json.loads(index.read_text(encoding="utf-8"))
    first, second = (tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))

    def read(**changes):
        index.write_text(json.dumps({**good, "weight_map": {**good["weight_map"], **changes}}))
        return read_safetensors_sharded(index)

    with pytest.raises(TensorMismatchError, match=r"'ghost'.*no shard has it"):
        read(ghost=first.name)
    with pytest.raises(TensorMismatchError, match=f"'BOOL.0'.*it is in {first.name}"):
        read(**{"BOOL.0": second.name})
    with pytest.raises(CheckpointNotFoundError, match=r"none\.safetensors"):
        read(ghost="none.safetensors")
    for shard in ("../x", "/etc/passwd", "..", "", "a\\b", "C:x", "a\0", "a" * 300):
        with pytest.raises(UnsafeFileError, match="plain file name"):
            read(ghost=shard)
    with pytest.raises(CorruptFileError, match="weight_map"):
        read(ghost=3)
    write_safetensors(second, [*read_safetensors(second).values(), from_array("BOOL.0", np.ones(1))])
    with pytest.raises(TensorMismatchError, match=r"'BOOL\.0' is in both"):
        read()
    for text in ("[]", "{}", "{", '{"weight_map": {"a": "b", "a": "b"}}', "[" * 100_000, '{"weight_map": []}'):
        index.write_text(text)
        with pytest.raises(CorruptFileError):
            read_safetensors_sharded(index)


BAD_FILES = {
    "empty": b"",
    "short": b"\2\0\0\0\0\0\0\0{",
    "no header": bytes(8),
    "header too long": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "not an object": raw(b"[]"),
    "not JSON": raw(b"{nonsense"),
    "not UTF-8": raw(b'{"\xff": 1}'),
    "UTF-16": raw(json.dumps({"a": entry()}).encode("utf-16-le"), bytes(8)),
    "deep": raw(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "huge integer": raw(b'{"a":' + b"9" * 10_000 + b"}"),
    "repeated name": raw(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "lone surrogate": raw(b'{"\\ud800":%b}' % json.dumps(entry()).encode(), bytes(8)),
    "long name": raw({"a" * 5000: entry()}, bytes(8)),
    "missing field": raw({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "stray field": raw({"a": {**entry(), "x": 1}}, bytes(8)),
    "entry of text": raw({"a": "b"}),
    "metadata of numbers": raw({"__metadata__": {"a": 1}}),
    "metadata of text": raw({"__metadata__": "a"}),
    "shape of text": raw({"a": {**entry(), "shape": "ab"}}, bytes(8)),
    "negative shape": raw({"a": entry(shape=(-1, -2))}, bytes(8)),
    "float shape": raw({"a": entry(shape=(2.0,))}, bytes(8)),
    "bool shape": raw({"a": entry(shape=(True, 2))}, bytes(8)),
    "huge shape": raw({"a": entry(shape=(2**32, 2**32))}, bytes(8)),
    "huge empty shape": raw({"a": entry(shape=(0, 2**61, 2**61), offsets=(0, 0))}),
    "many dimensions": raw({"a": entry(shape=(1,) * 99 + (2,))}, bytes(8)),
    "beyond the end": raw({"a": entry()}, bytes(7)),
    "reversed": raw({"a": entry(offsets=(8, 0))}, bytes(8)),
    "negative offset": raw({"a": entry(offsets=(-8, 0))}, bytes(8)),
    "three offsets": raw({"a": entry(offsets=(0, 8, 8))}, bytes(8)),
    "wrong length": raw({"a": entry(shape=(1,))}, bytes(8)),
    "hole before": raw({"a": entry(offsets=(8, 16))}, bytes(16)),
    "hole after": raw({"a": entry()}, bytes(9)),
    "overlap": raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(put, case):
    with pytest.raises(CorruptFileError):
        read_safetensors(put(BAD_FILES[case]))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "C64", "f32", "", ["F32"]], ids=str)
def test_unknown_dtype(put, dtype):
    with pytest.raises(UnknownFormatError, match="bert4x reads BOOL"):
        read_safetensors(put(raw({"a": entry(dtype=dtype)}, bytes(8))))


def test_not_a_file(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointNotFoundError):
            read_safetensors(path)


def test_truncation_is_always_noticed(put, tmp_path):
    write_safetensors(tmp_path / "good", some_tensors()[:4])
    data = (tmp_path / "good").read_bytes()
    for length in range(len(data)):
        with pytest.raises(CorruptFileError):
            read_safetensors(put(data[:length]))


def test_mutations_raise_our_errors_only(put, tmp_path):
    write_safetensors(tmp_path / "good", some_tensors()[:6])
    data = (tmp_path / "good").read_bytes()
    random_ = random.Random(0)
    start = time.monotonic()
    for _ in range(3000):
        mutated = bytearray(data)
        for _ in range(random_.randint(1, 3)):
            mutated[random_.randrange(len(mutated))] = random_.choice(
                [0, 0x30, 0x39, 0x7F, 0xFF, random_.randrange(256)]
            )
        try:
            for tensor in read_safetensors(put(bytes(mutated))).values():
                assert tensor.read().shape == tensor.shape
        except Bert4xError:
            pass
    assert time.monotonic() - start < 60


def test_failed_write_leaves_nothing(tmp_path):
    def fail():
        raise OSError("disk on fire")

    broken = LazyTensor("broken", (2,), np.dtype("f4"), fail)
    lying = LazyTensor("lying", (2,), np.dtype("f4"), lambda: np.zeros(3, "f4"))
    for bad, error in [
        (broken, OSError),
        (lying, ConversionError),
        (some_tensors()[0], TensorMismatchError),
        (from_array("complex", np.ones(2, "c8")), ConversionError),
        (from_array("__metadata__", np.ones(2)), ConversionError),
    ]:
        with pytest.raises(error):
            write_safetensors(tmp_path / "x.safetensors", [*some_tensors(), bad])
        with pytest.raises(error):
            write_safetensors_sharded(tmp_path, [*some_tensors(), bad], shards=3)
    assert list(tmp_path.iterdir()) == []
