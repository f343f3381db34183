"""An epoch of fine-tuning on real sentences: batches of 32, at most 128 tokens, each library with its usual batching.

    python -m tests.benchmarks epoch [--data FILE] [--sentences 960] [options of all cases]

Ours sorts sentences of similar length together and pads to one of few lengths. transformers and bert4keras draw
sentences at random and pad to the longest of the batch, as their examples do; keras-hub's preprocessor pads to the
given length, 128. --data is .tsv or .tsv.xz, whose first column is the sentence; by default toy data, which are short.
All get the same ids from our tokenizer. An update for each shape comes first, which compiles; its time is apart.
"""

import importlib
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import common, compare, report
from tests.benchmarks.checkpoints import bert, prepared
from tests.benchmarks.contenders import contenders
from tests.benchmarks.inference import targets
from tests.benchmarks.libraries import LABELS, Setup
from tests.benchmarks.tokenization import read_sentences
from tests.benchmarks.training import FORMS, PEERS
from tests.benchmarks.workers import Prepared

TOY = Path(__file__).parents[2] / "recipes" / "data" / "toy_sentiment.tsv"
LONGEST, ROWS = 128, 32
WANTED = {"keras-hub, bert4keras": 1.5, "transformers": 2.5}
FILLED = 0.95  # share of tokens that are not padding

Plan = list[tuple[np.ndarray, int]]  # which sentences are in each batch, and how long it is


def plan_of(library: str, lengths: np.ndarray, rows: int) -> Plan:
    """The batches of an epoch as a library makes them."""
    if library == "bert4x":
        from bert4x.training.batches import Batches

        return Batches(lengths, rows, longest=LONGEST).epoch(0)
    order = np.random.default_rng(0).permutation(len(lengths))
    order = np.concatenate([order, order[: -len(order) % rows]])
    batches = np.split(order, len(order) // rows)
    return [(batch, LONGEST if library == "keras-hub" else int(lengths[batch].max())) for batch in batches]


def padded(sentences: list[list[int]], batch: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, segment ids, labels. Shape: (B, T), (B, T), (B,)"""
    ids = np.zeros((len(batch), length), "int32")
    for row, number in zip(ids, batch, strict=True):
        row[: len(sentences[number])] = sentences[number]
    return ids, np.zeros_like(ids), (batch % LABELS).astype("int32")


def work(module: str, library: str, ids: str, rows: int, **setup) -> Prepared:
    """A worker; `ids` is a file of the sentences' tokens."""
    with np.load(ids) as file:
        sentences = [row.tolist() for row in np.split(file["tokens"], file["ends"][:-1])]
    _, learn = importlib.import_module(module).classifier(Setup(**setup))
    lengths = np.array([len(sentence) for sentence in sentences])
    plan = plan_of(library, lengths, rows)
    begin = time.perf_counter()
    for length, batch in {length: batch for batch, length in plan}.items():
        learn(*padded(sentences, batch, length))

    def epoch() -> None:
        for batch, length in plan:
            learn(*padded(sentences, batch, length))

    facts = {
        "compiling": time.perf_counter() - begin,
        "shapes": len({length for _, length in plan}),
        "filled": float(sum(lengths[batch].sum() for batch, _ in plan) / sum(len(b) * n for b, n in plan)),
    }
    return Prepared({"epoch": epoch}, facts=facts, first=False)


def write_ids(file: Path, folder: Path, data: Path, count: int) -> int:
    """Writes the tokens of some sentences; returns how many there are."""
    from bert4x.tokenizers import Tokenizer, load_vocab

    found = read_sentences(data, 10**6)
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    tokenizer = Tokenizer(load_vocab(folder / "vocab.txt"), do_lower_case=True)
    ids, _ = tokenizer.encode_batch([found[i] for i in chosen], maxlen=LONGEST)
    ends = np.cumsum([len(row) for row in ids])
    np.savez(file, tokens=np.concatenate([np.array(row, "int32") for row in ids]), ends=ends)
    return len(ids)


def arguments():
    parser = common.options(__doc__)
    parser.set_defaults(repeats=2)
    parser.add_argument("--data", type=Path, default=TOY, help="sentences (default: toy data)")
    parser.add_argument("--sentences", type=int, default=960, help="how many of them, at random")
    return parser


def measure(args) -> report.Report:
    config = bert(args.size)
    folder = prepared(args.folder, f"bert-{args.size}", config, tf1="bert4keras" in args.against)
    ids = args.folder / "epoch.npz"
    count = write_ids(ids, folder, args.data, args.sentences)
    # Compiling anew for every length is nobody's usual way.
    forms = FORMS | {"transformers": ("eager",), "bert4keras": ("graph",)}
    found = contenders([peer for peer in PEERS if peer in args.against], args.backend, forms)
    rows = min(ROWS, count)
    same = {"ids": str(ids), "rows": rows, "folder": str(folder), "device": args.device}
    jobs = compare.jobs_of("tests.benchmarks.epoch:work", found, same)
    measured = compare.measure(jobs, args.repeats, {"": args.calls or 1}, keep=False, device=args.device)
    figures = measured.figures.get("epoch", {})
    table = report.comparison("epoch", measured)
    table.title = f"an epoch of {count} sentences, batches of {rows}"
    batching = report.Table(
        "Batches",
        ("", "tokens that are not padding", "shapes", "compiling"),
        [
            (name, f"{f.facts['filled']:.2f}", str(f.facts["shapes"]), f"{f.facts['compiling']:.0f} s")
            for name, f in figures.items()
        ],
    )
    wanted = targets(measured, "epoch", WANTED, "float32")
    ours = [f.facts["filled"] for f in measured.of("epoch", "bert4x").values()]
    wanted.append(("tokens that are not padding", *report.verdict(min(ours, default=None), least=FILLED)))
    tables = [table, batching, report.wanted_rows(wanted)]
    return report.Report(
        "epoch", f"One epoch of fine-tuning ({args.size})", tables, report.bars(measured),
        problems=compare.problems(measured, "epoch", 1.0),
    )  # fmt: skip


if __name__ == "__main__":
    common.main(arguments(), measure)
