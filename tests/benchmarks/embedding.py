"""Vectors of texts of mixed lengths, by BERT-base with mean pooling: from a list of texts to an array.

    python -m tests.benchmarks embedding [--file TEXTS] [--model FOLDER] [--sentences 10000] [--batch-tokens 16384]

Both libraries sort texts by their lengths; sentence-transformers takes `--batch` of them at a time. They read the same
folder of sentence-transformers: `--model`, or random weights; ONNX Runtime computes its export in int8. --file is .txt,
.tsv (its first column is taken), or .xz of these; without it Chinese sentences are made, joined to texts of one to six.
"""

import json
from pathlib import Path

import numpy as np

from tests.benchmarks import common, compare, report
from tests.benchmarks.checkpoints import bert, prepared
from tests.benchmarks.contenders import contenders
from tests.benchmarks.libraries import Setup
from tests.benchmarks.tokenization import read_sentences
from tests.benchmarks.workers import Prepared
from tests.text_samples import chinese_sentences

PEERS = ("sentence-transformers", "onnxruntime")
WANTED = {"bert4x": 1.5, "bert4x, torch": 1.0, "onnxruntime": 3.0}  # times as fast as sentence-transformers
TOLERANCE = {"onnxruntime": 0.2}  # of int8
COUNTS = {"full": 10000, "small": 1000, "toy": 24}


def bert4x(folder: str, batch: int, batch_tokens: int):
    from bert4x import embedder

    encoder = embedder(folder)
    return lambda texts: encoder(texts, batch_tokens=batch_tokens)


def sentence_transformers(folder: str, batch: int, batch_tokens: int):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    return lambda texts: model.encode(texts, batch_size=batch)


def onnxruntime(folder: str, batch: int, batch_tokens: int):
    """Our export in int8, opened by the same call."""
    from tests.benchmarks.libraries.engines import exported

    return bert4x(str(exported(Setup(folder, dtype="int8"), "onnx").parent), batch, batch_tokens)


def work(module: str, library: str, form: str, texts: str, folder: str, batch: int, batch_tokens: int) -> Prepared:
    """A worker; `texts` is a file of JSON."""
    encode, rows = (
        globals()[library.replace("-", "_")](folder, batch, batch_tokens),
        json.loads(Path(texts).read_text()),
    )
    return Prepared({"texts": lambda: encode(rows)}, {"vectors": encode(rows)}, first=False)


def arguments():
    parser = common.options(__doc__)
    parser.add_argument("--file", type=Path, help="text, one a line")
    parser.add_argument("--model", type=Path, help="a folder of sentence-transformers")
    parser.add_argument("--sentences", type=int, help="default: 10000, and less of smaller sizes")
    parser.add_argument("--batch", type=int, default=32, help="texts at a time, of sentence-transformers")
    parser.add_argument("--batch-tokens", type=int, default=16384, help="tokens at a time, ours")
    return parser


def mixed_texts(count: int) -> list[str]:
    """Texts of one to six made sentences."""
    draw = np.random.default_rng(0)
    sentences = chinese_sentences(6 * count)
    return ["".join(sentences[6 * i : 6 * i + draw.integers(1, 7)]) for i in range(count)]


def written(args) -> Path:
    """A folder of sentence-transformers with random weights."""
    folder = args.folder / f"vectors-{args.size}"
    if not (folder / "modules.json").exists():
        from bert4x import embedder

        source = prepared(args.folder, f"bert-{args.size}", bert(args.size))
        embedder(source, pooling="mean", steps=[{"kind": "normalize"}]).save(folder)
    return folder


def measure(args) -> report.Report:
    count = args.sentences or COUNTS[args.size]
    rows = read_sentences(args.file, count) if args.file else mixed_texts(count)
    texts = args.folder / "texts.json"
    args.folder.mkdir(parents=True, exist_ok=True)
    texts.write_text(json.dumps(rows))
    same = {"texts": str(texts), "folder": str(args.model or written(args))}
    same |= {"batch": args.batch, "batch_tokens": args.batch_tokens}
    found = contenders([peer for peer in PEERS if peer in args.against], args.backend)
    jobs = compare.jobs_of("tests.benchmarks.embedding:work", found, same)
    measured = compare.measure(jobs, args.repeats, {"": args.calls or 1}, keep=True)
    tables, wanted = [], []
    for run, figures in measured.figures.items():
        table = report.comparison(run, measured)
        table.title = f"{len(rows)} texts of {min(map(len, rows))} to {max(map(len, rows))} characters"
        speeds = [(name, f"{len(rows) / f.median:,.0f}") for name, f in figures.items()]
        tables += [table, report.Table("", ("", "texts a second"), speeds)]
        peer = measured.best(run, "sentence-transformers")
        for name, least in WANTED.items():
            ours = measured.best(run, name)
            ratio = peer.median / ours.median if peer and ours else None
            wanted.append((f"{name}: times as fast as sentence-transformers", *report.verdict(ratio, least=least)))
    tables.append(report.wanted_rows(wanted))
    off = {name: apart for name, apart in measured.differences.items() if apart > TOLERANCE.get(name, 1e-4)}
    problems = [*compare.problems(measured, "embedding", 1.0), *(f"{n} differs by {x:.1e}" for n, x in off.items())]
    return report.Report(
        "embedding", f"Vectors of texts ({args.size})", tables, report.bars(measured), problems=problems
    )


if __name__ == "__main__":
    common.main(arguments(), measure)
