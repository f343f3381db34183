"""One GPU: bert4x on JAX against transformers on PyTorch, beside what the device can do at most.

    python -m tests.benchmarks.gpu [--size toy|full] [--only NAME ...] [--list] [--repeats 2] [--seconds 1.5]
                                   [--against bert4x transformers ...] [--out JSON] [--resume] [--folder SCRATCH]

Each row is a model, a task and a size; each contender has fresh processes, which alternate (A B A B). A process loads
the same checkpoint of random weights, compiles, warms up, and is measured. After every row the JSON is written anew, so
that a run that is cut off keeps its rows, and `--resume` skips those. `--only` takes parts of names, as `--list` shows
them with a guess of the minutes each takes. What cannot run (no CUDA, no such library) is a row that says why.

Shares: the operations of the formula below a second, by the measured speed of a matrix product (of the same type, 8192
squared); generation: the bytes of all weights and of the keys and values so far, a second, by the measured speed of
reading. Each formula counts what the model needs, not what a library does.
"""

import argparse
import json
import os
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, atomic_write
from bert4x.checkpoints.write import write, write_config
from bert4x.config import TransformerConfig
from tests.benchmarks import common

OURS = ("bert4x", "bert4x, flash")  # the other with `flash_attention=True`, where that changes anything
CONTENDERS = (*OURS, "transformers", "transformers, compiled")
PROMPT, NEW, SHORT = 32, 128, 97  # 97 and 128 new tokens are the same compiled loop of ours
MODELS = {  # hidden size, layers, heads, vocabulary
    "bert-base": (768, 12, 12, 21128),
    "bert-large": (1024, 24, 16, 21128),
    "gpt2": (768, 12, 12, 30000),
    "cpm": (2560, 32, 32, 30000),
}
TOY = (64, 1, 4, 100)
TENSOR_TYPES = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}  # what matrices are multiplied in


@dataclass(frozen=True)
class Row:
    """What is measured. `share` is of the matrix peak, or for generation of the bandwidth; `ratio` is the time of the
    faster peer by ours; both are what the issue asks for, or None. `minutes` is a guess for two runs of each."""

    name: str
    model: str
    task: str
    batch: int
    length: int
    dtype: str = "bfloat16"
    attention_dropout: float = 0.1
    share: float | None = None
    ratio: float | None = None
    minutes: float = 2

    def runs(self, contender: str) -> bool:
        """Whether a contender has anything to do with this row."""
        if contender == "bert4x, flash":
            return self.task in ("inference", "lora") or (self.task == "training" and not self.attention_dropout)
        return contender == "bert4x" or self.task != "limits"


def rows() -> list[Row]:
    """All of them."""
    found = [Row("limits", "", "limits", 1, 8192, minutes=0.5)]
    for model, minutes in (("bert-base", 2.0), ("bert-large", 4.0)):
        for length, batch in ((128, 128), (512, 32)):
            size = (batch, length)
            found.append(Row(f"{model}-inference-{length}", model, "inference", *size, minutes=minutes))
            row = Row(f"{model}-training-{length}", model, "training", *size, "mixed_bfloat16", ratio=1.2)
            row = replace(row, minutes=minutes + 2, share=0.5 if (model, length) == ("bert-large", 512) else None)
            plain = replace(row, name=f"{row.name}-no-attention-dropout", attention_dropout=0.0)
            found += [row, plain]
    base = next(row for row in found if row.name == "bert-base-training-128")
    found += [replace(base, name=f"{base.name}-{dtype}", dtype=dtype) for dtype in ("mixed_float16", "float32")]
    for model, minutes in (("gpt2", 3.0), ("cpm", 5.0)):
        for batch in (1, 8, 64):
            row = Row(f"{model}-generation-{batch}", model, "generation", batch, PROMPT, minutes=minutes)
            if (model, batch) == ("cpm", 1):
                row = replace(row, ratio=5.0, share=0.6)
            found.append(row)
        found.append(Row(f"{model}-lora", model, "lora", 8, 512, minutes=minutes))
    return found


def config_of(model: str, size: str) -> TransformerConfig:
    """The model's sizes, or those of a toy. Without a padding id: transformers is given no mask either."""
    hidden, layers, heads, vocabulary = MODELS[model] if size == "full" else TOY
    common_ = {
        "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
    }  # fmt: skip
    if model.startswith("bert"):
        return TransformerConfig("bert", **common_, max_position=512)
    gpt2 = {"max_position": 1024, "hidden_act": "gelu_tanh", "layer_norm_eps": 1e-5, "segment_vocab_size": 0}
    return TransformerConfig("gpt2", **common_, **gpt2)


def checkpoint(folder: Path, config: TransformerConfig) -> Path:
    """A model with random weights in bfloat16, as published on Hugging Face; kept for later runs."""
    if not (folder / "config.json").exists():
        block = (np.random.default_rng(0).standard_normal(1 << 20, dtype="float32") * 0.02).astype(BFLOAT16)
        shapes = {path: shape for path, (shape, head) in variables(config).items() if not head}

        def tensor(path: str, seed: int) -> LazyTensor:
            ones = path.endswith("gamma")
            values = np.ones(1, BFLOAT16) if ones else block[seed:]
            return LazyTensor(path, shapes[path], BFLOAT16, lambda: np.resize(values, shapes[path]))

        ours = {path: tensor(path, i) for i, path in enumerate(shapes)}
        write(folder, "hf", config, ours)
        write_config(folder, "hf", config, ours)  # last: it says that the folder is whole
    return folder


def operations(row: Row, config: TransformerConfig) -> float:
    """Additions and multiplications of a call: of dense layers, of attention (all T x T of it), of the head; a training
    step is three forward passes, or two where the weights are frozen."""
    c, tokens = config, row.batch * row.length
    dense = c.num_hidden_layers * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    attention = c.num_hidden_layers * 2 * row.length * c.hidden_size
    head = c.hidden_size * c.vocab_size if row.task == "lora" else 0
    return 2.0 * tokens * (dense + attention + head) * {"inference": 1, "training": 3, "lora": 2}[row.task]


def bytes_read(row: Row, config: TransformerConfig, new: tuple[int, int]) -> float:
    """Bytes of a step of generation: every weight once, and the keys and values of the tokens so far (the mean)."""
    weights = sum(int(np.prod(shape)) for path, (shape, _) in variables(config).items() if "Position" not in path)
    seen = row.length + (new[0] + new[1]) / 2
    return 2.0 * (weights + 2 * config.num_hidden_layers * row.batch * seen * config.hidden_size)


def job_of(row: Row, contender: str, args) -> dict:
    """What `tests.benchmarks.gpu_contenders` is told."""
    toy, folder = args.size == "toy", args.folder / f"{row.model}-{args.size}"
    if row.task != "limits":
        checkpoint(folder, config_of(row.model, args.size))
    return {
        "library": contender.split(",")[0], "compile": contender.endswith("compiled"), "task": row.task,
        "flash_attention": True if contender.endswith("flash") else None,
        "folder": str(folder), "batch": 2 if toy and row.batch > 1 else row.batch,
        "length": {"limits": 256, "generation": 8}.get(row.task, 16) if toy else row.length,
        "new": 8 if toy else NEW, "short": 6 if toy else SHORT, "dtype": row.dtype,
        "attention_dropout": row.attention_dropout, "seconds": args.seconds, "limit": args.limit,
        "needs_gpu": not toy,
    }  # fmt: skip


def start(job: dict) -> dict:
    """Does a job in a fresh process. What was compiled is kept, by PyTorch as it always does, by JAX because it is told
    to: only the first process of a row compiles. Raises: RuntimeError with what it printed.
    """
    cache = {
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(Path(job["folder"]).parent.resolve() / "compiled"),
    }
    environment = cache if job["library"] == "bert4x" else {}
    code = f"import runpy, sys; sys.argv[1:] = [{json.dumps(job)!r}]; "
    code += "runpy.run_module('tests.benchmarks.gpu_contenders', run_name='__main__')"
    return json.loads(common.python(code, **environment).output.strip().splitlines()[-1])


def measure(row: Row, args) -> dict:
    """The answers of each contender, or why there are none."""
    told, reasons = {}, {}
    contenders = [name for name in args.against if row.runs(name)]
    for contender in contenders * args.repeats:
        needs = () if contender in OURS else ("torch", "transformers", *(["peft"] if row.task == "lora" else []))
        missing = [name for name in needs if not common.installed(name)]
        if missing:
            reasons[contender] = f"{', '.join(missing)} not installed"
        if contender not in reasons:
            try:
                answer = start(job_of(row, contender, args))
                told.setdefault(contender, []).append(answer)
            except RuntimeError as error:  # the process failed, ran out of memory or time: the row says so
                lines = [line for line in str(error).splitlines() if line.strip()]
                reasons[contender] = lines[-1][-300:] if len(lines) > 1 else f"killed after {args.limit} s"
    return {"told": told, "reasons": reasons}


def figures(row: Row, measured: dict, limits: dict, size: str) -> dict[str, dict]:
    """What the table shows of each contender: median, spread, peak, share; times by our faster form."""
    config = config_of(row.model, size)
    found = {}
    for name, runs in measured["told"].items():
        times = [t for run in runs for t in run["times"]]
        of = {"seconds": statistics.median(times), "least": min(times), "most": max(times), "first": runs[0]["first"]}
        of["peak"] = max((run["peak"] for run in runs if run["peak"]), default=None)
        of["each"] = [statistics.median(run["times"]) for run in runs]
        if row.task == "generation":
            least, most = runs[0]["tokens"]
            of["token"] = (of["seconds"] - statistics.median(t for run in runs for t in run["short"])) / (most - least)
            if limits and size == "full" and of["token"] > 0:
                of["share"] = bytes_read(row, config, (least, most)) / of["token"] / limits["bandwidth"]
        elif limits and size == "full":
            kind = TENSOR_TYPES.get(row.dtype, row.dtype)
            of["share"] = operations(row, config) / of["seconds"] / limits[kind]
        found[name] = of
    ours = fastest(found, OURS)
    for name in found if ours else ():
        pairs = zip(found[name]["each"], found[ours]["each"], strict=False)
        found[name]["ratios"] = sorted(theirs / mine for theirs, mine in pairs)
        outputs = [np.array(measured["told"][of][0].get("outputs", [])) for of in (ours, name)]
        found[name]["difference"] = difference(*outputs, row.task == "generation")
    return found


def fastest(found: dict[str, dict], names) -> str | None:
    """The one of these that took the least time, of those that ran."""
    return min((name for name in names if name in found), key=lambda name: found[name]["seconds"], default=None)


def difference(ours: np.ndarray, theirs: np.ndarray, are_ids: bool) -> float | None:
    """How far two libraries are apart: the share of ids that differ, or the largest difference by the largest value."""
    if not len(ours) or ours.shape != theirs.shape:
        return None
    return float((ours != theirs).mean() if are_ids else np.abs(ours - theirs).max() / np.abs(ours).max())


COLUMNS = ("row", "contender", "seconds", "spread", "peak GB", "share", "time by ours", "outputs apart", "wanted")


def lines(row: Row, measured: dict, limits: dict, size: str) -> list[tuple[str, ...]]:
    """Lines of the table."""
    if row.task == "limits":
        names = [f"{name}: {v / 1e12:.2f} {'TB/s' if name == 'bandwidth' else 'TFLOP/s'}" for name, v in limits.items()]
        device = [runs[0]["device"] for runs in measured["told"].values()]
        found = [(row.name, *device, "; ".join(names), *[""] * 6)] if names else []
    else:
        found, all_ = [], figures(row, measured, limits, size)
        ours, faster = fastest(all_, OURS), fastest(all_, set(all_).difference(OURS))
        for name, of in all_.items():
            ratios, wanted = of.get("ratios"), ""
            if name == ours and row.share:
                wanted = f"share >= {row.share}"
            elif name == faster and row.ratio:
                wanted = f">= {row.ratio}"
            seconds = f"{of['seconds']:.5f}" + (f" ({of['token'] * 1e3:.2f} ms/token)" if "token" in of else "")
            apart = "" if of.get("difference") is None or name == ours else f"{of['difference']:.1%}"
            cells = (
                seconds,
                f"{of['least']:.5f} to {of['most']:.5f}",
                f"{of['peak'] / 1e9:.2f}" if of["peak"] else "?",
                f"{of['share']:.0%}" if "share" in of else "",
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                if ratios and name != ours
                else "",
            )
            found.append((row.name, name, *cells, apart, wanted))
    return found + [(row.name, name, f"skipped: {why}", *[""] * 6) for name, why in measured["reasons"].items()]


def table(all_lines: list[tuple[str, ...]]) -> str:
    """In columns; a long cell at the end of its line widens nothing."""
    whole = [COLUMNS, *all_lines]
    short = [[cell if any(line[i + 1 :]) else "" for i, cell in enumerate(line)] for line in whole]
    widths = [max(len(line[i]) for line in short) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in whole
    )


def parser() -> argparse.ArgumentParser:
    found = common.arguments(__doc__, "build/benchmarks/gpu")
    found.set_defaults(repeats=2, out=Path("build/benchmarks/gpu.json"))
    found.add_argument("--size", choices=("toy", "full"), default="full", help="toy: any device, figures mean nothing")
    found.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="rows with one of these in their name")
    found.add_argument("--against", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="CONTENDER")
    found.add_argument("--seconds", type=float, default=1.5, help="measured for, in each process")
    found.add_argument("--limit", type=int, default=240, help="seconds after which a process is killed")
    found.add_argument("--resume", action="store_true", help="skip the rows that --out has already")
    found.add_argument("--list", action="store_true", help="only say which rows there are")
    return found


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    chosen = [row for row in rows() if row.task == "limits" or any(part in row.name for part in args.only)]
    if args.list:
        print("\n".join(f"{row.name}  about {row.minutes * args.repeats / 2:g} min" for row in chosen))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(args.out.read_text("utf-8"))["rows"] if args.resume and args.out.exists() else {}
    all_lines, results = [], dict(kept)
    for row in chosen:
        if row.name not in kept:
            print(f"{row.name}: about {row.minutes * args.repeats / 2:g} min", flush=True)
            results[row.name] = measure(row, args)
            data = {"size": args.size, "machine": common.machine(), "rows": results}
            with atomic_write(args.out) as path:
                path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        measured = results["limits"]["told"].get("bert4x")
        limits = measured[0]["limits"] if measured else {}
        all_lines += (new := lines(row, results[row.name], limits, args.size))
        if row.name not in kept:
            print(table(new), flush=True)
    print("\n" + ", ".join(f"{name} {value}" for name, value in common.machine().items()))
    print(table(all_lines))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
