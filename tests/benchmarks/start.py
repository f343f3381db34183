"""From a fresh process to BERT-base's first logits, imports included.

    python -m tests.benchmarks start [options of all cases]

Every run starts Python, imports, loads the same folder (float32; bert4keras: Google's layout of it) with the
masked-language-model head, and computes the logits of one sequence of 128 tokens. Ours calls the model both ways Keras
has: `model(x)` runs it operation by operation, `model.predict_on_batch(x)` compiles it whole. keras-hub reads no such
head from this folder: its own is random, and its logits are not compared.
"""

import sys

from tests.benchmarks import common, report
from tests.benchmarks.checkpoints import bert, prepared
from tests.benchmarks.peers import python_of

SHOW = "\nprint(logits.shape, float(np.abs(logits).sum()))\n"
OURS = """
import numpy as np
import bert4x
model = bert4x.load({folder!r}, with_mlm=True)
ids = np.arange(200, 200 + {length})[None]
logits = np.asarray({call}({{"token_ids": ids, "segment_ids": np.zeros_like(ids)}}))
"""
TRANSFORMERS = """
import numpy as np, torch
from transformers import BertForMaskedLM
model = BertForMaskedLM.from_pretrained({folder!r}).eval()
with torch.inference_mode():
    logits = model(torch.arange(200, 200 + {length})[None]).logits.numpy()
"""
KERAS_HUB = """
import numpy as np
from keras_hub.models import BertMaskedLM
model = BertMaskedLM.from_preset({folder!r}, preprocessor=None)
ids, ones = np.arange(200, 200 + {length})[None], np.ones((1, {length}), "int32")
inputs = {{"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ones, "mask_positions": ids - 200}}
logits = model.predict_on_batch(inputs)
"""
BERT4KERAS = """
import numpy as np
from tests.benchmarks.libraries import Setup
from tests.benchmarks.libraries.bert4keras import load
model = load(Setup({folder!r}), with_mlm="linear")
ids = np.arange(200, 200 + {length})[None]
logits = model.predict_on_batch([ids, np.zeros_like(ids)])
"""
CALLS = ("model", "model.predict_on_batch")
RANDOM = "keras-hub"


def arguments():
    parser = common.options(__doc__)
    parser.set_defaults(repeats=5)
    return parser


def measure(args) -> report.Report:
    folder = prepared(args.folder, f"bert-{args.size}", bert(args.size), tf1="bert4keras" in args.against)
    length = 16 if args.size == "toy" else 128

    def fresh(program: str, python: str = sys.executable, call: str = "", **environment: str):
        code = program.format(folder=str(folder), length=length, call=call) + SHOW
        return lambda: common.run(python, "-c", code, **environment)

    programs = {}
    for backend in filter(common.installed, args.backend):
        environment = {"KERAS_BACKEND": backend}
        for call in CALLS:
            programs[f"bert4x, {call}(x) on {backend}"] = fresh(OURS, call=call, **environment)
        if "keras-hub" in args.against and (python := python_of("keras-hub")):
            programs[f"keras-hub, {backend}"] = fresh(KERAS_HUB, python, **environment)
    for name, program in {"transformers": TRANSFORMERS, "bert4keras": BERT4KERAS}.items():
        if name in args.against and (python := python_of(name)):
            programs[name] = fresh(program, python)
    runs = common.alternate(programs, args.repeats)
    sums = {name: float(of[0].output.split()[-1]) for name, of in runs.items() if not name.startswith(RANDOM)}
    problems = [] if max(sums.values()) - min(sums.values()) < 1e-3 * max(sums.values()) else [f"other logits: {sums}"]
    rows = [(name, f"{common.seconds(of):.2f} s, {common.peak(of) / 1e9:.2f} GB", "") for name, of in runs.items()]
    bars = {"first logits": {name: [run.seconds for run in of] for name, of in runs.items()}}
    title = f"Fresh process to first logits, BERT-base 1 x {length} ({args.size})"
    tables = [report.wanted_rows(rows + targets(runs))]
    return report.Report("start", title, tables, bars, problems=problems)


def targets(runs: dict[str, list[common.Run]]) -> list[tuple[str, str, str]]:
    """Rows of what is wanted."""

    def best(*names: str) -> float | None:
        return min((common.seconds(of) for name, of in runs.items() if name.startswith(names)), default=None)

    def on(backend: str) -> float | None:
        found = [
            common.seconds(of) for name, of in runs.items() if name in [f"bert4x, {c}(x) on {backend}" for c in CALLS]
        ]
        return min(found, default=None)

    ratios = [
        ("times as fast as the best of keras-hub, bert4keras", best("keras-hub", "bert4keras"), best("bert4x"), 1.3),
        ("times as fast as transformers: JAX", best("transformers"), on("jax"), 1.0),
        ("times as fast as transformers: TensorFlow", best("transformers"), on("tensorflow"), 0.75),
    ]
    return [
        (what, *report.verdict(theirs / ours if theirs and ours else None, least=least))
        for what, theirs, ours, least in ratios
    ]


if __name__ == "__main__":
    common.main(arguments(), measure)
