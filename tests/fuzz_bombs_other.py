"""Small files that ask for much: GGUF, vocabularies, Flax, Keras, Paddle and tar, beside those of `tests.fuzz_bombs`.

Each repeats cheaply what a reader may copy: a layer that is listed many times, empty values, pieces of every length,
headers of an archive.
"""

import gzip
import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.flax_msgpack import read_flax
from bert4x.checkpoints.formats.gguf_file import open_gguf, write_gguf
from bert4x.checkpoints.formats.keras_h5 import read_keras_h5
from bert4x.checkpoints.formats.paddle_pickle import read_paddle
from bert4x.checkpoints.formats.protobuf import field
from bert4x.checkpoints.formats.tf2_objects import full_names
from bert4x.hub.archives import extract
from bert4x.tokenizers import load_tokenizer

Bomb = tuple[str, dict[str, bytes]]  # the name of its reader, and its files


def gguf_file(metadata: bytes, pairs: int, tensors: bytes = b"", count: int = 0) -> Bomb:
    return "gguf", {"x.gguf": b"GGUF" + struct.pack("<IQQ", 3, count, pairs) + metadata + tensors}


def named(name: str, rest: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + rest


def gguf_bombs() -> Iterator[tuple[str, Bomb]]:
    yield "empty texts", gguf_file(named("a", struct.pack("<IIQ", 9, 8, 60_000) + bytes(8 * 60_000)), 1)
    two = struct.pack("<Q", 2) + b"%02x"
    texts = b"".join(two % (i % 256) for i in range(60_000))
    yield "short texts", gguf_file(named("a", struct.pack("<IIQ", 9, 8, 60_000) + texts), 1)
    yield "pairs", gguf_file(b"".join(named(f"{i:x}", struct.pack("<IB", 0, 1)) for i in range(15_000)), 15_000)
    arrays = b"".join(named(f"{i:x}", struct.pack("<IIQ", 9, 0, 0)) for i in range(11_000))
    yield "empty arrays", gguf_file(arrays, 11_000)
    places = b"".join(named(f"{i:x}", struct.pack("<IIQ", 0, 0, 0)) for i in range(5_000))
    yield "tensors", gguf_file(b"", 0, places + bytes(64), 5_000)


def tokenizer_of_gguf(kind: str, **said) -> Bomb:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        fields = {"model": kind, "bos_token_id": 0} | said
        write_gguf(path, [], {"general.architecture": "llama"} | {f"tokenizer.ggml.{k}": v for k, v in fields.items()})
        return "tokenizer", {"x.gguf": path.read_bytes()}


def tokenizer_bombs() -> Iterator[tuple[str, Bomb]]:
    many = ["<s>", *(letter * i for letter in "abcd" for i in range(1, 251))]
    kinds = [3] + [1] * 1000
    yield (
        "one long piece",
        tokenizer_of_gguf("llama", tokens=["<s>", "a" * 200_000], token_type=[3, 1], scores=[0.0] * 2),
    )
    yield "pieces of every length", tokenizer_of_gguf("llama", tokens=many, token_type=kinds, scores=[0.0] * 1001)
    added = ["<s>", *(f"{i:x}" * 8 for i in range(5_000))]
    yield "added tokens", tokenizer_of_gguf("llama", tokens=added, token_type=[3] * 5_001, scores=[0.0] * 5_001)
    yield (
        "pieces of a vocabulary",
        ("tokenizer", {"vocab.txt": b"[UNK]\n" + b"".join(b"%x\n" % i for i in range(100_000))}),
    )
    yield "blank lines", ("tokenizer", {"vocab.txt": b"[UNK]\n" + b"\n" * 100_000 + b"a\n"})
    yield "a long line", ("tokenizer", {"vocab.txt": b"[UNK]\n" + b"a" * 1_000_000 + b"\n"})
    vocab = {f"{i:x}": i for i in range(50_000)}
    model = {"type": "WordPiece", "unk_token": "0", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    content = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None}
    content |= {"decoder": None, "model": model | {"vocab": vocab}}
    yield "a vocabulary in JSON", ("tokenizer", {"tokenizer.json": json.dumps(content).encode()})
    steps = {"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 10_000}
    content = content | {"normalizer": steps, "model": model | {"vocab": {"0": 0}}}
    yield "steps", ("tokenizer", {"tokenizer.json": json.dumps(content).encode()})
    tokens = {f"<{i:x}>": i + 5 for i in range(20_000)}
    files = {"vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", "added_tokens.json": json.dumps(tokens).encode()}
    yield "added tokens in JSON", ("tokenizer", files)
    piece = field(1, field(1, b"a") + b"\x15" + bytes(4))
    yield "pieces", ("tokenizer", {"spiece.model": b"".join(field(1, field(1, b"%x" % i)) for i in range(60_000))})
    yield "one piece", ("tokenizer", {"spiece.model": piece * 60_000})
    yield "empty pieces", ("tokenizer", {"spiece.model": field(1, field(1, b"")) * 100_000})
    yield "fields of a piece", ("tokenizer", {"spiece.model": field(1, field(1, b"a") * 100_000)})


def flax_bombs() -> Iterator[tuple[str, Bomb]]:
    for name, value in {"null": b"\xc0", "maps": b"\x80", "lists": b"\x90"}.items():
        yield f"list of {name}", ("flax", {"x.msgpack": b"\xdd" + struct.pack(">I", 50_000) + value * 50_000})
    keys = b"".join(b"\xa5%05x\xc0" % i for i in range(50_000))
    yield "keys", ("flax", {"x.msgpack": b"\xdf" + struct.pack(">I", 50_000) + keys})
    array = b"\x93\x91\x00\xa7float32\xc4\x00"
    one = b"\xc7" + bytes([len(array)]) + b"\x01" + array
    arrays = b"".join(b"\xa5%05x" % i + one for i in range(4_000))
    yield "arrays", ("flax", {"x.msgpack": b"\xdf" + struct.pack(">I", 4_000) + arrays})
    long = b"\x81\xd9\xff" + b"k" * 255
    inner = b"\xdf" + struct.pack(">I", 10_000) + b"".join(b"\xa5%05x\xc0" % i for i in range(10_000))
    yield "long paths", ("flax", {"x.msgpack": long * 3 + inner})


def keras_bombs() -> Iterator[tuple[str, Bomb]]:
    import h5py

    def file(fill) -> Bomb:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as opened:
            fill(opened)
        return "keras", {"x.h5": buffer.getvalue()}

    def layers(opened, word="w"):
        opened.attrs["layer_names"] = np.array([b"a"] * 60_000)
        group = opened.create_group("a")
        group[word] = np.zeros(1, "f4")
        group.attrs["weight_names"] = np.array([word.encode()] * (60_000 // len(word)))

    yield "one layer under many names", file(layers)
    yield "one layer of transformers under many names", file(lambda opened: layers(opened, "tf_bert/w"))


def graph_bombs() -> Iterator[tuple[str, Bomb]]:
    yield "objects", ("graph", {"x": field(1, b"") * 50_000})
    yield "attributes", ("graph", {"x": field(1, field(2, b"") * 50_000)})
    variables = b"".join(field(2, field(2, b"a") + field(3, b"%x" % i)) for i in range(50_000))
    yield "names of variables", ("graph", {"x": field(1, variables)})


def paddle_bombs() -> Iterator[tuple[str, Bomb]]:
    text = b"X" + struct.pack("<I", 60_000) + b"a" * 60_000 + b"q\x010"
    values = b"\x80\x04" + text + b"](" + b"N" * 20_000 + b"eq\x020"
    arrays = b"cnumpy.core.multiarray\n_reconstruct\nq\x030"
    state = b"(K\x01" + b"h\x02" * 4 + b"tq\x040"
    bodies = {
        "arrays": (arrays, b"h\x03)R"),
        "states": (arrays + state, b"h\x03)Rh\x04b"),
        "dtypes": (b"cnumpy\ndtype\nq\x030", b"h\x03h\x01\x85R"),
        "texts": (b"c_codecs\nencode\nq\x030", b"h\x03h\x01\x85R"),
    }
    for name, (before, body) in bodies.items():
        yield name, ("paddle", {"x.pdparams": values + before + body * 15_000 + b"}."})


def header(name: str = "x", kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytearray:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return bytearray(info.tobuf(tarfile.GNU_FORMAT))


def summed(block: bytearray) -> bytearray:
    """A header of tar with its checksum."""
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return block


def archive_bombs() -> Iterator[tuple[str, Bomb]]:
    """`tarfile` keeps all members, reads long headers whole, and searches them in quadratic time."""
    noise = np.random.default_rng(0).bytes(1_000_000)  # so that the file may unpack to much
    found = {"members": b"".join(summed(header(str(i))) for i in range(20_001))}
    found["a long header"] = header("x", tarfile.XHDTYPE, 90 << 20) + bytes(90 << 20) + noise
    found["digits of a header"] = header("x", tarfile.XHDTYPE, 200_000) + b"1" * 200_192 + header("y")
    found["many headers of digits"] = (header("x", tarfile.XHDTYPE, 10_240) + b"1" * 10_240) * 50 + header("y")
    holes = header("x", tarfile.GNUTYPE_SPARSE)
    holes[482] = 1  # the map of holes goes on in the next block
    found["holes"] = summed(holes) + (b"%011o " % 1 * 42 + b"\1" + bytes(7)) * 100_000
    said = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.realsize=9\n"
    said = header("x", tarfile.XHDTYPE, len(said)) + said.ljust(512, b"\0")
    found["a map of holes"] = said + header("y", size=32 << 20) + b"9999999\n" + b"1\n" * (16 << 20) + noise
    negative = header("config.json")
    negative[124:136] = b"\xff" * 10 + b"\xfc\x00"  # a size of -1024
    found["a negative size"] = summed(negative) + bytes(4096)
    for name, data in found.items():
        yield name, ("archive", {"x.tar.gz": gzip.compress(bytes(data) + bytes(1024), 1)})


def all_bombs() -> Iterator[tuple[str, Bomb]]:
    """Those of all formats here."""
    for make in (gguf_bombs, tokenizer_bombs, flax_bombs, keras_bombs, graph_bombs, paddle_bombs, archive_bombs):
        yield from make()


def use_tokenizer(folder: Path) -> dict:
    tokenizer = load_tokenizer(next(folder.glob("*.gguf"), folder))
    if tokenizer is not None:
        tokenizer.encode("月光 ab")
    return {}


def use_graph(folder: Path) -> dict:
    full_names((folder / "x").read_bytes())
    return {}


def use_archive(folder: Path) -> dict:
    (folder / "out").mkdir()
    extract(next(folder.glob("x.*")), folder / "out")
    return {}


READERS: dict[str, Callable] = {
    "gguf": lambda folder: open_gguf(folder / "x.gguf")[1],
    "tokenizer": use_tokenizer,
    "flax": lambda folder: read_flax(folder / "x.msgpack"),
    "keras": lambda folder: read_keras_h5(folder / "x.h5"),
    "graph": use_graph,
    "paddle": lambda folder: read_paddle(folder / "x.pdparams"),
    "archive": use_archive,
}
