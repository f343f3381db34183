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

from bert4x.checkpoints.formats.flax_msgpack import read_flax
from bert4x.checkpoints.formats.gguf_file import Packed, open_gguf, write_gguf
from bert4x.checkpoints.formats.hdf5 import read_hdf5, read_hdf5_attributes, write_hdf5
from bert4x.checkpoints.formats.keras_h5 import read_keras_h5
from bert4x.checkpoints.formats.leveldb_table import read_table, write_table
from bert4x.checkpoints.formats.paddle_pickle import read_paddle
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
from bert4x.tokenizers.gguf import gguf_tokenizer

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


NUMPY_TOKENS = (
    *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n"),
    *(b"cnumpy._core.numeric\n_frombuffer\n", b"c__builtin__\nbytes\n", b"(K\x01K\x02tb", b"B\xff\xff\xff\x7f"),
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

    found = {"hdf5": Target({path.name: path.read_bytes()}, path.name, read)}
    array = from_array("bert/tf_bert_model/bert/encoder/layer_._0/dense/kernel:0", np.ones((2, 3), "f4"))
    copies = [array, from_array(array.name.replace("bert/tf", "mlm/tf", 1), np.ones((2, 3), "f4"))]
    names = {layer: {"weight_names": [array.name.partition("/")[2]]} for layer in ("bert", "mlm")}
    write_hdf5(path, copies, {"": {"layer_names": ["bert", "mlm"]}} | names)
    return found | {
        "tf_model": Target({path.name: path.read_bytes()}, path.name, lambda folder: read_keras_h5(folder / path.name))
    }


def paddle_targets(folder: Path) -> dict[str, Target]:
    arrays = {tensor.name: np.array(tensor.read()) for tensor in small_tensors()}
    arrays["layers/norm/vars/0"] = arrays["layers/norm/vars/0"].view("u2")
    arrays |= {"large": np.arange(100, dtype="f4"), "T": np.asfortranarray(np.ones((2, 3), "f4"))}
    nested = {
        "StructuredToParameterName@@": {"large": "linear_0.w_0"},
        "inner": {"x": ("linear_1.w_0", np.ones(2, "f4"))},
    }

    def target(protocol: int) -> Target:
        data = pickle.dumps(arrays | nested, protocol)
        read = lambda folder: read_paddle(folder / "x.pdparams")  # noqa: E731
        return Target({"x.pdparams": data}, "x.pdparams", read, PICKLE_TOKENS + NUMPY_TOKENS)

    return {"paddle": target(4), "paddle-2": target(2)}


def packed(value) -> bytes:
    """MessagePack of maps, strings, and arrays as Flax writes them."""
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(packed(key) + packed(item) for key, item in value.items())
    if isinstance(value, str):
        return bytes([0xD9, len(value)]) + value.encode()
    shape = bytes([0x90 | value.ndim, *value.shape])
    data = b"\x93" + shape + packed(value.dtype.name) + b"\xc5" + struct.pack(">H", value.nbytes) + value.tobytes()
    return b"\xc8" + struct.pack(">H", len(data)) + b"\x01" + data


def flax_targets(folder: Path) -> dict[str, Target]:
    words = ("kernel", "scale", "bias", "embedding")
    leaves = {w[0]: {w: np.array(tensor.read())} for w, tensor in zip(words, small_tensors(), strict=True)}
    data = packed({"bert": {"layer": leaves}, "lm_head": {"kernel": np.arange(90, dtype="f4").reshape(9, 10)}})
    tokens = (
        b"\xc7\x05\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff",
        b"\x81" * 40,
        b"\x93\x92\x01\x02",
        b"\xc0",
    )
    tokens = (*tokens, b"\xd9\x07float32", b"\xc6\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + b"\0" * 7)
    return {"flax": Target({"x.msgpack": data}, "x.msgpack", lambda folder: read_flax(folder / "x.msgpack"), tokens)}


def config_targets(folder: Path) -> dict[str, Target]:
    sizes = {"vocab_size": 21128, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = sizes | {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position": 512, "pad_token_id": 0}

    def read(folder: Path) -> Tensors:
        from_json(read_config_file(folder / "config.json"), "bert", ConfigStyle("gelu_erf"))
        return {}

    return {"config": Target({"config.json": json.dumps(config).encode()}, "config.json", read, JSON_TOKENS)}


def gguf_targets(folder: Path) -> dict[str, Target]:
    path = folder / "x.gguf"
    matrix = from_array("matrix", np.arange(96, dtype="f4").reshape(3, 32))
    metadata = {"general.architecture": "bert", "bert.block_count": 2, "bert.attention.layer_norm_epsilon": 1e-12}
    metadata |= {"tokenizer.ggml.tokens": ["[PAD]", "a", "的"], "types": [3, 1, 1], "causal": False}
    write_gguf(path, [*small_tensors()[:3], matrix, Packed(from_array("packed", matrix.read()))], metadata)
    found = {"gguf": Target({path.name: path.read_bytes()}, path.name, lambda folder: open_gguf(folder / path.name)[1])}
    ids = {token: number for number, token in enumerate(["<s>", "a", "b", "ab", "的"])}
    said = {"model": "llama", "tokens": list(ids), "token_type": [3, 1, 1, 1, 1], "bos_token_id": 0}
    said |= {"scores": [0.0, -2.0, -3.0, -1.0, -4.0]}
    write_gguf(path, [], metadata | {f"tokenizer.ggml.{key}": value for key, value in said.items()})

    def read(folder: Path) -> Tensors:
        gguf_tokenizer(folder / path.name)
        return {}

    return found | {"gguf-tokenizer": Target({path.name: path.read_bytes()}, path.name, read)}


MAKERS = (
    *(safetensors_targets, torch_targets, tf1_targets, hdf5_targets, config_targets),
    *(paddle_targets, flax_targets, gguf_targets),
)


def all_targets() -> dict[str, Target]:
    """The seed files of every format, by name."""
    targets = {}
    for make in MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            targets |= make(Path(folder))
    return targets
