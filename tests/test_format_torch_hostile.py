"""PyTorch files that try to run code, to exhaust memory or time, to climb out, or are merely damaged."""

import contextlib
import io
import os
import pickle
import random
import resource
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_files import FORMS, SIX, plain, state, tensor_opcodes, zip_form

from bert4x.checkpoints.formats.torch_pickle import read_torch
from bert4x.errors import (
    Bert4xError,
    CheckpointNotFoundError,
    CorruptFileError,
    TensorMismatchError,
    UnknownFormatError,
    UnsafeFileError,
)


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def hostile_pickles(tmp_path) -> dict[str, tuple[bytes, str]]:
    marker = tmp_path / "executed"
    return {
        "os.system": (pickle.dumps({"w": Calls(os.system, f"touch {marker}")}, 2), f"{os.name}.system"),
        "protocol 0": (pickle.dumps({"w": Calls(os.system, f"touch {marker}")}, 0), "system|malformed"),
        "protocol 4": (pickle.dumps({"w": Calls(os.system, f"touch {marker}")}, 4), f"{os.name}.system"),
        "eval": (pickle.dumps({"w": Calls(eval, f"open({str(marker)!r}, 'w')")}, 2), "eval"),
        "getattr": (pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system"), 4), "getattr"),
        "nested": (b"\x80\x02ctorch.storage\n_load_from_bytes\nB\x00\x00\x00\x00\x85R.", "_load_from_bytes"),
        "dotted name": (b"\x80\x04\x8c\x05torch\x8c\x07Size.os\x93.", "torch.Size.os"),
        "inst": (b"(X\x02\x00\x00\x00lsios\nsystem\n.", "os.system"),
        "computed global": (b"\x80\x04K\x01K\x02\x93.", "name of a global"),
        "call of a string": (b"\x80\x02X\x01\x00\x00\x00a)R.", "calls a str"),
        "call of a tensor": (b"\x80\x02" + tensor_opcodes() + b")R.", "calls a StridedView"),
        "extension": (b"\x80\x02\x82\x01.", "malformed"),
        "whole model": (b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "torch.nn.modules.linear.Linear"),
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", list(hostile_pickles(Path())))
def test_nothing_is_executed(put, tmp_path, form, case):
    program, message = hostile_pickles(tmp_path)[case]
    expected = CorruptFileError if message == "malformed" else (UnsafeFileError, CorruptFileError)
    with pytest.raises(expected, match=message):
        read_torch(put(FORMS[form](program)))
    assert not (tmp_path / "executed").exists()


def test_hostile_pickle_without_any_container(put, tmp_path):
    with pytest.raises(UnsafeFileError, match="system"):
        read_torch(put(hostile_pickles(tmp_path)["os.system"][0]))


BOMBS = {
    "string length": b"\x80\x02X\xff\xff\xff\x7f.",
    "bytes length": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
    "integer length": b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(50),
    "long integer": b"\x80\x02\x8b\x00\x00\x10\x00" + bytes(1 << 20) + b".",
    "negative integer length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "memo index": b"\x80\x02]r\xff\xff\xff\xffX\x01\x00\x00\x00w" + b"}.",  # builds nothing; must cost nothing
    "missing memo": b"\x80\x02j\xff\xff\xff\x7f.",
    "nested tuples": b"\x80\x02)" + b"\x85" * 500_000 + b".",
    "nested tuple as key": b"\x80\x02})" + b"\x85" * 500_000 + b"Ns.",
    "nested lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
    "marks": b"\x80\x02" + b"(" * 500_000 + b".",
    "instructions": b"\x80\x02" + b"N0" * 2_000_000 + b".",
    "laughs": b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b".",
    "contains itself": b"\x80\x02]q\x00(" + b"h\x00" * 10 + b"e.",
    "colliding keys": b"\x80\x02}(" + b"".join(plain(i * (2**61 - 1)) + b"N" for i in range(50_000)) + b"u.",
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_cost_nothing(put, case):
    path = put(zip_form(BOMBS[case]))
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(Bert4xError):
        assert read_torch(path) == {}
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "bad",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"shape": (3, 3)},
        {"shape": (-2, 3)},
        {"shape": (2**40, 2**40)},
        {"shape": (2,)},
        {"strides": (4, 1)},
        {"strides": (-3, 1)},
        {"strides": (2**61, 1)},
        {"shape": (2**30, 2**20), "strides": (0, 0)},
        {"count": -6},
        {"count": 5},
        {"count": 7},
        {"count": 2**61},
        {"kind": "DoubleStorage"},
        {"key": "1"},
        {"shape": (1,) * 40, "strides": (1,) * 40},
    ],
    ids=str,
)
def test_tensors_outside_their_storage(put, form, bad):
    with pytest.raises((CorruptFileError, UnsafeFileError)):
        read_torch(put(FORMS[form](state(tensor_opcodes(**bad)))))


def test_numbers_of_8_bits_are_named(put):
    with pytest.raises(UnknownFormatError, match="QInt8Storage: numbers of less than 16 bits"):
        read_torch(put(FORMS["zip"](state(tensor_opcodes(kind="QInt8Storage")))))


def test_two_tensors_of_one_name(put):
    nested = plain("a") + b"}" + plain("b") + tensor_opcodes() + b"s"
    program = b"\x80\x02}(" + plain("a.b") + tensor_opcodes() + nested + b"u."
    with pytest.raises(TensorMismatchError, match=r"'a\.b'"):
        read_torch(put(zip_form(program)))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "archive/../../evil", "C:/evil", "..\\evil"])
def test_members_that_climb(put, name):
    buffer = io.BytesIO(zip_form(state(tensor_opcodes())))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(UnsafeFileError, match="climbs"):
        read_torch(put(buffer.getvalue()))


def test_zip_bomb(put):
    big = tensor_opcodes(count=2**24, shape=(2**24,), strides=(1,))
    data = zip_form(state(big), [("0", bytes(2**26))], zipfile.ZIP_DEFLATED)
    assert len(data) < 2**17
    with pytest.raises(UnsafeFileError, match="zip bomb"):
        read_torch(put(data))


def test_deflated_members_are_read(put):
    values = np.random.default_rng(0).standard_normal(6).astype("<f4")
    data = zip_form(state(tensor_opcodes()), [("0", values.tobytes())], zipfile.ZIP_DEFLATED)
    tensor = read_torch(put(data))["w"]
    np.testing.assert_array_equal(tensor.read(), values.reshape(2, 3))
    assert tensor.verify()


def test_overlapping_and_contradicting_members(put):
    good = zip_form(state(tensor_opcodes()), [("0", bytes(24)), ("1", bytes(24))])
    entry = good.rindex(b"PK\1\2", 0, good.rindex(b"archive/data/1"))
    moved = struct.pack("<I", good.index(b"PK\3\4", 4))  # the entry of data/1 points at data/0
    with pytest.raises(CorruptFileError, match="contradicts"):
        read_torch(put(good[: entry + 42] + moved + good[entry + 46 :]))
    # an archive inside a stored member, whose members the outer directory lists too
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data/1", bytes(24))
    outer = zip_form(state(tensor_opcodes(key="1")), [("0", inner.getvalue())])
    entry = inner.getvalue()[inner.getvalue().index(b"PK\1\2") : inner.getvalue().index(b"PK\5\6")]
    entry = entry[:42] + struct.pack("<I", outer.index(b"PK\3\4", outer.index(b"archive/data/0"))) + entry[46:]
    end = outer.rindex(b"PK\5\6")
    _, _, _, _, count, size, offset, _ = struct.unpack("<4s4H2IH", outer[end:])
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count + 1, count + 1, size + len(entry), offset, 0)
    with pytest.raises(UnsafeFileError, match="overlap"):
        read_torch(put(outer[:end] + entry + tail))
    renamed = good.replace(b"archive/data/0", b"archive/data/9", 1)  # in the local header only
    with pytest.raises(CorruptFileError, match="contradicts"):
        read_torch(put(renamed))
    twice = good.replace(b"archive/data/1", b"archive/data/0")
    with pytest.raises(CorruptFileError, match="two members"):
        read_torch(put(twice))


def test_not_torch(put, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "x")
    for data in (buffer.getvalue(), b"GGUF" + bytes(100), pickle.dumps({"a": 1}, 2)):
        with pytest.raises(UnknownFormatError):
            read_torch(put(data))
    with pytest.raises(CorruptFileError):
        read_torch(put(b""))
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(CheckpointNotFoundError):
            read_torch(path)


@pytest.mark.parametrize("form", FORMS)
def test_truncation_is_always_noticed(put, form):
    data = FORMS[form](state(tensor_opcodes()))
    for length in range(len(data)):
        with pytest.raises((CorruptFileError, UnknownFormatError, UnsafeFileError)):
            read_torch(put(data[:length]))


def test_every_changed_data_byte_fails_verification(put):
    data = zip_form(state(tensor_opcodes()))
    begin = data.index(SIX)
    for position in range(begin, begin + 24):
        changed = bytearray(data)
        changed[position] ^= 0x10
        tensor = read_torch(put(bytes(changed)))["w"]
        with pytest.raises(CorruptFileError, match="CRC-32"):
            tensor.verify()


@pytest.mark.parametrize("form", FORMS)
def test_mutations_raise_our_errors_only(put, form):
    data = FORMS[form](state(tensor_opcodes()))
    random_ = random.Random(0)
    start = time.process_time()
    for _ in range(1500):
        mutated = bytearray(data)
        for _ in range(random_.randint(1, 3)):
            mutated[random_.randrange(len(mutated))] = random_.choice([0, 1, 0x7F, 0x80, 0xFF, random_.randrange(256)])
        try:
            for tensor in read_torch(put(bytes(mutated))).values():
                assert tensor.read().shape == tensor.shape
                tensor.verify()
        except Bert4xError:
            pass
    assert time.process_time() - start < 60
