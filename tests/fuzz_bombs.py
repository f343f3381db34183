"""Files that are small and ask for much: what `tests.fuzz --bombs` measures.

A bomb says a thing once and repeats it cheaply. For pickles that is a memoised value passed again and again to every
instruction, and to every global that the reader allows; for other formats names, values or structures that are shared.
"""

import io
import itertools
import json
import multiprocessing
import random
import resource
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.hdf5 import read_hdf5, read_hdf5_attributes
from bert4x.checkpoints.formats.leveldb_table import masked_crc32c, write_table, write_varint
from bert4x.checkpoints.formats.safetensors_file import read_safetensors, read_safetensors_sharded
from bert4x.checkpoints.formats.tf1_bundle import read_tf1
from bert4x.checkpoints.formats.torch_globals import GLOBALS
from bert4x.checkpoints.formats.torch_pickle import read_torch
from bert4x.checkpoints.tensors import Tensors, contiguous
from bert4x.errors import Bert4xError
from tests import fuzz_bombs_other
from tests.torch_files import LEGACY_MAGIC, plain, tensor_opcodes

FACTOR, FREE = 64, 64 << 20  # bytes of memory for a byte of the file, and beside that
SECONDS = 5  # of CPU time
Bomb = tuple[str, dict[str, bytes]]  # the name of its reader, and its files


def memoised(index: int, value: bytes) -> bytes:
    """Puts a value into the memo and takes it from the stack."""
    return value + b"r" + struct.pack("<I", index) + b"0"


def get(index: int) -> bytes:
    return b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    return f"c{module}\n{name}\n(".encode() + b"".join(args) + b"tR"


PAIRS = b"](" + b"".join(b"X\x02\x00\x00\x00%02x" % (i % 256) + b"N\x86" for i in range(4000)) + b"e"
VALUES = {  # what a bomb says once
    "pairs": PAIRS,
    "list": b"](" + b"N" * 20_000 + b"e",
    "tuple": b"(" + b"N" * 20_000 + b"t",
    "dict": b"}(" + b"".join(b"M%c%cN" % divmod(i, 256) for i in range(5000)) + b"u",
    "text": text("a" * 60_000),
    "wide text": text("\U0001f600" + "a" * 60_000),
    "module": text("megatron." + "a" * 60_000),
    "short module": text("megatron." + "a" * 400),
    "bytes": b"B" + struct.pack("<I", 60_000) + bytes(60_000),
    "integer": b"\x8b" + struct.pack("<I", 1000) + b"\x7f" * 1000,
    "shape": plain([1] * 32),
    "args of one list": PAIRS + b"\x85",
    "args of many": b"(" + b"N" * 20_000 + b"t",
    "storage": b"(" + plain("storage") + b"ctorch\nFloatStorage\n" + plain("0") + plain("cpu") + plain(6) + b"tQ",
    "storage id": b"(" + plain("storage") + b"ctorch\nFloatStorage\n" + plain("0") + plain("cpu") + plain(6) + b"t",
    "tensor": tensor_opcodes(),
    "nested": b")" + b"\x85" * 20_000,
    "itself": b"]2a",
}
PRELUDE = b"\x80\x04" + b"".join(memoised(i, value) for i, value in enumerate(VALUES.values()))
INDEX = {name: i for i, name in enumerate(VALUES)}
PUSHES = (
    b"N",
    b"\x88",
    b")",
    b"]",
    b"}",
    b"\x8f",
    b"(",
    b"K\x07",
    b"M\x00\x07",
    b"J\x00\x00\x00\x07",
    b"X\x02\x00\x00\x00ab",
)
PUSHES += (b"\x8c\x02\xc3\xa9", b"G" + bytes(8), b"\x8a\x02\xff\x7f", b"C\x02ab")
PUSHES += (b"\x96\x02" + bytes(7) + b"ab",)
ON_STACK = (
    b"2",
    b"0",
    b"1",
    b"\x85",
    b"\x86",
    b"\x87",
    b"a",
    b"s",
    b"R",
    b"\x81",
    b"\x92",
    b"\x93",
    b"b",
    b"Q",
    b"\x94",
)
ON_MARK = (b"t", b"e", b"u", b"o", b"\x90", b"\x91", b"1")


def programs() -> Iterator[tuple[str, bytes]]:
    """Bodies of pickles, each to be repeated: every instruction on every value, every global on every value."""
    for push in PUSHES:
        yield f"push {push!r}", push
        yield f"push and memoise {push!r}", push + b"\x94"
    yield "memoise one value under every number", b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(500))
    for (name, i), op in itertools.product(INDEX.items(), ON_STACK):
        yield f"{name} {op!r}", b"](}" + get(i) * 2 + op if op in (b"a", b"s") else b"N(" + get(i) * 3 + op
    for (name, i), op in itertools.product(INDEX.items(), ON_MARK):
        yield f"marked {name} {op!r}", (b"]" if op == b"e" else b"}" if op == b"u" else b"") + b"(" + get(i) * 4 + op
    found = dict(GLOBALS) | {("megatron.x", "y"): None, ("apex.amp", "z"): None}
    for (module, name), (value, i) in itertools.product(found, INDEX.items()):
        reference = memoised(255, f"c{module}\n{name}\n".encode())
        yield f"{module}.{name}({value})", reference + (get(255) + get(i) + b"\x85R") * 50
        yield f"{module}.{name}(*{value})", reference + (get(255) + get(i) + b"R0") * 50
    for size in ((1, 1), (2, 3), (0, 3)):
        args = b"(" + get(INDEX["storage"]) + plain(0) + plain(list(size)) + plain([3, 1]) + b"\x89}t"
        yield f"tensor {size}", memoised(254, args) + (b"ctorch._utils\n_rebuild_tensor_v2\n" + get(254) + b"R") * 50
    shape = b"(" + get(INDEX["storage"]) + b"K\x00" + get(INDEX["shape"]) * 2 + b"\x89}t"
    yield (
        "tensors of lists",
        memoised(254, shape)
        + memoised(253, b"ctorch._utils\n_rebuild_tensor_v2\n")
        + ((get(253) + get(254) + b"R") * 200),
    )


def random_program(seed: int) -> bytes:
    """A body of random instructions on random values."""
    draw = random.Random(seed)
    parts = []
    for _ in range(draw.randint(1, 8)):
        kind = draw.randrange(4)
        if kind == 0:
            parts.append(draw.choice(PUSHES))
        elif kind == 1:
            parts.append(get(draw.randrange(len(VALUES))) * draw.choice((1, 1, 2, 3)))
        elif kind == 2:
            parts.append(draw.choice(ON_STACK))
        else:
            module, name = draw.choice(list(GLOBALS))
            parts.append(
                f"c{module}\n{name}\n".encode() + get(draw.randrange(len(VALUES))) + draw.choice((b"R", b"\x85R"))
            )
    return b"".join(parts)


def pickled(body: bytes, size: int) -> bytes:
    """A pickle of about `size` bytes that repeats a body and ends with a dict."""
    return PRELUDE + body * max(1, (size - len(PRELUDE)) // len(body)) + b"}."


def zipped(program: bytes, compression: int = zipfile.ZIP_STORED, storages=(("0", bytes(24)),)) -> Bomb:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("x/data.pkl", program)
        for key, data in storages:
            archive.writestr(f"x/data/{key}", data)
    return "torch", {"x.pt": buffer.getvalue()}


def legacy(program: bytes, keys: bytes = plain(["0"]), storages: bytes = struct.pack("<q", 6) + bytes(24)) -> Bomb:
    head = b"".join(b"\x80\x02" + plain(value) + b"." for value in (LEGACY_MAGIC, 1001, {"little_endian": True}))
    data = head + program + b"\x80\x02" + keys + b"." + storages
    return "torch", {"x.pt": data}


def torch_bombs() -> Iterator[tuple[str, Bomb]]:
    """Values that are harmless as a pickle, and large as tensors; archives; the older form."""
    deflated = zipfile.ZIP_DEFLATED
    laughs = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b"."
    yield "laughs", zipped(laughs)
    tensors = b"".join(text(f"{i:x}") + get(2) for i in range(100))
    shared = b"\x80\x02" + memoised(2, tensor_opcodes()) + memoised(3, b"}(" + tensors + b"u")
    yield "one dict of tensors in many places", zipped(shared + b"](" + get(3) * 5000 + b"e.")
    path = b"}" + text("k" * 1000)
    deep = memoised(2, b"](" + b"]" * 100 + b"e") + path * 20 + b"](" + get(2) * 20_000 + b"e" + b"s" * 20
    yield "long paths", zipped(b"\x80\x02" + deep + b".")
    yield (
        "long names",
        zipped(b"\x80\x02}(" + b"".join(text("n" * 900 + str(i)) + tensor_opcodes() for i in range(3000)) + b"u."),
    )
    wide = memoised(2, tensor_opcodes(shape=(256, 256), strides=(0, 0)))
    names = b"".join(text(f"{i:x}") + get(2) for i in range(20_000))
    for form in (zipped, legacy):
        yield f"expanded tensors {form.__name__}", form(b"\x80\x02" + wide + b"}(" + names + b"u.")
    one = memoised(2, tensor_opcodes(count=1 << 18, shape=(1 << 18,), strides=(1,)))
    for compression in (zipfile.ZIP_STORED, deflated):
        data = random.Random(0).randbytes(1 << 15) * 32
        bomb = zipped(b"\x80\x02" + one + b"}(" + names + b"u.", compression, [("0", data)])
        yield f"one storage under many names, compression {compression}", bomb
    few = memoised(2, tensor_opcodes(count=1 << 18, shape=(2,), strides=((1 << 18) - 1,)))
    yield (
        "two far elements under many names",
        zipped(b"\x80\x02" + few + b"}(" + names + b"u.", storages=[("0", bytes(1 << 20))]),
    )
    yield "deflated pickle", zipped(b"\x80\x02" + b"]" * (1 << 24) + b".", deflated)
    yield (
        "deflated storage",
        zipped(
            b"\x80\x02}" + text("w") + tensor_opcodes(count=1 << 24, shape=(1 << 24,), strides=(1,)) + b"s.",
            deflated,
            [("0", bytes(1 << 26))],
        ),
    )
    yield "many members", zipped(b"\x80\x02}.", storages=[(str(i), b"") for i in range(50_000)])
    ids = b"".join(b"(" + get(2) + get(3) + text(str(i)) + get(4) + b"K\x00tQ0" for i in range(60_000))
    head = (
        b"\x80\x02" + memoised(2, text("storage")) + memoised(3, b"ctorch\nFloatStorage\n") + memoised(4, text("cpu"))
    )
    keys = b"](" + b"".join(text(str(i)) for i in range(60_000)) + b"e"
    yield "many storages", legacy(head + ids + b"}.", keys, bytes(8 * 60_000))


def safetensors_file(header: bytes, data: bytes = b"") -> Bomb:
    return "safetensors", {"x.safetensors": struct.pack("<Q", len(header)) + header + data}


def safetensors_bombs() -> Iterator[tuple[str, Bomb]]:
    entry = '"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    yield "many tensors", safetensors_file(b"{" + ",".join(entry % i for i in range(90_000)).encode() + b"}")
    for name, item in {"lists": "[]", "objects": "{}", "numbers": "1.5", "keys": '{"a":0}', "null": "null"}.items():
        yield f"header of {name}", safetensors_file(f'{{"a":[{",".join([item] * 1_500_000)}]}}'.encode())
    yield "keys", safetensors_file(b"{" + ",".join(f'"{i:x}":0' for i in range(600_000)).encode() + b"}")
    yield "nesting", safetensors_file(b'{"a":' + b"[" * 900_000)
    yield "digits", safetensors_file(b'{"a":' + b"9" * 4000 + b"}")
    yield "a length of 100 MB", ("safetensors", {"x.safetensors": struct.pack("<Q", 100_000_000) + b"{"})
    weight_map = json.dumps({"weight_map": {f"{i:x}": "a.safetensors" for i in range(100_000)}}).encode()
    shard = safetensors_file(b"{}")[1]["x.safetensors"]
    files = {"model.safetensors.index.json": weight_map, "a.safetensors": shard}
    yield "index", ("safetensors index", files)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return write_varint(number << 3) + write_varint(value)
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value


def tf1_files(entries: list[tuple[bytes, bytes]], data: bytes = b"") -> Bomb:
    header = field(1, 1) + field(3, field(1, 1))
    files = {"x.index": write_table([(b"", header), *entries]), "x.data-00000-of-00001": data}
    return "tf1", files


def block(entries: bytes) -> bytes:
    body = entries + struct.pack("<2I", 0, 1)
    return body + b"\0" + struct.pack("<I", masked_crc32c([body + b"\0"]))


def table(blocks: list[bytes], index_key: bytes = b"") -> bytes:
    """A table whose index block has, for every block, an entry that shares a long key with the one before."""
    out, handles = b"", []
    for data in blocks:
        handles.append(write_varint(len(out)) + write_varint(len(data) - 5))
        out += data
    meta = write_varint(len(out)) + write_varint(8)
    out += block(b"")
    first = write_varint(0) + write_varint(len(index_key)) + write_varint(len(handles[0])) + index_key + handles[0]
    rest = [
        write_varint(len(index_key)) + write_varint(0) + write_varint(len(handle)) + handle for handle in handles[1:]
    ]
    index = block(first + b"".join(rest))
    footer = meta + write_varint(len(out)) + write_varint(len(index) - 5)
    return out + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def tf1_bombs() -> Iterator[tuple[str, Bomb]]:
    size = 1 << 20
    whole = field(1, 1) + field(2, field(2, field(1, size // 4))) + field(4, 0) + field(5, size)
    yield "one value under many names", tf1_files([(b"%06d" % i, whole) for i in range(20_000)], bytes(size))
    empty = field(1, 1) + field(2, field(2, b"")) + field(5, 0)
    yield "many names", tf1_files([(b"%06d" % i, empty) for i in range(100_000)])
    yield "many dimensions", tf1_files([(b"a", field(1, 1) + field(2, field(2, b"") * 200_000))])
    slices = field(1, 1) + field(2, field(2, b"")) + field(7, field(1, b"")) * 200_000
    yield "many slices", tf1_files([(b"a", slices)])
    name = b"n" * 500_000
    entries = b"".join(write_varint(len(name)) + write_varint(3) + b"\0" + b"%03d" % i for i in range(999))
    first = write_varint(0) + write_varint(len(name)) + b"\0" + name
    yield "long names that share a beginning", ("tf1", {"x.index": table([block(first + entries)])})
    name = b"n" * 1000
    entries = b"".join(write_varint(len(name)) + write_varint(6) + b"\0" + b"%06d" % i for i in range(100_000))
    yield (
        "names that share a beginning",
        ("tf1", {"x.index": table([block(write_varint(0) + write_varint(1000) + b"\0" + name + entries)])}),
    )
    yield "keys of the index of blocks", ("tf1", {"x.index": table([block(b"")] * 30_000, b"k" * 500_000)})


def hdf5_bombs() -> Iterator[tuple[str, Bomb]]:
    import h5py

    def file(fill) -> Bomb:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as opened:
            fill(opened)

        return "hdf5", {"x.h5": buffer.getvalue()}

    def links(opened):
        opened["a"] = np.zeros(1 << 18, "f4")
        for i in range(5000):
            opened[f"b{i}"] = opened["a"]

    def cycle(opened):
        group = opened.create_group("a")
        for i in range(100):
            group[f"b{i}"] = opened["/"]

    def long_names(opened):
        opened["a"] = np.zeros(1, "f4")
        for i in range(2000):
            opened["n" * 900 + str(i)] = opened["a"]

    def attributes(opened):
        for i in range(300):
            opened.attrs[f"a{i}"] = np.array([b"x"] * 10_000)

    for fill in (links, cycle, long_names, attributes):
        yield fill.__name__, file(fill)


def fixed_bombs() -> Iterator[tuple[str, Bomb]]:
    """Those that need no choice."""
    for make in (torch_bombs, safetensors_bombs, tf1_bombs, hdf5_bombs, fuzz_bombs_other.all_bombs):
        for name, bomb in make():
            yield f"{bomb[0]}: {name}", bomb


def pickle_bombs(seed: int, count: int | None = None) -> Iterator[tuple[str, Bomb]]:
    """`count` of the programs and as many random ones, or all of the programs; in three forms and sizes."""
    every = list(programs())
    draw = random.Random(seed)
    chosen = every if count is None else draw.sample(every, min(count, len(every)))
    chosen = chosen + [(f"random {seed}-{i}", random_program(seed * 1_000_003 + i)) for i in range(len(chosen))]
    forms = {
        "stored": zipped,
        "deflated": lambda program: zipped(program, zipfile.ZIP_DEFLATED),
        "legacy": legacy,
    }
    for name, body in chosen:
        form, size = draw.choice(list(forms)), draw.choice((600_000, 1_000_000, 3_000_000))
        yield f"pickle: {name}, {form}, {size}", forms[form](pickled(body, size))


def read_all_of_hdf5(path: Path) -> Tensors:
    read_hdf5_attributes(path)
    return read_hdf5(path)


READERS: dict[str, Callable[[Path], Tensors]] = {
    "torch": lambda folder: read_torch(folder / "x.pt"),
    "safetensors": lambda folder: read_safetensors(folder / "x.safetensors"),
    "safetensors index": lambda folder: read_safetensors_sharded(folder / "model.safetensors.index.json"),
    "tf1": lambda folder: read_tf1(folder / "x"),
    "hdf5": lambda folder: read_all_of_hdf5(folder / "x.h5"),
    **fuzz_bombs_other.READERS,
}


def use(reader: str, folder: Path) -> str:
    """What a user of a file does: verifies and reads every tensor, one after the other. Returns the outcome."""
    try:
        for tensor in READERS[reader](folder).values():
            tensor.verify()
            contiguous(tensor.read())
    except Bert4xError as error:
        return type(error).__name__ if len(str(error)) < 5000 else f"a message of {len(str(error))} characters"
    return "read"


def run_bomb(reader: str, folder: Path, sending) -> None:
    """Uses a bomb and sends (outcome, seconds of CPU, bytes of memory)."""
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
    before, start = peak(), time.process_time()
    try:
        outcome = use(reader, folder)
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"[:300]
    sending.send((outcome, time.process_time() - start, max(0, peak() - before)))


def measured(bomb: Bomb, context) -> tuple[str, float, int, int]:
    """(outcome, seconds of CPU, bytes of memory, bytes allowed) of using a bomb in a fresh process."""
    reader, files = bomb
    with tempfile.TemporaryDirectory() as folder:
        for file, data in files.items():
            (Path(folder) / file).write_bytes(data)
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=run_bomb, args=(reader, Path(folder), sending))
        process.start()
        sending.close()
        try:
            outcome, seconds, memory = receiving.recv()
        except EOFError:
            outcome, seconds, memory = "killed", float("inf"), 0
        process.join()
    return outcome, seconds, memory, FACTOR * sum(map(len, files.values())) + FREE


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


OUTCOMES = (
    "read",
    "UnsafeFileError",
    "CorruptFileError",
    "UnknownFormatError",
    "TensorMismatchError",
    "TokenizerError",
)


def explode(seed: int, count: int | None) -> int:
    """Measures all bombs, or every third of the fixed ones and `count` programs of pickle, which by the seed; prints
    those beyond the limits and the worst; returns how many were beyond.
    """
    context = multiprocessing.get_context("forkserver")  # whose processes have none of the memory of this one
    context.set_forkserver_preload(["tests.fuzz_bombs"])
    failures, done, slowest, largest = 0, 0, (0.0, ""), (0.0, "")
    fixed = fixed_bombs() if count is None else itertools.islice(fixed_bombs(), seed % 3, None, 3)
    for name, bomb in itertools.chain(fixed, pickle_bombs(seed, count)):
        outcome, seconds, memory, allowed = measured(bomb, context)
        done += 1
        slowest, largest = max(slowest, (seconds, name)), max(largest, (memory / allowed, name))
        if outcome not in OUTCOMES or seconds > SECONDS or memory > allowed:
            failures += 1
            print(
                f"FAILURE {name}: {outcome}, {seconds:.1f} s, {memory / 1e6:.0f} of {allowed / 1e6:.0f} MB", flush=True
            )
    print(f"slowest: {slowest[0]:.2f} s, {slowest[1]}; largest: {largest[0]:.2f} of what is allowed, {largest[1]}")
    print(f"{done} bombs, {failures} failures")
    return failures
