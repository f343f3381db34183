"""Find the words of a language from nothing but its texts (kexue.fm/archives/5476, 6920).

Two characters belong together if they meet far more often than chance has it: c(ab) N / (c(a) c(b)) is large. A text is
cut wherever no n-gram of characters that belong together reaches over; what stands between cuts, often enough and solid
all through, is a word.

    python recipes/from_scratch/word_discovery.py
    python recipes/from_scratch/word_discovery.py --data novel.txt.xz law.txt.xz prose.txt.xz --output runs/words
    python recipes/from_scratch/word_discovery.py --data novel.txt.xz --min-count 16 --min-pmi 2 4 6

Files are text or .xz, of any size. In the output folder: words.tsv, `word <tab> count`. Where jieba is installed, its
words are compared: how many of the cuts between characters are the same.
"""

import lzma
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bert4x import recipe
from bert4x.checkpoints.tensors import atomic_write
from bert4x.tokenizers.word_discovery import CHARACTERS, WordDiscovery

TOY = Path(__file__).parents[1] / "data/toy_text.txt"


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {"min_count": 2, "min_pmi": (1.0, 2.0, 3.0), "sample": 50}

    data: tuple[str, ...] = recipe.option((), "files of text, also .xz; default: toy text")
    output: Path = recipe.option(Path("runs/words"), "folder of words.tsv")
    min_count: int = recipe.option(32, "how often an n-gram, and a word, has to occur", least=1)
    min_pmi: tuple[float, ...] = recipe.option((2.0, 4.0, 6.0), "of n-grams of 2, 3 and 4 characters, in nats")
    sample: int = recipe.option(2000, "lines on which cuts are compared with jieba's", least=1)
    smoke: bool = recipe.option(False, "toy text: does it run?")


def lines(files):
    """The lines of all files, one after the other: no file is in memory as a whole."""
    for file in files:
        with (lzma.open if file.endswith(".xz") else open)(file, "rt", encoding="utf-8") as text:
            yield from text


def agreement(discovery, texts):
    """Precision, recall and F1 of cuts within runs of characters, beside jieba's; None without jieba."""
    try:
        import jieba
    except ImportError:
        return None
    jieba.setLogLevel("WARNING")

    def cuts(words):
        ends, place = set(), 0
        for word in words:
            place += len(word)
            ends.add(place)
        return ends

    both = ours = theirs = 0
    for text in texts:
        within = {i for i in range(1, len(text)) if CHARACTERS.match(text[i - 1]) and CHARACTERS.match(text[i])}
        found, true = cuts(discovery.cut(text)) & within, cuts(jieba.cut(text)) & within
        both, ours, theirs = both + len(found & true), ours + len(found), theirs + len(true)
    return both / max(ours, 1), both / max(theirs, 1), 2 * both / max(ours + theirs, 1)


def main(args):
    files, began = list(args.data) or [str(TOY)], time.monotonic()

    # 1. How often each n-gram of up to four characters occurs, and which of them are solid.
    discovery = WordDiscovery(args.min_count, args.min_pmi).fit(lines(files))
    print("solid n-grams of 2, 3, 4 characters:", ", ".join(f"{len(solid):,}" for solid in discovery.solid))

    # 2. Words: what stands between two cuts, often enough.
    words = discovery.words(lines(files))
    with atomic_write(args.output / "words.tsv") as path:
        path.write_text("".join(f"{word}\t{count}\n" for word, count in words.items()), "utf-8")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(words):,} words in {time.monotonic() - began:.0f} s, {memory:.2f} GB at most: {args.output}/words.tsv")

    # 3. What they look like, by length.
    for length in (2, 3, 4, 5, 6):
        some = [word for word in words if len(word) == length][:12]
        print(f"{length} characters: {' '.join(some)}")

    # 4. Beside a segmenter that has a dictionary.
    texts = [line.strip() for line, _ in zip(lines(files), range(args.sample), strict=False) if line.strip()]
    if scores := agreement(discovery, texts):
        print("cuts beside jieba's: precision {:.3f}, recall {:.3f}, F1 {:.3f}".format(*scores))
    for text in texts[:3]:
        print(" | ".join(discovery.cut(text[:60])))
    return words


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
