"""Speed and memory, ours beside those of other libraries.

    python -m tests.benchmarks [CASE ...] [--size toy|small|full] [--against transformers keras-hub bert4keras ...]
                               [--backend tensorflow jax torch] [--device cpu|gpu] [--out FOLDER] [...]

Without a case, all of them. `python -m tests.benchmarks CASE --help` says what one does and its own options. Every
contender is a process of its own; they take turns, A B C A B C. Peers that are not installed are skipped;
`python -m tests.benchmarks.peers` gives each an environment. In --out each case leaves CASE.md, CASE.json and CASE.svg.
"""

import importlib
import sys

from tests.benchmarks import common

CASES = (
    "inference",
    "training",
    "epoch",
    "generation",
    "start",
    "loading",
    "conversion",
    "tokenization",
    "embedding",
    "pipelines",
    "growth",
    "local-attention",
    "cpm",
    "serving",
    "exported",
)


def main(arguments: list[str]) -> None:
    """Runs the cases that come first among the arguments; the rest are options of each of them."""
    first = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names, options = arguments[:first], arguments[first:]
    if not names and {"-h", "--help"} & set(options):
        print(__doc__, "\ncases:", ", ".join(CASES))
        return
    unknown = [name for name in names if name not in CASES]
    if unknown:
        sys.exit(f"no case {unknown[0]!r}; expected some of {', '.join(CASES)}")
    for name in names or CASES:
        case = importlib.import_module(f"tests.benchmarks.{name.replace('-', '_')}")
        common.main(case.arguments(), case.measure, options)


if __name__ == "__main__":
    main(sys.argv[1:])
