"""Loading BERT-base (102 million parameters, 409 MB of float32 in safetensors): time and memory.

    python -m tests.benchmarks.loading [--folder SCRATCH] [--repeats 5] [--out JSON]

Each run is a fresh process that imports Keras, its backend and bert4x, runs a first operation, and then times one
call: `load`, or building the same model with zeros for weights. Memory is what the peak rises by in that call. `load`
checks every weight for NaN and reads a file that is in the page cache.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import LazyTensor
from bert4x.checkpoints.write import write, write_config
from bert4x.config import TransformerConfig
from tests.benchmarks import common

CONFIG = TransformerConfig(
    model="bert", vocab_size=21128, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
    intermediate_size=3072, max_position=512, pad_token_id=0,
)  # fmt: skip

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


def write_bert_base(folder: Path) -> None:
    """BERT-base with random weights and a vocabulary, as published on Hugging Face, pooler and MLM head included."""
    random = np.random.default_rng(0)

    def tensor(path: str, shape: tuple[int, ...]) -> LazyTensor:
        base = 1.0 if path.endswith("gamma") else 0.0
        return LazyTensor(
            path, shape, np.dtype("f4"), lambda: base + 0.02 * random.standard_normal(shape, dtype="float32")
        )

    folder.mkdir(parents=True, exist_ok=True)
    ours = {path: tensor(path, shape) for path, (shape, head) in variables(CONFIG).items()}
    write(folder, "hf", CONFIG, ours)
    write_config(folder, "hf", CONFIG, ours)
    words = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [chr(0x4E00 + i) for i in range(CONFIG.vocab_size - len(words))]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")


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

    from bert4x.config import read_config_file
    from bert4x.models.bert import Bert

    keras.initializers.TruncatedNormal.__call__ = lambda self, shape, dtype=None: keras.ops.zeros(shape, dtype)
    assert read_config_file(Path(folder) / "config.json")["hidden_size"] == CONFIG.hidden_size
    return Bert(CONFIG, with_mlm="linear").build().model


def main() -> None:
    args = common.arguments(__doc__, "build/benchmarks").parse_args()
    folder = args.folder / "bert-base"
    if not folder.exists():
        write_bert_base(folder)
    size = (folder / "model.safetensors").stat().st_size
    rows = [("checkpoint", f"{size / 1e6:.0f} MB", "")]
    for backend in ("tensorflow", "jax", "torch"):
        if not common.installed(backend):
            continue

        def fresh(call: str, backend=backend):
            return lambda: common.python(PROGRAM.format(call=call, folder=str(folder)), KERAS_BACKEND=backend)

        runs = common.alternate({"load": fresh("load"), "build": fresh("build")}, args.repeats)
        found = {name: [json.loads(run.output.splitlines()[-1]) for run in of] for name, of in runs.items()}
        took = {name: common.median(run["seconds"] for run in of) for name, of in found.items()}
        memory = common.median(run["memory"] for run in found["load"])
        rows += [
            (f"{backend}: build with zeros", f"{took['build']:.2f} s", ""),
            (f"{backend}: load", f"{took['load']:.2f} s, {took['load'] / took['build']:.2f} times", "< 1.3 times"),
            (f"{backend}: memory added by load", f"{memory / 1e6:.0f} MB, {memory / size:.2f} of its size", "< 1.10"),
        ]
    common.report("BERT-base, float32", rows, args.out)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
