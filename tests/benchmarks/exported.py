"""A trained classifier by Keras, and exported: the first answer of a fresh process, and 8 texts of 128 tokens at once.

    python -m tests.benchmarks exported [options of all cases]

Every run opens the same folder of a task, or an export of it, by `bert4x.pipeline`. Labels are compared, but those of
int8, which rounds.
"""

import importlib.util
import itertools
import shutil
import statistics

from tests.benchmarks import common, report
from tests.benchmarks.checkpoints import bert, prepared

MAKE = """
import numpy as np, bert4x
from bert4x.tasks.text_classification import TextClassification
task = TextClassification(bert4x.load({source!r}), ["negative", "positive"], maxlen={length})
for variable in task.head.values():
    variable.assign(np.random.default_rng(0).normal(0, 1, variable.shape))
task.save({run!r})
for to, quantize, folder in {exports!r}:
    bert4x.export(task, folder, to, quantize=quantize)
"""
FIRST = """
import bert4x
task = bert4x.pipeline("text-classification", {folder!r})
print(task("一丁七万丈三上下不与丐丑").label)
"""
WARM = (
    FIRST
    + """
import time
texts = ["".join(chr(0x4E00 + (31 * i + 7 * n) % 300) for i in range({length} - 2)) for n in range(8)]
print(*(answer.label for answer in task(texts)))
for _ in range({calls}):
    start = time.perf_counter()
    task(texts)
    print(time.perf_counter() - start)
"""
)
EXPORTS = {"ONNX": ("onnx", None), "ONNX, int8": ("onnx", "int8"), "OpenVINO": ("openvino", None)}


def arguments():
    return common.options(__doc__)


def measure(args) -> report.Report:
    source = prepared(args.folder, f"bert-{args.size}", bert(args.size))
    length, home = 16 if args.size == "toy" else 128, args.folder / f"classifier-{args.size}"
    wanted = {name: of for name, of in EXPORTS.items() if all(map(importlib.util.find_spec, needed(of[0])))}
    folders = {"Keras": home / "run"} | {name: home / "-".join(filter(None, of)) for name, of in wanted.items()}
    exports = [(*wanted[name], str(folder)) for name, folder in folders.items() if name in wanted]
    if not all(folder.exists() for folder in folders.values()):
        shutil.rmtree(home, ignore_errors=True)
        made = MAKE.format(source=str(source), run=str(folders["Keras"]), exports=exports, length=length)
        common.python(made, KERAS_BACKEND="tensorflow")
    programs = {}
    for (name, folder), (kind, code) in itertools.product(folders.items(), {"first": FIRST, "warm": WARM}.items()):
        code = code.format(folder=str(folder), length=length, calls=args.calls or 5)
        for backend in filter(common.installed, args.backend if name == "Keras" else ["tensorflow"]):
            of = f"Keras, {backend}" if name == "Keras" else name
            programs[of, kind] = lambda code=code, backend=backend: common.python(code, KERAS_BACKEND=backend)
    runs = common.alternate(programs, args.repeats)
    names = list(dict.fromkeys(name for name, _ in runs))
    fresh = {name: [run.seconds for run in runs[name, "first"]] for name in names}
    printed = {name: [run.output.splitlines() for run in runs[name, "warm"]] for name in names}
    warm = {name: [float(line) for lines in of for line in lines[2:]] for name, of in printed.items()}
    labels = {name: of[0][:2] for name, of in printed.items() if "int8" not in name}
    problems = [f"other labels: {labels}"] if any(of != labels[names[0]] for of in labels.values()) else []
    rows = [
        (name, f"{statistics.median(fresh[name]):.2f} s, {report.spread(warm[name])}, peak {peak / 1e9:.2f} GB", "")
        for name, peak in ((name, common.peak(runs[name, "warm"])) for name in names)
    ]
    found = statistics.median(fresh["ONNX"]) if "ONNX" in fresh else None
    rows.append(("a fresh process's first answer by ONNX, s", *report.verdict(found, most=1.5)))
    title = f"A classifier, BERT-base ({args.size}): a fresh process's first answer, and 8 x {length} warm"
    bars = {"first answer": fresh, f"8 x {length}": warm}
    return report.Report("exported", title, [report.wanted_rows(rows)], bars, problems=problems)


def needed(to: str) -> tuple[str, ...]:
    """The packages that write a format, and run it."""
    from bert4x.exporting.targets import PACKAGES

    return PACKAGES[to]


if __name__ == "__main__":
    common.main(arguments(), measure)
