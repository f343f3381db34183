"""Converting, inspecting and loading CPM-LM (2.6 billion parameters) from the layout of its original download.

    python -m tests.benchmarks conversion [--keep] [--skip-load] [options of all cases]

Writes a synthetic checkpoint (two fp16 shards, 5.2 GB; `small`: 0.4 GB), then alternates `cp`, `cp` followed by
`sync`, and `bert4x convert` of the same files, which are all in the page cache. bert4x flushes what it writes to the
disk before it renames it into place; `cp` alone does not. Outputs are deleted. `--keep` keeps the synthetic
checkpoint for the next time.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.spec import Entry
from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import LazyTensor
from bert4x.config import TransformerConfig
from bert4x.families.gpt2 import MEGATRON
from tests.benchmarks import common, report

SIZES = {"full": (2560, 32, 32), "small": (1024, 12, 16), "toy": (64, 2, 4)}  # hidden size, layers, heads
RANKS = 2
OURS = {"convert": "bert4x convert --to hf"}


def config_of(size: str) -> TransformerConfig:
    hidden, layers, heads = SIZES[size]
    return TransformerConfig(
        model="gpt2", vocab_size=30000, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, max_position=1024, segment_vocab_size=0,
    )  # fmt: skip


def write_checkpoint(folder: Path, config: TransformerConfig) -> None:
    """Two shards in Megatron's layout, one tensor in memory at a time."""
    block = (np.random.default_rng(0).standard_normal(1 << 22, dtype="float32") * 0.02).astype("float16")
    shapes = {path: shape for path, (shape, _) in variables(config).items()}

    def tensor(entry: Entry, seed: int) -> LazyTensor:
        shape = entry.layout.shape([shapes[path] for path in entry.ours], RANKS)
        return LazyTensor(entry.theirs, shape, block.dtype, lambda: np.resize(block[seed:], shape))

    for rank in range(RANKS):
        entries = MEGATRON.entries(config.num_hidden_layers)
        path = folder / "80000" / f"mp_rank_{rank:02d}_model_states.pt"
        write_torch(path, [tensor(entry, 1000 * rank + i) for i, entry in enumerate(entries)], root="module")
    (folder / "latest_checkpointed_iteration.txt").write_text("80000")
    if config.hidden_size != SIZES["full"][0]:  # the original has no config; bert4x knows its sizes
        sizes = {
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "max_position_embeddings": config.max_position,
        }
        (folder / "config.json").write_text(json.dumps(sizes))


def measure_conversion(source: Path, target: Path, repeats: int) -> dict[str, list[common.Run]]:
    """Runs of cp, cp + sync and convert, each into an empty folder that is deleted afterwards."""

    def fresh(*command: str):
        def start():
            shutil.rmtree(target, ignore_errors=True)
            result = common.run(*command)
            shutil.rmtree(target)
            common.run("sync", "-f", str(target.parent))  # nobody else's writes are left for the next
            return result

        return start

    src, dst = str(source), str(target)
    return common.alternate(
        {
            "cp": fresh("cp", "-r", src, dst),
            "cp + sync": fresh("sh", "-c", f'cp -r "{src}" "{dst}" && find "{dst}" -type f -exec sync {{}} +'),
            "convert": fresh(sys.executable, "-m", "bert4x", "convert", src, dst, "--to", "hf"),
        },
        repeats,
    )


LOAD = """
import bert4x
model = bert4x.load({source!r}, dtype="bfloat16")
assert model.count_params() > 0
"""


def arguments():
    parser = common.options(__doc__)
    parser.add_argument("--keep", action="store_true", help="do not delete the synthetic checkpoint")
    parser.add_argument("--skip-load", action="store_true", help="leave out loading")
    return parser


def measure(args) -> report.Report:
    source, target = args.folder / f"cpm-{args.size}", args.folder / "converted"
    if not source.exists():
        write_checkpoint(source, config_of(args.size))
    size = sum(path.stat().st_size for path in source.rglob("*.pt"))

    runs = measure_conversion(source, target, args.repeats)
    cp, synced, ours = (common.seconds(runs[name]) for name in ("cp", "cp + sync", "convert"))
    rows = [
        ("checkpoint", f"{size / 1e9:.2f} GB", ""),
        ("cp", f"{cp:.2f} s, {size / cp / 1e9:.2f} GB/s", ""),
        ("cp, then sync", f"{synced:.2f} s, {size / synced / 1e9:.2f} GB/s", ""),
        ("convert --to hf", f"{ours:.2f} s, {size / ours / 1e9:.2f} GB/s", ""),
        ("  throughput against cp, then sync", f"{synced / ours:.2f}", ">= 0.5"),
        ("  throughput against cp", f"{cp / ours:.2f}", ">= 0.5"),
        ("  peak memory", f"{common.peak(runs['convert']) / 1e9:.2f} GB", "< 1 GB"),
    ]
    inspect = [common.run(sys.executable, "-m", "bert4x", "inspect", str(source)) for _ in range(args.repeats)]
    rows.append(("inspect", f"{common.seconds(inspect):.2f} s", "< 2 s"))
    for backend in () if args.skip_load else [name for name in args.backend if name != "torch"]:
        if common.installed(backend):
            result = common.python(LOAD.format(source=str(source)), KERAS_BACKEND=backend)
            ratio = result.peak / size
            what = f"load as bfloat16, {backend}: peak memory"
            rows.append((what, f"{result.peak / 1e9:.2f} GB, {ratio:.2f} of its size", "< 1.30"))
            rows.append((f"load as bfloat16, {backend}: time", f"{result.seconds:.1f} s", ""))
    if not args.keep:
        shutil.rmtree(source)
    times = {name: [run.seconds for run in of] for name, of in runs.items()}
    tables, title = [report.wanted_rows(rows)], f"Converting CPM-LM ({args.size})"
    return report.Report("conversion", title, tables, {"convert": {OURS.get(n, n): t for n, t in times.items()}})


if __name__ == "__main__":
    common.main(arguments(), measure)
