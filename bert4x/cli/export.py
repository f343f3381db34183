"""The command export: a model for another runtime."""

import json
import os
import sys
from pathlib import Path

APPLICATIONS = ("encoder", "mlm", "nsp", "pooled", "lm", "unilm", "seq2seq")


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("export", run_export, "write a model for ONNX Runtime, OpenVINO or TensorFlow, and compare outputs")
    sub.add_argument("model", metavar="MODEL", help="a checkpoint, its name, or the folder of a trained task")
    sub.add_argument("folder", metavar="DST", nargs="?", help="the folder to write (default: MODEL-FORMAT, here)")
    sub.add_argument("--to", required=True, choices=["onnx", "openvino", "savedmodel"], help="the format")
    sub.add_argument("--application", choices=APPLICATIONS, help="what it computes (default: that of the family)")
    sub.add_argument(
        "--quantize", choices=["int8", "float16"], help="int8 computation (onnx), or weights as float16 (openvino)"
    )
    sub.add_argument(
        "--padding-mask", action="store_true", default=None, help="take the mask as an input, not only the padding id"
    )
    sub.add_argument(
        "--tolerance", type=float, metavar="X", help="the largest difference allowed, as a share of the largest output"
    )
    sub.add_argument(
        "--no-cache", action="store_false", dest="cache", help="of a language model, no second graph that generates"
    )
    sub.add_argument("--json", action="store_true", help="for machines")


def run_export(options) -> int:
    """Exports, and prints how far the outputs are from Keras'."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one that can export
    from bert4x.exporting.export import export

    folder = options.folder or f"{Path(options.model).resolve().name}-{options.to}"
    done = export(
        options.model, folder, options.to, options.application,
        quantize=options.quantize, padding_mask=options.padding_mask, tolerance=options.tolerance,
        cache=options.cache,
    )  # fmt: skip
    if options.json:
        found = {"folder": str(done.folder), "differences": done.differences, "scales": done.scales}
        print(json.dumps(found | {"inputs": done.inputs, "outputs": done.outputs}))
        return 0
    for name, difference in done.differences.items():
        print(f"{name:20} largest difference {difference:.3e}, of values up to {done.scales[name]:.4g}")
    print(f"wrote {done.folder} ({done.to}); its README.md says how to run it")
    return 0
