"""PyTorch files: what real torch writes we read, and what we write real torch reads."""

import io
import json
import pickletools
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_files import FORMS, legacy_form, plain, state, tensor_opcodes, zip_form

from bert4x.checkpoints.formats.torch_pickle import read_torch, read_torch_sharded
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, from_array
from bert4x.errors import (
    CheckpointNotFoundError,
    ConversionError,
    CorruptFileError,
    TensorMismatchError,
    UnknownFormatError,
    UnsafeFileError,
)

SHARED = Path(__file__).parents[2] / "shared" / "data" / "checkpoints"


@pytest.mark.parametrize("form", FORMS)
def test_hand_written_file(put, form):
    tensors = read_torch(put(FORMS[form](state(tensor_opcodes()))))
    assert list(tensors) == ["w"]
    assert tensors["w"].shape == (2, 3)
    assert tensors["w"].dtype == np.float32
    np.testing.assert_array_equal(tensors["w"].read(), np.arange(6).reshape(2, 3))
    assert tensors["w"].verify() is (form == "zip")


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_real_torch_files(tmp_path, modern, protocol):
    torch = pytest.importorskip("torch", reason="compares with files PyTorch writes")
    base = torch.arange(24.0).reshape(4, 6)
    values = {
        "whole": base,
        "transposed": base.t(),
        "strided": base[1:, ::2],
        "half": base.half(),
        "bfloat16": base.bfloat16()[2],
        "double": base.double(),
        "int8": torch.ones(3, dtype=torch.int8),
        "int16": torch.ones(3, dtype=torch.int16),
        "int32": torch.ones(3, dtype=torch.int32),
        "int64": torch.arange(3),
        "uint8": torch.get_rng_state(),
        "uint16": torch.tensor([1, 65535]).to(torch.uint16),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "broadcast": torch.ones(1).expand(5),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    other = {
        "none": None,
        "set": {1, 2},
        "size": torch.Size([1]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "numpy": np.random.RandomState(0).get_state(),
        "scalar_of_numpy": np.float64(1),
        "python_random": random.Random(0).getstate(),
        "bytes": b"abc",
        3: "three",
    }
    nested = {"list": [torch.ones(1), {"deep": torch.zeros(2)}], "module": torch.nn.Linear(3, 2).state_dict()}
    path = tmp_path / "model.bin"
    torch.save(values | other | nested, path, _use_new_zipfile_serialization=modern, pickle_protocol=protocol)
    tensors = read_torch(path)
    assert set(tensors) == {*values, "list.0", "list.1.deep", "module.weight", "module.bias"}
    for name, value in values.items():
        value = value.detach()
        array = tensors[name].read()
        assert array.shape == tensors[name].shape == tuple(value.shape)
        assert array.dtype == tensors[name].dtype == (BFLOAT16 if name == "bfloat16" else value.numpy().dtype)
        np.testing.assert_array_equal(array.astype("f8"), value.double().numpy(), err_msg=name)
        assert tensors[name].verify() is modern
    assert list(read_torch(path, root="module")) == ["weight", "bias"]
    with pytest.raises(UnknownFormatError, match="'whole'"):
        read_torch(path, root="model")


@pytest.mark.parametrize("folder", ["cpm_1shard_fp32_zip", "cpm_2shards_fp16_zip", "cpm_2shards_fp16_legacy"])
def test_published_layout(folder):
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data/checkpoints")
    torch = pytest.importorskip("torch", reason="compares with torch.load")
    for path in sorted((SHARED / folder).glob("80000/*.pt")):
        # these files come with the test data and hold NumPy random states, hence not weights_only
        expected = torch.load(path, weights_only=False)["module"]
        tensors = read_torch(path, root="module")
        assert list(tensors) == list(expected)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(tensor.read(), expected[name].numpy())


def test_python2_and_old_storage_views(put):
    """Byte strings as names (Python 2), and a storage that is a view of another (PyTorch 0.3)."""
    view = b"(X\x04\x00\x00\x00viewK\x02K\x04t"
    tensor = tensor_opcodes(shape=(4,), strides=(1,)).replace(b"K\x06tQ", b"K\x06" + view + b"tQ")
    path = put(legacy_form(b"\x80\x02}U\x01w" + tensor + b"s."))
    np.testing.assert_array_equal(read_torch(path)["w"].read(), [2, 3, 4, 5])


@pytest.mark.parametrize(
    "name",
    [
        "megatron.arguments Args",
        "lightning.fabric.utilities.data AttributeDict",
        "pytorch_lightning.utilities.parsing AttributeDict",
        "omegaconf.dictconfig DictConfig",
        "transformers.models.bert.configuration_bert BertConfig",
        "transformers.configuration_bert BertConfig",
    ],
)
def test_instances_of_training_frameworks_are_skipped(put, name):
    """Arguments of a training, which Lightning keeps as hyper_parameters."""
    arguments = b"c" + name.replace(" ", "\n").encode() + b"\n)\x81}b"
    program = b"\x80\x02}(" + plain("args") + arguments + plain("w") + tensor_opcodes() + b"u."
    assert list(read_torch(put(zip_form(program)))) == ["w"]


@pytest.mark.parametrize("name", ["transformers.models.bert.modeling_bert BertModel", "lightningx.y Z", "os system"])
def test_models_are_no_arguments(put, name):
    arguments = b"c" + name.replace(" ", "\n").encode() + b"\n)\x81}b"
    program = b"\x80\x02}(" + plain("args") + arguments + plain("w") + tensor_opcodes() + b"u."
    with pytest.raises(UnsafeFileError, match=name.replace(" ", ".")):
        read_torch(put(zip_form(program)))


def test_changed_after_opening(put):
    path = put(zip_form(state(tensor_opcodes())))
    tensor = read_torch(path)["w"]
    path.write_bytes(b"something else")
    with pytest.raises(CorruptFileError, match="changed"):
        tensor.read()
    path.unlink()
    with pytest.raises(CheckpointNotFoundError):
        tensor.read()


def some_tensors():
    rng = np.random.default_rng(0)
    return [
        from_array("fp32", rng.standard_normal((3, 4)).astype("f4")),
        from_array("fp16", rng.standard_normal((5,)).astype("f2")),
        from_array("bf16", rng.standard_normal((2, 1, 3)).astype(BFLOAT16)),
        from_array("transposed", rng.standard_normal((4, 6)).astype("f8").T),
        from_array("scalar", np.array(7)),
        from_array("empty", np.zeros((0, 2), "f4")),
        from_array("中文", np.array([True, False])),
        from_array("bytes", np.arange(300, dtype="u1")),
    ]


@pytest.mark.parametrize("root", [None, "module"])
def test_torch_reads_what_we_write(tmp_path, root):
    torch = pytest.importorskip("torch", reason="loads the file with PyTorch")
    path = tmp_path / "mp_rank_00_model_states.pt"
    extra = {"iteration": 80000, "none": None, "flag": True, "half": 0.5, "text": "词", "big": 2**70, "d": {"x": -1}}
    write_torch(path, some_tensors(), root=root, extra=extra)
    for options in ({}, {"mmap": True}):
        loaded = torch.load(path, weights_only=True, **options)
        assert {key: loaded[key] for key in extra} == extra
        weights = loaded[root] if root else {key: value for key, value in loaded.items() if key not in extra}
        assert list(weights) == [tensor.name for tensor in some_tensors()]
        for tensor in some_tensors():
            expected = tensor.read()
            assert tuple(weights[tensor.name].shape) == tensor.shape
            np.testing.assert_array_equal(weights[tensor.name].double().numpy(), expected.astype("f8"))


@pytest.mark.parametrize("zip64", [False, True])
def test_round_trip_alignment_and_directory(tmp_path, monkeypatch, zip64):
    if zip64:  # as for members over 2 GiB
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 30)
    path = tmp_path / "x.bin"
    write_torch(path, some_tensors())
    tensors = read_torch(path)
    for tensor in some_tensors():
        array = tensors[tensor.name].read()
        assert array.dtype == tensor.dtype
        assert array.tobytes() == tensor.read().tobytes()
        assert tensors[tensor.name].verify()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:2] == ["x/data.pkl", "x/byteorder"]
        pickletools.dis(archive.read("x/data.pkl"), io.StringIO())  # raises if malformed
        for info in archive.infolist():
            name_length, extra_length = struct.unpack_from("<2H", path.read_bytes(), info.header_offset + 26)
            assert (info.header_offset + 30 + name_length + extra_length) % 64 == 0


def test_failed_write_leaves_nothing(tmp_path):
    def fail():
        raise OSError("disk on fire")

    broken = LazyTensor("b", (2,), np.dtype("f4"), fail)
    with pytest.raises(OSError, match="fire"):
        write_torch(tmp_path / "x.bin", [*some_tensors(), broken])
    with pytest.raises(TensorMismatchError, match="twice"):
        write_torch(tmp_path / "x.bin", [*some_tensors(), some_tensors()[0]])
    with pytest.raises(ConversionError, match="uint32"):
        write_torch(tmp_path / "x.bin", [from_array("a", np.zeros(2, "u4"))])
    lying = LazyTensor("b", (2,), np.dtype("f4"), lambda: np.zeros(3, "f4"))
    with pytest.raises(ConversionError, match="declared"):
        write_torch(tmp_path / "x.bin", [lying])
    assert list(tmp_path.iterdir()) == []


def test_sharded(tmp_path):
    tensors = some_tensors()
    write_torch(tmp_path / "a.bin", tensors[:4])
    write_torch(tmp_path / "b.bin", tensors[4:])
    weight_map = {t.name: "a.bin" if i < 4 else "b.bin" for i, t in enumerate(tensors)}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    assert set(read_torch_sharded(index)) == set(weight_map)
