"""Turning a list of texts into token ids, as one batch, lower-cased and cased; the same vocabulary for all.

    python -m tests.benchmarks tokenization [--file TEXT] [--vocab VOCAB] [--sentences 20000] [options of all cases]

Without --file it makes Chinese sentences of its own, and without --vocab a vocabulary of Chinese BERT's size. Each
library's ids are compared with ours, on these sentences and on as many lines of hostile text; bert4keras takes one
text at a time. --file is .txt, .tsv (its first column is taken), or .xz of these.
"""

import lzma
import time
import zlib
from pathlib import Path

import numpy as np

from tests.benchmarks import common, compare, report
from tests.benchmarks.contenders import contenders
from tests.benchmarks.workers import Prepared
from tests.text_samples import chinese_sentences, hostile_lines, made_vocab

PEERS = ("transformers", "keras-hub", "bert4keras")
WANTED = {"keras-hub, bert4keras": 1.5, "transformers": 1.7}


def read_sentences(path: Path, count: int) -> list[str]:
    """The first `count` lines that are not empty; of a .tsv their first column."""
    name = path.name.removesuffix(".xz")
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        lines = (line.rstrip("\n").split("\t")[0] if name.endswith(".tsv") else line.rstrip("\n") for line in file)
        return [line for line, _ in zip((line for line in lines if line.strip()), range(count), strict=False)]


def bert4x(vocab: list[str], lower: bool):
    from bert4x.tokenizers import Tokenizer

    tokenizer = Tokenizer({token: i for i, token in enumerate(vocab)}, do_lower_case=lower)
    return lambda texts: tokenizer.encode_batch(texts)[0]


def transformers(vocab: list[str], lower: bool):
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(vocab)}, do_lower_case=lower)
    return lambda texts: tokenizer(texts)["input_ids"]


def keras_hub(vocab: list[str], lower: bool):
    """Without [CLS] and [SEP], which its packer adds."""
    from keras_hub.models import BertTokenizer

    return BertTokenizer(vocabulary=vocab, lowercase=lower)


def bert4keras(vocab: list[str], lower: bool):
    import tests.benchmarks.libraries.bert4keras  # noqa: F401, I001 (makes it importable)
    from bert4keras.tokenizers import Tokenizer

    tokenizer = Tokenizer({token: i for i, token in enumerate(vocab)}, do_lower_case=lower)
    return lambda texts: [tokenizer.encode(text)[0] for text in texts]


def sums(ids, special: tuple[int, int]) -> np.ndarray:
    """A checksum of each line's ids, [CLS] and [SEP] left out. Shape: -> (lines,)"""
    rows = [[int(i) for i in row if int(i) not in special] for row in ids]
    return np.array([zlib.crc32(np.array(row, "int32").tobytes()) for row in rows], "int64")


def work(module: str, library: str, form: str, texts: str, vocab: str) -> Prepared:
    """A worker; `texts` and `vocab` are files of lines."""
    make = globals()[library.replace("-", "_")]
    words = Path(vocab).read_text("utf-8").split("\n")[:-1]
    sentences = Path(texts).read_text("utf-8").split("\n")[:-1]
    hostile = hostile_lines(len(sentences))
    special = words.index("[CLS]"), words.index("[SEP]")
    runs, outputs, facts = {}, {}, {}
    for name, lower in (("lower-cased", True), ("cased", False)):
        encode = make(words, lower)
        runs[name] = lambda encode=encode: encode(sentences)
        begin = time.perf_counter()
        ids = encode(sentences)
        facts[name] = time.perf_counter() - begin
        outputs[f"{name}, sentences"] = sums(ids, special)
        outputs[f"{name}, hostile"] = sums(encode(hostile), special)
    return Prepared(runs, outputs, facts)


def arguments():
    parser = common.options(__doc__)
    parser.add_argument("--file", type=Path, help="text, one sentence a line")
    parser.add_argument("--vocab", type=Path, help="vocab.txt")
    parser.add_argument("--sentences", type=int, help="default: 20000, and less of smaller sizes")
    return parser


def measure(args) -> report.Report:
    count = args.sentences or {"full": 20000, "small": 5000, "toy": 200}[args.size]
    sentences = read_sentences(args.file, count) if args.file else chinese_sentences(count)
    texts, vocab = args.folder / "sentences.txt", args.vocab or args.folder / "tokenization-vocab.txt"
    texts.write_text("".join(f"{line}\n" for line in sentences), "utf-8")
    if not args.vocab:
        vocab.write_text("".join(f"{token}\n" for token in made_vocab()), "utf-8")
    peers = [peer for peer in PEERS if peer in args.against]
    found = contenders(peers, ["tensorflow"])
    jobs = compare.jobs_of("tests.benchmarks.tokenization:work", found, {"texts": str(texts), "vocab": str(vocab)})
    measured = compare.measure(jobs, args.repeats, {"": args.calls or 3}, keep=True)
    tables, wanted = [], []
    for run, figures in measured.figures.items():
        table = report.comparison(run, measured)
        table.title = f"{len(sentences)} texts of {np.mean([len(line) for line in sentences]):.0f} characters, {run}"
        tables.append(table)
        ours = measured.best(run, "bert4x")
        for names, least in WANTED.items() if ours else ():
            peers = [best for name in names.split(", ") if (best := measured.best(run, name))]
            ratio = min(peer.median for peer in peers) / ours.median if peers else None
            wanted.append((f"{run}: times as fast as the best of {names}", *report.verdict(ratio, least=least)))
        speeds = [
            (name, *(f"{len(sentences) / seconds:,.0f}" for seconds in (f.median, f.facts[run])))
            for name, f in figures.items()
        ]
        tables.append(report.Table("", ("", "texts a second", "the first time, with nothing remembered"), speeds))
    tables.append(report.wanted_rows(wanted))
    same = [
        f"{name}: ids differ in {', '.join(f'{share:.2%} of {what}' for what, share in apart.items())}"
        for name, apart in measured.apart.items()
    ]
    problems = [*compare.problems(measured, "tokenization", 1.0), *same]
    return report.Report("tokenization", f"Tokenizing ({args.size})", tables, report.bars(measured), problems=problems)


if __name__ == "__main__":
    common.main(arguments(), measure)
