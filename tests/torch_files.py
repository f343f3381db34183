"""PyTorch files written by hand, opcode by opcode, so that any field can be wrong."""

import io
import pickle
import struct
import zipfile

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


SIX = np.arange(6, dtype="<f4").tobytes()


def plain(value) -> bytes:
    """Opcodes of plain data, without the protocol and the stop."""
    return pickle.dumps(value, 2)[2:-1]


def tensor_opcodes(count=6, offset=0, shape=(2, 3), strides=(3, 1), kind="FloatStorage", key="0") -> bytes:
    """Opcodes of one tensor, as torch writes it."""
    storage = b"(" + plain("storage") + f"ctorch\n{kind}\n".encode() + b"".join(map(plain, (key, "cpu", count))) + b"tQ"
    view = storage + plain(offset) + plain(shape) + plain(strides) + b"\x89}"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"


def state(value: bytes) -> bytes:
    """Pickle of {"w": value}."""
    return b"\x80\x02}X\x01\x00\x00\x00w" + value + b"s."


def zip_form(program: bytes, storages=(("0", SIX),), compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        for key, data in storages:
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def legacy_form(program: bytes, storages=(("0", 6, SIX),)) -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, system))
    tail = pickle.dumps([key for key, *_ in storages], 2)
    return head + program + tail + b"".join(struct.pack("<q", count) + data for _, count, data in storages)


FORMS = {"zip": zip_form, "legacy": legacy_form}
