"""Mutates small valid files of every format and opens them: `python -m tests.fuzz --count 100000 --seed 0`.

Each mutation is opened by the right reader, then every tensor is read and verified. It may succeed or raise a
`Bert4xError`; recorded as failures are any other exception, more than `SECONDS` of CPU time, more than `MEMORY` bytes,
any event that means code of the file ran (an audit hook watches), and, where the format has checksums, tensors that
differ from the original without an error. A failure prints the arguments that reproduce it.
"""

import argparse
import collections
import faulthandler
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from bert4x.errors import Bert4xError
from tests.fuzz_bombs import explode
from tests.fuzz_targets import Target, all_targets

SECONDS = 5
MEMORY = 1 << 30
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename", "os.mkdir",
             "subprocess.Popen", "exec", "compile", "import", "pickle.find_class", "socket.", "ctypes.", "shutil.",
             "marshal.", "code.__new__", "urllib.Request")  # fmt: skip
NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
)


def mutate(data: bytes, rng: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    """`data` with one to four random damages."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 16, 64)))
        kind = rng.randrange(9 if tokens else 7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[at : at + 1 if rng.random() < 0.5 else len(data)]
        elif kind == 3:
            del data[at:end]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 100))) if rng.random() < 0.5 else data[at:end] * 2
        elif kind == 5:
            width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "little", "big"))
            value = int.from_bytes(data[at : at + width], order) + rng.choice((-16, -8, -2, -1, 1, 2, 8, 16))
            value = value if rng.random() < 0.4 else rng.choice((*NUMBERS, len(data), len(data) - at))
            data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, order)
        elif kind == 6:
            other = rng.randrange(len(data) + 1)
            first, second = sorted((at, other))
            size = min(end - at, len(data) - second, second - first)
            block = data[first : first + size]
            data[first : first + size] = data[second : second + size]
            data[second : second + size] = block
        elif kind == 7:
            data[at:at] = rng.choice(tokens)
        elif kind == 8:
            token = rng.choice(tokens)
            data[at : at + len(token)] = token
    return bytes(data)


class Hang(BaseException):
    """Raised by the CPU timer; not an `Exception`, so that no reader can take it for bad input."""


class Guard:
    """Limits on time and memory, and an audit hook that notes what must not happen while a file is read."""

    def __init__(self):
        self.events, self.watching = [], False
        sys.addaudithook(self.audit)
        signal.signal(signal.SIGPROF, self.expired)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def audit(self, event: str, args: tuple) -> None:
        if self.watching:
            writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
            if writes or event.startswith(FORBIDDEN):
                self.events.append(f"{event} {args!r:.200}")

    def expired(self, *_) -> None:
        raise Hang

    def __enter__(self):
        self.events.clear()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        self.watching = True

    def __exit__(self, *_):
        self.watching = False
        signal.setitimer(signal.ITIMER_PROF, 0)


def contents(target: Target, folder: Path) -> tuple[dict, bool]:
    """Every tensor of the files, read and verified, and whether all have checksums."""
    tensors = target.open(folder)
    verified = [tensor.verify() for tensor in tensors.values()]
    values = {name: (t.shape, t.dtype, np.ascontiguousarray(t.read()).tobytes()) for name, t in tensors.items()}
    for name, (shape, dtype, data) in values.items():
        if len(data) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise AssertionError(f"{name!r} was declared {dtype} {shape} but has {len(data)} bytes")
    return values, all(verified)


def attempt(target: Target, folder: Path, mutated: bytes, expected: dict, guard: Guard) -> tuple[str, str]:
    """(outcome, what went wrong or "") of opening one mutation."""
    (folder / target.damage).write_bytes(target.sealed(mutated))
    problem = ""
    try:
        with guard:
            values, verified = contents(target, folder)
        outcome = "read"
        if target.checked and verified and values != expected:
            problem = f"tensors changed without an error: {sorted(expected)} became {sorted(values)}"
    except Bert4xError as error:
        outcome = type(error).__name__
    except (Exception, Hang) as error:
        outcome, problem = type(error).__name__, "".join(traceback.format_exception(error)[-6:])
    if guard.events:
        problem += f"\nforbidden events: {guard.events}"
    return outcome, problem


def fuzz(name: str, target: Target, indices: range, seed: int, guard: Guard) -> int:
    """Tries the mutations of one format; prints a line of outcomes and every failure; returns their number."""
    outcomes, failures, start = collections.Counter(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file, data in target.files.items():
            (folder / file).write_bytes(data)
        (folder / target.damage).write_bytes(target.sealed(target.seed))
        expected, _ = contents(target, folder)
        for index in indices:
            if index % 500 == 0:
                faulthandler.dump_traceback_later(600, exit=True)  # for hangs the timer cannot interrupt
            mutated = mutate(target.seed, random.Random(f"{seed}-{name}-{index}"), target.tokens)
            outcome, problem = attempt(target, folder, mutated, expected, guard)
            outcomes[outcome] += 1
            if problem:
                failures += 1
                print(f"FAILURE --format {name} --seed {seed} --index {index}\n{problem}\n", flush=True)
    faulthandler.cancel_dump_traceback_later()
    counts = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
    print(f"{name}: {len(indices)} in {time.monotonic() - start:.1f} s, {failures} failures; {counts}", flush=True)
    return failures


def main() -> int:
    targets = all_targets()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="mutations of all formats together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", choices=list(targets), help="only this one; may be repeated")
    parser.add_argument(
        "--bombs",
        type=int,
        nargs="?",
        const=-1,
        help="measure files that ask for much instead: all, or a third and N pickles",
    )
    parser.add_argument("--index", type=int, help="only this mutation of each format, to reproduce a failure")
    args = parser.parse_args()
    faulthandler.enable()
    if args.bombs is not None:
        return 1 if explode(args.seed, None if args.bombs < 0 else args.bombs) else 0
    names = args.format or list(targets)
    per_format = -(-args.count // len(names))
    indices = range(per_format) if args.index is None else range(args.index, args.index + 1)
    guard = Guard()
    failures = sum(fuzz(name, targets[name], indices, args.seed, guard) for name in names)
    print(f"{len(indices) * len(names)} mutations, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
