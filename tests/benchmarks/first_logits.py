"""From a fresh process to BERT-base's first logits, imports included, against transformers on PyTorch.

    python -m tests.benchmarks.first_logits [--folder SCRATCH] [--repeats 5] [--out JSON]

Every run starts Python, imports, loads the same folder (float32 safetensors) with the masked-language-model head, and
computes the logits of one sequence of 128 tokens. Runs alternate. Ours calls the model both ways Keras has: `model(x)`
runs it operation by operation, `model.predict_on_batch(x)` compiles it whole.
"""

import shutil

from tests.benchmarks import common
from tests.benchmarks.loading import write_bert_base

OURS = """
import numpy as np
import bert4x
model = bert4x.load({folder!r}, with_mlm=True)
ids = np.arange(200, 328)[None]
logits = np.asarray({call}({{"token_ids": ids, "segment_ids": np.zeros_like(ids)}}))
print(logits.shape, float(np.abs(logits).sum()))
"""
THEIRS = """
import torch
from transformers import BertForMaskedLM
model = BertForMaskedLM.from_pretrained({folder!r}).eval()
with torch.inference_mode():
    logits = model(torch.arange(200, 328)[None]).logits.numpy()
import numpy as np
print(logits.shape, float(np.abs(logits).sum()))
"""
WANTED = {"jax": 1.0, "tensorflow": 1.3}
CALLS = ("model", "model.predict_on_batch")


def main() -> None:
    args = common.arguments(__doc__, "build/benchmarks").parse_args()
    folder = args.folder / "bert-base"
    if not folder.exists():
        write_bert_base(folder)

    def fresh(program: str, call: str = "", **environment: str):
        return lambda: common.python(program.format(folder=str(folder), call=call), **environment)

    programs = {
        f"{call}(x) on {name}": fresh(OURS, call, KERAS_BACKEND=name)
        for name in WANTED
        if common.installed(name)
        for call in CALLS
    }
    if common.installed("transformers") and common.installed("torch"):
        programs["transformers on torch"] = fresh(THEIRS)
    runs = common.alternate(programs, args.repeats)
    sums = {name: float(of[0].output.split()[-1]) for name, of in runs.items()}
    assert max(sums.values()) - min(sums.values()) < 1e-3 * max(sums.values()), f"different logits: {sums}"

    rows = [(name, f"{common.seconds(of):.2f} s, {common.peak(of) / 1e9:.2f} GB", "") for name, of in runs.items()]
    theirs = runs.get("transformers on torch")
    for name in programs if theirs else ():
        if name.endswith(tuple(WANTED)):
            ratio = common.seconds(runs[name]) / common.seconds(theirs)
            rows.append((f"time against transformers: {name}", f"{ratio:.2f}", f"<= {WANTED[name.split()[-1]]}"))
    common.report("BERT-base, fresh process to first logits (1 x 128)", rows, args.out)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
