"""Our readers of HDF5 and safetensors beside h5py's and safetensors' own: `python -m tests.benchmarks.readers`.

Of a file of 24 layers (`--megabytes` in all): the time to the names, shapes and dtypes of all tensors, the time to read
one of 24, and the resident memory that each adds. And what each does with damaged and hostile files: 500 copies of a
small file, each with one to five damaged bytes (of the header), and files that name other files.
"""

import argparse
import collections
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LAYERS = 24
DAMAGED = 500
MEMORY = 2 << 30  # bytes that a process may take
READERS = {"h5": ("bert4x", "h5py"), "safetensors": ("bert4x", "safetensors")}


def read(reader: str, path: str) -> dict:
    """Name -> function that gives the array, opened lazily by one of the readers."""
    if reader == "h5py":
        import h5py

        found, file = {}, h5py.File(path)
        file.visititems(lambda name, held: found.update({name: held}) if isinstance(held, h5py.Dataset) else None)
        return {name: (lambda held=held: held[()]) for name, held in found.items() if held.shape is not None}
    if reader == "safetensors":
        from safetensors import safe_open

        file = safe_open(path, framework="numpy")
        names = [name for name in file.offset_keys() if file.get_slice(name).get_shape() is not None]
        return {name: (lambda name=name: file.get_tensor(name)) for name in names}
    from bert4x.checkpoints.formats.hdf5 import read_hdf5
    from bert4x.checkpoints.formats.safetensors_file import read_safetensors

    opened = (read_hdf5 if path.endswith(".h5") else read_safetensors)(path)
    return {name: tensor.read for name, tensor in opened.items()}


def resident() -> int:
    """Bytes of this process in memory, without pages of files that are mapped."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["RssAnon"].split()[0])


def measure(reader: str, path: str) -> dict[str, float]:
    """Seconds and bytes of opening a file, and of reading one of its tensors, in this process."""
    read(reader, path)  # imports
    before, start = resident(), time.perf_counter()
    tensors = read(reader, path)
    opened, held = time.perf_counter() - start, resident() - before
    start = time.perf_counter()
    value = next(iter(tensors.values()))()
    total = float(value.sum())
    return {"open": opened, "held": held, "one": time.perf_counter() - start, "read": resident() - before, "sum": total}


def outcome(reader: str, path: str) -> str:
    """What happens when all of a file is read, in this process."""
    from bert4x.errors import Bert4xError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        arrays = [get() for get in read(reader, path).values()]
    except Bert4xError as error:
        return f"refused: {type(error).__name__}"
    except MemoryError:
        return "no memory left"
    except Exception as error:
        return f"raised: {type(error).__name__}"
    return f"read {sum(array.nbytes for array in arrays) / 1e6:.0f} MB" if arrays else "read, without tensors"


def in_a_process(what: str, reader: str, path: Path):
    """The result of `measure` or `outcome`; that a process died or hung is an outcome."""
    command = [sys.executable, "-m", "tests.benchmarks.readers", "--worker", what, reader, str(path)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "hung for a minute"
    return json.loads(run.stdout) if run.returncode == 0 else f"died: signal {-run.returncode}"


def many(reader: str, paths: list[Path]) -> collections.Counter:
    """The outcomes of many files; a process goes on behind a file at which the one before died."""
    found = collections.Counter()
    while paths:
        command = [sys.executable, "-m", "tests.benchmarks.readers", "--worker", "outcomes", reader, *map(str, paths)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        told = run.stdout.splitlines()
        found.update("read" if line.startswith("read") else line for line in told)
        paths = paths[len(told) :]
        if paths:
            found[f"died: signal {-run.returncode}"] += 1
            paths = paths[1:]
    return found


def write_large(folder: Path, megabytes: int) -> list[Path]:
    """The same tensors in both formats."""
    from bert4x.checkpoints.formats.hdf5 import write_hdf5
    from bert4x.checkpoints.formats.safetensors_file import write_safetensors
    from bert4x.checkpoints.tensors import LazyTensor

    values = np.random.default_rng(0).standard_normal((megabytes * 250_000 // LAYERS // 1000, 1000), dtype="float32")
    tensors = [
        LazyTensor(f"layers/dense_{i}/vars/0", values.shape, values.dtype, lambda: values) for i in range(LAYERS)
    ]
    write_hdf5(folder / "large.h5", tensors)
    write_safetensors(folder / "large.safetensors", tensors)
    return [folder / "large.h5", folder / "large.safetensors"]


def write_hostile(folder: Path) -> dict[str, Path]:
    """Files that read another file, or grow when they are read."""
    import h5py

    (folder / "secret").write_bytes(b"a file of the reader, which belongs to nobody else.. " * 20)
    kinds = {
        "names another file": "external",
        "is a link to another file": "link",
        "is 1 GB of zeros, deflated to 1 MB": "bomb",
    }
    paths = {kind: folder / f"{name}.h5" for kind, name in kinds.items()}
    external, link, bomb = paths.values()
    with h5py.File(external, "w") as file:
        file.create_dataset("w", (256,), "f4", external=[(str(folder / "secret"), 0, 1024)])
    with h5py.File(folder / "other.h5", "w") as file:
        file["w"] = np.ones(256, "f4")
    with h5py.File(link, "w") as file:
        file["w"] = h5py.ExternalLink(str(folder / "other.h5"), "/w")
    with h5py.File(bomb, "w") as file:
        file.create_dataset("w", (1 << 28,), "f4", chunks=(1 << 22,), compression="gzip", fillvalue=0)[...] = 0
    return paths


def write_damaged(folder: Path) -> dict[str, list[Path]]:
    """Small files with damaged bytes, where the structure lies."""
    from bert4x.checkpoints.formats.hdf5 import write_hdf5
    from bert4x.checkpoints.formats.safetensors_file import write_safetensors
    from bert4x.checkpoints.tensors import from_array

    tensors = [from_array(f"layers/dense_{i}/vars/0", np.zeros((4, 4), "f4")) for i in range(6)]
    write_hdf5(folder / "small.h5", tensors)
    write_safetensors(folder / "small.safetensors", tensors)
    found, generator = {}, random.Random(0)
    for kind in READERS:
        whole = (folder / f"small.{kind}").read_bytes()
        used = [at for at in range(len(whole)) if any(whole[max(0, at - 8) : at + 8])]
        found[kind] = [folder / f"damaged-{i}.{kind}" for i in range(DAMAGED)]
        for path in found[kind]:
            data = bytearray(whole)
            for _ in range(generator.choice((1, 1, 2, 5))):
                data[generator.choice(used)] = generator.choice((0, 1, 127, 255, generator.randrange(256)))
            path.write_bytes(data)
    return found


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        what, reader, *paths = options.worker
        for path in paths:
            found = measure(reader, path) if what == "measure" else outcome(reader, path)
            print(found if what == "outcomes" else json.dumps(found), flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| file | reader | open | one tensor | memory: open | memory: one read |\n|---|---|---|---|---|---|")
        for path in write_large(folder, options.megabytes):
            for reader in READERS[path.suffix[1:]]:
                found = in_a_process("measure", reader, path)
                times, sizes = ([found[key] for key in keys] for keys in (("open", "one"), ("held", "read")))
                cells = [f"{1e3 * t:.1f} ms" for t in times] + [f"{size / 1e6:.1f} MB" for size in sizes]
                print(f"| {path.suffix} | {reader} | {' | '.join(cells)} |")
        for kind, path in write_hostile(folder).items():
            print(
                f"- an .h5 that {kind}:", ", ".join(f"{r}: {in_a_process('outcome', r, path)}" for r in READERS["h5"])
            )
        for kind, paths in write_damaged(folder).items():
            for reader in READERS[kind]:
                print(f"- {DAMAGED} damaged .{kind}, {reader}: {dict(many(reader, paths).most_common())}")


if __name__ == "__main__":
    main()
