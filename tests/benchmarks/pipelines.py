"""Classes of texts of mixed lengths, from a list of strings to labels: what the pipelines of libraries reach.

    python -m tests.benchmarks pipelines [--encoders 4x256 12x384 12x768] [--sentences 10000] [--file TEXTS]

transformers' pipeline is given its texts as they come, and sorted by hand, in batches of `--batch`; ONNX Runtime
computes our export in int8, opened by `bert4x.pipeline`. The share is of the machine's matrix product, for the
arithmetic that the texts' own tokens need. --file as for the case embedding.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from tests.benchmarks import common, compare, report
from tests.benchmarks.checkpoints import bert, flops, prepared
from tests.benchmarks.contenders import contenders
from tests.benchmarks.embedding import COUNTS, mixed_texts
from tests.benchmarks.tokenization import read_sentences
from tests.benchmarks.workers import Prepared

PEERS, SORTED = ("transformers", "onnxruntime"), "sorted by hand"
ENCODERS = {"full": ("4x256", "12x384", "12x768"), "small": ("4x256",), "toy": ("1x32",)}
MAXLEN = 128
SHARE, INT8 = 0.88, 3.0  # of the product, on TensorFlow and JAX; times as fast as our fastest in float32
TOLERANCE = {"onnxruntime": 0.1}  # of int8; the rest 1e-4


def bert4x(folder: str, form: str, batch: int):
    import bert4x

    classify = bert4x.pipeline("text-classification", folder)
    return lambda texts: [list(label.probabilities.values()) for label in classify(texts)]


def onnxruntime(folder: str, form: str, batch: int):
    return bert4x(f"{folder}/onnx-int8", form, batch)


def transformers(folder: str, form: str, batch: int):
    from transformers import pipeline

    classify = pipeline(
        "text-classification", folder, top_k=None, device="cpu", truncation=True, max_length=MAXLEN, batch_size=batch
    )

    def run(texts):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i])) if form == SORTED else range(len(texts))
        found = dict(zip(order, classify([texts[i] for i in order]), strict=True))
        return [[each["score"] for each in sorted(found[i], key=lambda one: one["label"])] for i in sorted(found)]

    return run


def work(module: str, library: str, form: str, texts: str, folder: str, batch: int) -> Prepared:
    """A worker; `texts` is a file of JSON. What it computes first, and compiles, does not count."""
    classify, rows = globals()[library](folder, form, batch), json.loads(Path(texts).read_text())
    return Prepared({"texts": lambda: classify(rows)}, {"scores": np.array(classify(rows), "float32")}, first=False)


def arguments():
    parser = common.options(__doc__)
    parser.add_argument("--encoders", nargs="+", metavar="LAYERSxSIZE", help="default: three sizes, less of smaller")
    parser.add_argument("--file", type=Path, help="text, one a line")
    parser.add_argument("--sentences", type=int, help="default: 10000, and less of smaller sizes")
    parser.add_argument("--batch", type=int, default=32, help="texts at a time, of transformers")
    return parser


def config_of(encoder: str):
    layers, hidden = map(int, encoder.split("x"))
    heads = max(1, hidden // 64)
    sizes = {"hidden_size": hidden, "embedding_size": hidden, "intermediate_size": 4 * hidden}
    head = {"attention_head_size": hidden // heads, "attention_key_size": hidden // heads}
    return bert("full", num_hidden_layers=layers, num_attention_heads=heads, **sizes, **head)


def written(args, encoder: str, quantized: bool) -> Path:
    """A classifier of random weights in Hugging Face's layout, and its export in int8 beside it."""
    import bert4x
    from bert4x.tasks.text_classification import TextClassification

    folder = args.folder / f"classes-{encoder}"
    if not (folder / "config.json").exists():
        source = prepared(args.folder, f"bert-{encoder}", config_of(encoder))
        task = TextClassification(bert4x.load(source), ["坏", "好"], maxlen=MAXLEN, long="first")
        task.save(folder, "hf")
    if quantized and not (folder / "onnx-int8").exists():
        shutil.rmtree(folder / "run", ignore_errors=True)
        bert4x.export(bert4x.pipeline("text-classification", folder), folder / "onnx-int8", "onnx", quantize="int8")
    return folder


def operations(folder: Path, encoder: str, rows: list[str]) -> float:
    """What the tokens of the texts themselves take, in matrix products."""
    from bert4x.tokenizers import load_tokenizer

    lengths = [min(len(ids), MAXLEN) for ids in load_tokenizer(folder).encode_batch(rows)[0]]
    return sum(flops(config_of(encoder), 1, length) for length in lengths)


def measure(args) -> report.Report:
    count = args.sentences or COUNTS[args.size]
    rows = read_sentences(args.file, count) if args.file else mixed_texts(count)
    args.folder.mkdir(parents=True, exist_ok=True)
    texts = args.folder / "texts.json"
    texts.write_text(json.dumps(rows))
    peers = [peer for peer in PEERS if peer in args.against]
    found = contenders(peers, args.backend, {"transformers": ("", SORTED)})
    tables, wanted, bars, problems = [], [], {}, []
    for encoder in args.encoders or ENCODERS[args.size]:
        folder = written(args, encoder, "onnxruntime" in peers)
        same = {"texts": str(texts), "folder": str(folder), "batch": args.batch}
        jobs = [*compare.jobs_of("tests.benchmarks.pipelines:work", found, same), *compare.limits(args.size, "float32")]
        measured = compare.measure(jobs, args.repeats, {"": args.calls or 1}, keep=True)
        limit, needed, figures = compare.limit(measured), operations(folder, encoder, rows), measured.figures["texts"]
        table = report.comparison("texts", measured)
        table.title = f"{encoder}: {len(rows)} texts of {min(map(len, rows))} to {max(map(len, rows))} characters"
        shares = {name: needed / f.median / limit for name, f in figures.items() if limit}
        speeds = [(name, f"{len(rows) / f.median:,.1f}", f"{shares.get(name, 0):.2f}") for name, f in figures.items()]
        tables += [table, report.Table("", ("", "texts a second", "share of the product"), speeds)]
        ours, engine = measured.best("texts", "bert4x"), measured.best("texts", "onnxruntime")
        wanted += [
            (f"{encoder}, {name}: share of the product", *report.verdict(shares.get(name), least=SHARE))
            for name in shares
            if name.startswith(("bert4x, tensorflow", "bert4x, jax"))
        ]
        by_hand = measured.best("texts", "transformers")
        wanted += [
            (f"{encoder}, {name}: times as fast as transformers", *report.verdict(by_hand.median / f.median, least=1.0))
            for name, f in figures.items()
            if by_hand and name.startswith("bert4x")
        ]
        ratio = ours.median / engine.median if ours and engine else None
        wanted.append((f"{encoder}: int8 by ONNX Runtime, times as fast as ours", *report.verdict(ratio, least=INT8)))
        bars |= {f"{encoder}, texts": report.bars(measured)["texts"]}
        apart = {name: d for name, d in measured.differences.items() if d > TOLERANCE.get(name, 1e-4)}
        problems += compare.problems(measured, encoder, 1.0)
        problems += [f"{encoder}: {name} differs by {d:.1e}" for name, d in apart.items()]
    tables.append(report.wanted_rows(wanted))
    return report.Report("pipelines", f"Classes of texts ({args.size})", tables, bars, problems=problems)


if __name__ == "__main__":
    common.main(arguments(), measure)
