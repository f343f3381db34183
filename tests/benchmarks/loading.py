"""Loading BERT-base (102 million parameters, 409 MB of float32 in safetensors): time and memory.

    python -m tests.benchmarks loading [options of all cases]

Each run is a fresh process that imports Keras, its backend and bert4x, runs a first operation, and then times one
call: `load`, or building the same model with zeros for weights. Memory is what the peak rises by in that call. `load`
checks every weight for NaN and reads a file that is in the page cache.
"""

import json
from pathlib import Path
from unittest.mock import patch

from tests.benchmarks import common, report
from tests.benchmarks.checkpoints import bert, prepared

PROGRAM = """
import json, sys, time
import keras, bert4x
import bert4x.models.build
from tests.benchmarks.loading import {call}, high_water
keras.ops.convert_to_numpy(keras.ops.ones((8, 8)) @ keras.ops.ones((8, 8)))
before, begin = high_water(), time.perf_counter()
model = {call}({folder!r})
keras.ops.convert_to_numpy(model.weights[-1].value)
print(json.dumps({{"seconds": time.perf_counter() - begin, "memory": high_water() - before}}))
"""


def high_water() -> int:
    """Peak memory of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def load(folder: str):
    """What is measured."""
    import bert4x

    return bert4x.load(folder, with_mlm=True)


def build(folder: str):
    """What it is compared with: the same model, its weights zeros."""
    import keras

    from bert4x.checkpoints.opening import open_checkpoint
    from bert4x.families.bert import Bert

    def zeros(initializer, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)

    with patch.object(keras.initializers.TruncatedNormal, "__call__", zeros):  # for this model alone
        return Bert(open_checkpoint(folder).config, with_mlm="linear").build().model


def arguments():
    return common.options(__doc__)


def measure(args) -> report.Report:
    folder = prepared(args.folder, f"bert-{args.size}", bert(args.size))
    size = (folder / "model.safetensors").stat().st_size
    rows, bars = [("checkpoint", f"{size / 1e6:.0f} MB", "")], {}
    for backend in args.backend:
        if not common.installed(backend):
            continue

        def fresh(call: str, backend=backend):
            return lambda: common.python(PROGRAM.format(call=call, folder=str(folder)), KERAS_BACKEND=backend)

        runs = common.alternate({"load": fresh("load"), "build": fresh("build")}, args.repeats)
        found = {name: [json.loads(run.output.splitlines()[-1]) for run in of] for name, of in runs.items()}
        took = {name: common.median(run["seconds"] for run in of) for name, of in found.items()}
        bars[backend] = {name: [run["seconds"] for run in of] for name, of in found.items()}
        memory = common.median(run["memory"] for run in found["load"])
        rows += [
            (f"{backend}: build with zeros", f"{took['build']:.2f} s", ""),
            (f"{backend}: load", f"{took['load']:.2f} s, {took['load'] / took['build']:.2f} times", "< 1.3 times"),
            (f"{backend}: memory added by load", f"{memory / 1e6:.0f} MB, {memory / size:.2f} of its size", "< 1.10"),
        ]
    return report.Report("loading", f"Loading BERT-base ({args.size})", [report.wanted_rows(rows)], bars)


if __name__ == "__main__":
    common.main(arguments(), measure)
