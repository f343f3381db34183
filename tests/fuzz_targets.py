"""Small valid files of every format, and how to open them, for `tests.fuzz`."""

import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.hdf5 import read_hdf5, read_hdf5_attributes, write_hdf5
from bert4x.checkpoints.formats.leveldb_table import read_table, write_table
from bert4x.checkpoints.formats.safetensors_file import (
    read_safetensors,
    read_safetensors_sharded,
    write_safetensors,
    write_safetensors_sharded,
)
from bert4x.checkpoints.formats.tf1_bundle import read_tf1, write_tf1
from bert4x.checkpoints.formats.torch_pickle import MAGIC, read_torch
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, Tensors, from_array
from bert4x.config import ConfigStyle, from_json, read_config_file

# what to splice in where a file is text, and where it is a pickle
JSON_TOKENS = (
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b"9" * 5000, b"0.5", b"18446744073709551615"),
    *(b'""', b'"../x"', b'"\\ud800"', b'"F64"', b'"a":1,', b"{}", b"[]", b"[" * 3000, b",", b":", b'"', b"}", b"]"),
)
PICKLE_TOKENS = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch.storage\n_load_from_bytes\n", b"ctorch\nLongStorage\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch\nfloat16\n", b"X\x01\x00\x00\x000", b"h\x00", b"q\x00"),
    *(b"\x8a\x10" + b"\xff" * 16, b"\x8b\xff\xff\xff\x7f", b"r\xff\xff\xff\xff", b"\x81", b"\x85", b"\x8f", b"\x93"),
    *(bytes([code]) for code in b"RQbuts.()]}02N\x95"),
)


@dataclass(frozen=True)
class Target:
    """Files of one format, the one to damage, and how to open them.

    `sealed` turns the damaged bytes into the file, with checksums made valid again so that the damage gets past them;
    `checked` says that the format's checksums cover the tensors.
    """

    files: dict[str, bytes]
    damage: str
    open: Callable[[Path], Tensors]
    tokens: tuple[bytes, ...] = ()
    sealed: Callable[[bytes], bytes] = bytes
    original: bytes | None = None
    checked: bool = False

    @property
    def seed(self) -> bytes:
        """The bytes to mutate."""
        return self.files[self.damage] if self.original is None else self.original


def small_tensors() -> list[LazyTensor]:
    rng = np.random.default_rng(0)
    return [
        from_array("layers/dense/vars/0", rng.standard_normal((2, 3)).astype("f4")),
        from_array("layers/dense/vars/1", rng.standard_normal(3).astype("f2")),
        from_array("layers/norm/vars/0", rng.standard_normal((1, 2)).astype(BFLOAT16)),
        from_array("step", np.array(5, "i8")),
    ]


def rezipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def torch_targets(folder: Path) -> dict[str, Target]:
    path = folder / "x.pt"
    tensors = small_tensors()
    write_torch(path, tensors, root="module", extra={"iteration": 3, "lr": 0.5})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    program = members["x/data.pkl"]
    head = b"".join(
        pickle.dumps(value, 2) for value in (MAGIC, 1001, {"little_endian": True, "protocol_version": 1001})
    )
    keys = pickle.dumps([str(i) for i in range(len(tensors))], 2)
    storages = b"".join(struct.pack("<q", t.size) + members[f"x/data/{i}"] for i, t in enumerate(tensors))

    def target(data: bytes, **options) -> Target:
        return Target({"x.pt": data}, "x.pt", lambda folder: read_torch(folder / "x.pt"), PICKLE_TOKENS, **options)

    return {
        "torch-zip": target(path.read_bytes(), checked=True),
        "torch-deflated": target(rezipped(members, zipfile.ZIP_DEFLATED), checked=True),
        "torch-pickle": target(b"", sealed=lambda data: rezipped(members | {"x/data.pkl": data}), original=program),
        "torch-legacy": target(head + program + keys + storages),
    }


def tf1_targets(folder: Path) -> dict[str, Target]:
    write_tf1(folder / "x.ckpt", small_tensors(), checkpoint_file=False)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    data, index = sorted(files)
    entries = dict(read_table(files[index]))
    key = b"layers/dense/vars/0"

    def target(damage: str, **options) -> Target:
        return Target(files, damage, lambda folder: read_tf1(folder / "x.ckpt"), **options)

    def sealed(value: bytes) -> bytes:
        return write_table(sorted({**entries, key: value}.items()))

    return {
        "tf1-index": target(index, checked=True),
        "tf1-entry": target(index, sealed=sealed, original=entries[key]),
        "tf1-data": target(data, checked=True),
    }


def safetensors_targets(folder: Path) -> dict[str, Target]:
    write_safetensors(folder / "single", small_tensors())
    single = (folder / "single").read_bytes()
    (folder / "single").unlink()
    *_, index = write_safetensors_sharded(folder, small_tensors(), shards=2)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    one = lambda folder: read_safetensors(folder / "x.safetensors")  # noqa: E731
    return {
        "safetensors": Target({"x.safetensors": single}, "x.safetensors", one, JSON_TOKENS),
        "safetensors-index": Target(files, index.name, lambda f: read_safetensors_sharded(f / index.name), JSON_TOKENS),
    }


def hdf5_targets(folder: Path) -> dict[str, Target]:
    path = folder / "x.weights.h5"
    write_hdf5(path, small_tensors(), {"": {"layer_names": ["dense", "norm"], "backend": "tensorflow"}})

    def read(folder: Path) -> Tensors:
        read_hdf5_attributes(folder / path.name)
        return read_hdf5(folder / path.name)

    return {"hdf5": Target({path.name: path.read_bytes()}, path.name, read)}


def config_targets(folder: Path) -> dict[str, Target]:
    sizes = {"vocab_size": 21128, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = sizes | {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position": 512, "pad_token_id": 0}

    def read(folder: Path) -> Tensors:
        from_json(read_config_file(folder / "config.json"), "bert", ConfigStyle("gelu_erf"))
        return {}

    return {"config": Target({"config.json": json.dumps(config).encode()}, "config.json", read, JSON_TOKENS)}


def all_targets() -> dict[str, Target]:
    """The seed files of every format, by name."""
    targets = {}
    for make in (safetensors_targets, torch_targets, tf1_targets, hdf5_targets, config_targets):
        with tempfile.TemporaryDirectory() as folder:
            targets |= make(Path(folder))
    return targets
