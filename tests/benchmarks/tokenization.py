"""Speed and equality of bert4x's WordPiece tokenizer against transformers' fast tokenizer.

    python -m tests.benchmarks.tokenization [--file TEXT] [--vocab VOCAB] [--sentences 20000] [--repeats 5] [--out JSON]

Without --file it makes Chinese sentences of its own, and without --vocab a vocabulary of Chinese BERT's size. Both
tokenizers turn the same list of texts into lists of token and segment ids, alternately, in one process. The ids are
compared on these sentences and on as many lines of hostile text. --file is .txt, .tsv (its first column is taken), or
.xz of these.
"""

import argparse
import importlib.metadata
import json
import lzma
import os
import platform
import statistics
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from text_samples import chinese_sentences, hostile_lines, made_vocab  # noqa: E402

from bert4x.tokenizers import Tokenizer, load_vocab  # noqa: E402


def read_sentences(path: Path, count: int) -> list[str]:
    """The first `count` lines that are not empty; of a .tsv their first column."""
    name = path.name.removesuffix(".xz")
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        lines = (line.rstrip("\n").split("\t")[0] if name.endswith(".tsv") else line.rstrip("\n") for line in file)
        return [line for line, _ in zip((line for line in lines if line.strip()), range(count), strict=False)]


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def seconds_of(function) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def transformers_tokenizer(vocab: dict[str, int], do_lower_case: bool):
    """transformers' BertTokenizerFast over this vocabulary, or None when it is not installed."""
    try:
        from transformers import BertTokenizerFast
    except ImportError:
        return None
    return BertTokenizerFast(vocab=vocab, do_lower_case=do_lower_case)


def compare(sentences: list[str], vocab: dict[str, int], repeats: int) -> dict:
    """Median sentences per second of both, their ratio, and how many lines have equal ids, cased and lower-cased."""
    report = {"sentences": len(sentences), "mean_length": round(statistics.mean(map(len, sentences)), 1)}
    hostile = hostile_lines(len(sentences))
    for lower in (True, False):
        ours, theirs = Tokenizer(vocab, do_lower_case=lower), transformers_tokenizer(vocab, lower)
        runs = {"bert4x": lambda ours=ours: ours.encode_batch(sentences)}
        if theirs is not None:
            runs["transformers"] = lambda theirs=theirs: theirs(sentences)
        first = seconds_of(runs["bert4x"])  # with nothing remembered
        times = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                times[name].append(seconds_of(run))
        result = {f"{name}_per_second": round(len(sentences) / statistics.median(t)) for name, t in times.items()}
        result["bert4x_first_call_per_second"] = round(len(sentences) / first)
        if theirs is not None:
            result["ratio"] = round(statistics.median(times["transformers"]) / statistics.median(times["bert4x"]), 2)
            for name, lines in (("sentences", sentences), ("hostile", hostile)):
                pairs = zip(ours.encode_batch(lines)[0], theirs(lines)["input_ids"], strict=True)
                result[f"{name}_equal"] = f"{sum(a == b for a, b in pairs)}/{len(lines)}"
        report["lower-cased" if lower else "cased"] = result
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="text, one sentence a line")
    parser.add_argument("--vocab", type=Path, help="vocab.txt")
    parser.add_argument("--sentences", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the report here, as JSON")
    args = parser.parse_args()
    sentences = read_sentences(args.file, args.sentences) if args.file else chinese_sentences(args.sentences)
    vocab = load_vocab(args.vocab) if args.vocab else {token: i for i, token in enumerate(made_vocab())}
    report = {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()}
    for package in ("tokenizers", "transformers"):
        try:
            report[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            report[package] = None
    report |= compare(sentences, vocab, args.repeats)
    text = json.dumps(report, ensure_ascii=False, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
