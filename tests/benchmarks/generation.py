"""Generating text: a GPT2 of 12 layers x 768 with 30,000 tokens, float32, a prompt of 32 tokens and 64 new ones.

    python -m tests.benchmarks generation [--only NAME ...] [options of all cases]

Ours on each backend, keras-hub (JAX and TensorFlow, the faster one counts), transformers, and ours without a cache:
the whole sequence again for every token, on TensorFlow, by `model.predict` as bert4keras does, and by
`predict_on_batch`, which spares it what Keras adds to every call of `predict`. Greedy, forced to the full length,
batches of 1 and 8. Every library and batch size has a fresh process; they alternate. A process loads the same
checkpoint (only keras-hub's weights are its own, at random), generates once, which compiles, and then some more times:
these count.

A stream is timed against `generate` of the same text in the same process. The share of memory bandwidth is what
reading every weight once would take, at the speed at which NumPy reads as many bytes with a thread for each core,
divided by the time of one step: 64 tokens less 1 token, by 63.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import LazyTensor
from bert4x.checkpoints.write import write, write_config
from bert4x.config import TransformerConfig
from tests.benchmarks import common, report

CONFIG = TransformerConfig(
    model="gpt2", vocab_size=30000, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
    intermediate_size=3072, max_position=1024, hidden_act="gelu_tanh", layer_norm_eps=1e-5, segment_vocab_size=0,
    pad_token_id=None,
)  # fmt: skip
PROMPT, NEW = 32, 64
FORCED = {"max_new_tokens": NEW, "min_new_tokens": NEW}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += [chr(0x3400 + i) for i in range(CONFIG.vocab_size - len(WORDS))]
OURS = ("jax", "tensorflow", "torch")
PROGRAM = "from tests.benchmarks.generation import {0}; {0}(*{1!r})"
WANTED = {  # times as fast as others, by batch size
    "keras-hub": {1: 1.1, 8: 1.5},
    "transformers": {1: 1.7, 8: 2.3},
    "no cache, predict": {1: 7.0, 8: 18.0},
    "no cache, predict_on_batch": {1: 7.0, 8: 18.0},
}


def config_of(size: str) -> TransformerConfig:
    """The model, fewer layers of it, or a toy."""
    if size == "toy":
        sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "embedding_size": 64}
        return CONFIG.replace(num_hidden_layers=2, attention_head_size=16, attention_key_size=16, **sizes)
    return CONFIG.replace(num_hidden_layers={"small": 4, "full": 12}[size])


def write_gpt2(folder: Path, config: TransformerConfig = CONFIG) -> None:
    """The model with random weights and a vocabulary, as published on Hugging Face."""
    random = np.random.default_rng(0)

    def tensor(path: str, shape: tuple[int, ...]) -> LazyTensor:
        base = 1.0 if path.endswith("gamma") else 0.0
        return LazyTensor(
            path, shape, np.dtype("f4"), lambda: base + 0.05 * random.standard_normal(shape, dtype="float32")
        )

    folder.mkdir(parents=True, exist_ok=True)
    ours = {path: tensor(path, shape) for path, (shape, _) in variables(config).items()}
    write(folder, "hf", config, ours)
    write_config(folder, "hf", config, ours)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")


def prompts(batch: int) -> np.ndarray:
    """The same for all libraries. Shape: (batch, PROMPT)"""
    return np.random.default_rng(batch).integers(len(WORDS) // 2, len(WORDS), (batch, PROMPT)).astype("int32")


def seconds_of(function: Callable) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def tell(generate: Callable[[], np.ndarray], calls: int = 5, **more) -> None:
    """Prints what a process has measured: the first call, the others, and the new ids."""
    first = seconds_of(generate)
    times = [seconds_of(generate) for _ in range(calls)]
    print("\n" + json.dumps({"first": first, "times": times, "ids": np.asarray(generate()).tolist()} | more))


# What the processes do.


def ours(folder: str, batch: int) -> None:
    """`generate_ids`; for one prompt also `stream`."""
    import bert4x

    model, ids, more = bert4x.load(folder), prompts(batch), {}
    if batch == 1:
        text = "".join(WORDS[token] for token in ids[0, : PROMPT - 2])
        runs = {
            "one": lambda: model.generate_ids(ids, max_new_tokens=1, min_new_tokens=1),
            "loop": lambda: model.generate(text, **FORCED),
            "stream": lambda: list(model.stream(text, **FORCED)),
        }
        pieces = runs["stream"]()
        assert len(pieces) == NEW and "".join(piece.text for piece in pieces) == runs["loop"](), "another text"
        times = [{name: seconds_of(run) for name, run in runs.items()} for _ in range(4)]
        more = {name: [of[name] for of in times[1:]] for name in runs}  # the first compiles
    tell(lambda: model.generate_ids(ids, **FORCED), **more)


def no_cache(folder: str, batch: int, method: str) -> None:
    """The whole sequence again for every token; its graph is not recompiled when the sequence grows."""
    import bert4x

    model = bert4x.load(folder)
    model.compile(jit_compile=False)
    options = {"verbose": 0} if method == "predict" else {}

    def generate(steps: int) -> np.ndarray:
        ids = prompts(batch)
        for _ in range(steps):
            logits = getattr(model, method)({"token_ids": ids}, **options)
            ids = np.concatenate([ids, logits[:, -1:].argmax(-1).astype("int32")], axis=1)
        return ids[:, PROMPT:]

    first = seconds_of(lambda: generate(3))
    begin = time.perf_counter()
    ids = generate(NEW)
    print("\n" + json.dumps({"first": first, "times": [time.perf_counter() - begin], "ids": ids.tolist()}))


def keras_hub(folder: str, batch: int) -> None:
    """Its causal language model without a preprocessor, compiled with XLA."""
    from keras_hub.models import GPT2Backbone, GPT2CausalLM

    from bert4x.checkpoints.opening import open_checkpoint

    c = open_checkpoint(folder).config
    backbone = GPT2Backbone(
        vocabulary_size=c.vocab_size,
        num_layers=c.num_hidden_layers,
        num_heads=c.num_attention_heads,
        hidden_dim=c.hidden_size,
        intermediate_dim=c.intermediate_size,
        max_sequence_length=c.max_position,
        dropout=0.0,
    )
    model = GPT2CausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy", jit_compile=True)
    room = ((0, 0), (0, NEW))
    ids = prompts(batch)
    inputs = {"token_ids": np.pad(ids, room), "padding_mask": np.pad(np.ones_like(ids), room)}
    tell(lambda: model.generate(inputs, max_length=PROMPT + NEW, stop_token_ids=None)["token_ids"][:, PROMPT:])


def transformers(folder: str, batch: int) -> None:
    """`generate` on PyTorch."""
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor(prompts(batch), dtype=torch.long)
    options = FORCED | {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    tell(lambda: model.generate(ids, **options)[:, PROMPT:])


def bandwidth(_: str, size: int) -> None:
    """Bytes a second at which NumPy reads this many."""
    cores = os.cpu_count() or 1
    parts = np.ones((8 * cores, size // (32 * cores)), "float32")
    with ThreadPoolExecutor(cores) as pool:
        times = [seconds_of(lambda: list(pool.map(lambda part: part.dot(part), parts))) for _ in range(16)]
    print("\n" + json.dumps({"first": times[0], "times": times[1:]}))


# What is made of it.


def programs(folder: Path, size: int, args) -> dict[tuple[str, int], Callable[[], common.Run]]:
    """The processes by library and batch size."""

    def fresh(function: Callable, *arguments, **environment: str):
        return lambda: common.python(PROGRAM.format(function.__name__, (str(folder), *arguments)), **environment)

    found = {("bandwidth", 0): fresh(bandwidth, size)}
    backends = [name for name in OURS if name in args.backend and common.installed(name)]
    for batch in (1, 8):
        found |= {(f"bert4x, {name}", batch): fresh(ours, batch, KERAS_BACKEND=name) for name in backends}
        if "keras-hub" in args.against and common.installed("keras_hub"):
            found |= {
                (f"keras-hub, {name}", batch): fresh(keras_hub, batch, KERAS_BACKEND=name)
                for name in backends
                if name != "torch"
            }
        if "transformers" in args.against and common.installed("transformers"):
            found["transformers", batch] = fresh(transformers, batch)
        if "tensorflow" in backends:
            for method in ("predict", "predict_on_batch"):
                found[f"no cache, {method}", batch] = fresh(no_cache, batch, method, KERAS_BACKEND="tensorflow")
    return found


class Figures:
    """The figures of one library and batch size."""

    def __init__(self, runs: list[common.Run]):
        self.told = [json.loads(run.output.strip().splitlines()[-1]) for run in runs]
        self.peak = common.peak(runs)
        self.seconds = self.median("times")
        self.compiling = common.median(told["first"] for told in self.told) - self.seconds

    def median(self, name: str) -> float:
        """The median of all calls of all processes."""
        return common.median(seconds for told in self.told for seconds in told[name])


def best(figures: dict[tuple[str, int], Figures], library: str, batch: int) -> Figures | None:
    """The fastest of a library's backends."""
    found = [of for (name, size), of in figures.items() if size == batch and f"{name}, ".startswith(f"{library}, ")]
    return min(found, key=lambda of: of.seconds, default=None)


def rows_of(figures: dict[tuple[str, int], Figures], size: int) -> list[tuple[str, str, str]]:
    """The table: every library, then what the issue asks for."""
    rows = [("memory bandwidth", f"{size / figures['bandwidth', 0].seconds / 1e9:.1f} GB/s", "")]
    for (name, batch), of in figures.items():
        if batch:
            compiling = "" if name.startswith(("transformers", "no cache")) else f", compiling {of.compiling:.1f} s"
            speed = f"{of.seconds:.3f} s, {batch * NEW / of.seconds:.0f} tokens/s"
            rows.append((f"{name}, batch {batch}", f"{speed}{compiling}, peak {of.peak / 1e9:.2f} GB", ""))
    for library, wanted in WANTED.items():
        for batch, ratio in wanted.items():
            mine, theirs = best(figures, "bert4x", batch), best(figures, library, batch)
            if theirs:
                measured = f"{theirs.seconds / mine.seconds:.2f} times as fast"
                rows.append((f"against {library}, batch {batch}", measured, f">= {ratio}"))
    for batch in (1, 8):
        mine, hub = best(figures, "bert4x", batch), best(figures, "keras-hub", batch)
        both = [figures[key].seconds for name in OURS[:2] if (key := (f"bert4x, {name}", batch)) in figures]
        if len(both) == 2:
            rows.append((f"TensorFlow and JAX, batch {batch}", f"{max(both) / min(both):.2f} times as slow", "<= 1.3"))
        if hub:
            rows.append((f"peak against keras-hub, batch {batch}", f"{mine.peak / hub.peak:.2f}", "<= 1"))
    for name in OURS:
        of = figures.get((f"bert4x, {name}", 1))
        if of:
            step = (of.seconds - of.median("one")) / (NEW - 1)
            share = f"{figures['bandwidth', 0].seconds / step:.2f} ({step * 1e3:.1f} ms a step)"
            stream = f"{of.median('stream') / of.median('loop'):.2f} of generate"
            rows += [(f"share of bandwidth, {name}", share, ">= 0.75"), (f"stream, {name}", stream, "<= 1.25")]
    same = [
        of.told[0]["ids"] == best(figures, "bert4x", batch).told[0]["ids"]
        for (name, batch), of in figures.items()
        if batch and not name.startswith("keras-hub")
    ]
    return [*rows, ("same ids as our fastest, of libraries and batches", f"{sum(same)} of {len(same)}", "")]


def arguments():
    parser = common.options(__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="what has one of these in its name")
    return parser


def measure(args) -> report.Report:
    config = config_of(args.size)
    folder = args.folder / f"gpt2-{args.size}"
    if not folder.exists():
        write_gpt2(folder, config)
    size = 4 * sum(int(np.prod(shape)) for path, (shape, _) in variables(config).items() if "Position" not in path)
    wanted = {
        key: run for key, run in programs(folder, size, args).items() if any(name in key[0] for name in args.only)
    }
    runs = common.alternate(wanted, args.repeats)
    figures = {key: Figures(of) for key, of in runs.items()}
    shutil.rmtree(folder)
    tables, bars = [report.wanted_rows(rows_of(figures, size))], {}
    for (name, batch), of in figures.items():
        if batch:
            bars.setdefault(f"batch {batch}", {})[name] = [t for told in of.told for t in told["times"]]
    title = f"GPT2 ({args.size}): {PROMPT} + {NEW} tokens"
    return report.Report("generation", title, tables, bars)


if __name__ == "__main__":
    common.main(arguments(), measure)
