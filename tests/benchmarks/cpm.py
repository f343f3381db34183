"""CPM-LM's 2.6 billion parameters on one machine: loading from the published layout, and generating.

    python -m tests.benchmarks cpm [--weights int8 bfloat16] [--keep] [options of all cases]

Writes a synthetic checkpoint (two fp16 shards, 5.2 GB; `small`: 0.4 GB) and loads it in a fresh process for each
backend and kind of weights. A prompt of 32 tokens is read and 32 more are written, batch 1, greedy, which compiles;
then again 17 and 32 of them: the difference by 15 is the time of a token. Peak memory is that of the whole process.
The share of the memory bandwidth is the bytes of all weights over the time of a token, divided by the speed at which
NumPy reads memory with a thread for each core, measured between the runs. Processor time, that of all cores, depends
less on what else the machine does.
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tables import variables
from tests.benchmarks import common, report
from tests.benchmarks.conversion import config_of, write_checkpoint

PROMPT, SHORT, LONG = 32, 17, 32  # 17 and 32 new tokens are compiled as one
WEIGHTS = {  # name -> how it is loaded, bytes of a weight
    "int8": ({"dtype": "bfloat16", "quantize": "int8"}, 1),
    "int8, float32": ({"dtype": "float32", "quantize": "int8"}, 1),
    "bfloat16": ({"dtype": "bfloat16"}, 2),
    "float16": ({"dtype": "float16"}, 2),
    "float32": ({"dtype": "float32"}, 4),
}
PROGRAM = "from tests.benchmarks.{0} import {1}; {1}({2!r}, {3!r})"


def generate(folder: str, weights: str) -> None:
    """Loads, generates, prints what it took."""
    import keras

    import bert4x

    begin = time.perf_counter()
    model = bert4x.load(folder, "lm", **WEIGHTS[weights][0])
    keras.ops.convert_to_numpy(keras.ops.max(model.weights[-1].value))
    told, ids = {"load": time.perf_counter() - begin}, np.arange(100, 100 + PROMPT)[None]
    for name, new in (("first", LONG), ("short", SHORT), ("long", LONG)):
        begin, busy = time.perf_counter(), time.process_time()
        found = model.generate_ids(ids, max_new_tokens=new, min_new_tokens=new)
        told |= {name: time.perf_counter() - begin, f"{name} busy": time.process_time() - busy}
        assert found.shape == (1, new)
    print("\n" + json.dumps(told))


def told_by(run: common.Run) -> dict:
    """What a process printed last."""
    return json.loads(run.output.strip().splitlines()[-1])


def arguments():
    parser = common.options(__doc__)
    parser.set_defaults(repeats=1)
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=["int8", "bfloat16"])
    parser.add_argument("--keep", action="store_true", help="do not delete the synthetic checkpoint")
    return parser


def measure(args) -> report.Report:
    source: Path = args.folder / f"cpm-{args.size}"
    if not source.exists():
        write_checkpoint(source, config_of(args.size))
    count = sum(int(np.prod(shape)) for shape, _ in variables(config_of(args.size)).values())
    rows = [("parameters", f"{count / 1e9:.2f} billion", "")]
    for backend in filter(common.installed, args.backend):
        for weights in args.weights:
            runs, reads = [], []
            for _ in range(args.repeats):
                reads += told_by(common.python(PROGRAM.format("generation", "bandwidth", "", 1 << 30)))["times"]
                code = PROGRAM.format("cpm", "generate", str(source), weights)
                runs.append(common.python(code, KERAS_BACKEND=backend))
            told = [told_by(run) for run in runs]
            token, busy = (
                common.median((of[f"long{what}"] - of[f"short{what}"]) / (LONG - SHORT) for of in told)
                for what in ("", " busy")
            )
            read = (1 << 30) / common.median(reads)
            share = count * WEIGHTS[weights][1] / token / read
            what = f"{backend}, {weights}: "
            rows += [
                (what + "load", f"{common.median(of['load'] for of in told):.1f} s", ""),
                (what + "tokens", f"{1 / token:.2f}/s, {busy:.2f} s of processor time each", ""),
                (what + f"prompt and {LONG} tokens", f"{common.median(of['long'] for of in told):.1f} s", ""),
                (what + "share of bandwidth", f"{share:.0%} of {read / 1e9:.0f} GB/s", ""),
                (what + "peak memory", f"{common.peak(runs) / 1e9:.2f} GB", "< 4 GB" if "int8" in weights else ""),
            ]
            print("\n".join("  ".join(row) for row in rows[-5:]), flush=True)
    if not args.keep:
        shutil.rmtree(source)
    title = f"CPM-LM ({args.size}), a prompt of {PROMPT} tokens, batch 1"
    return report.Report("cpm", title, [report.wanted_rows(rows)])


if __name__ == "__main__":
    common.main(arguments(), measure)
