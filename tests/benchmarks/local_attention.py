"""How one layer's time and memory grow with the length: attention to all, and in blocks to what is near.

    python -m tests.benchmarks local-attention [--backend torch] [--window 64] [--lengths 1024 ...] [--dense-most 8192]

A fresh process for every point, inference of one BERT layer of 128 (two heads), float32. Time is of the processor, the
least of the calls; memory is the peak of the process less that of the shortest text. The slope is the exponent
between the last two points. Attention to all keeps its scores, as in training; there is none beyond --dense-most.
"""

import json

from tests.benchmarks import common, report
from tests.benchmarks.growth import table_of

PROGRAM = """
import json, resource, time
import numpy as np
import bert4x
from keras import ops
model = bert4x.build_transformer_model(
    model="bert", vocab_size=1000, hidden_size=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256,
    max_position={length}, attention_window={window}, flash_attention=False)
ids = np.ones((1, {length}), "int32") * 5
times = []
for _ in range({calls} + 1):
    began = time.process_time()
    ops.convert_to_numpy(model({{"token_ids": ids, "segment_ids": 0 * ids}}))
    times.append(time.process_time() - began)
print(json.dumps([min(times[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def arguments():
    parser = common.options(__doc__)
    parser.set_defaults(against=[], backend=["torch"])
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--dense-most", type=int, default=8192, help="length of attention to all (scores: 8 T^2 bytes)")
    return parser


def measure(args) -> report.Report:
    lengths = (64, 128, 256) if args.size == "toy" else args.lengths
    times, peaks = {}, {}
    for backend in args.backend:
        for name, window in ((f"to all, {backend}", None), (f"in blocks of {args.window}, {backend}", args.window)):
            for length in lengths:
                if window is None and length > args.dense_most:
                    continue
                code = PROGRAM.format(length=length, window=window, calls=args.calls or 3)
                seconds, peak = json.loads(common.python(code, KERAS_BACKEND=backend).output.splitlines()[-1])
                times.setdefault(name, []).append((length, seconds))
                peaks.setdefault(name, []).append((length, peak / 1e9))
    curves = [report.Curves("length", "seconds", times), report.Curves("length", "peak memory, GB", peaks)]
    table = table_of("length", times, peaks)
    return report.Report("local-attention", "Attention in blocks, by length", [table], curves=curves)


if __name__ == "__main__":
    common.main(arguments(), measure)
