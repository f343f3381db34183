"""Text files of any size, tokenized once into a memory-mapped cache of rows.

A row is a run of whole sentences of one document, at most `capacity - 3` tokens: room for [CLS] and up to two [SEP].
Capacities differ from row to row, so that short inputs and late positions are both trained.
"""

import array
import hashlib
import itertools
import json
import lzma
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert4x.errors import DataError, InputError
from bert4x.json_files import read_json

BUCKETS = (32, 64, 128, 256, 512)
# Probability that a row opens with each capacity. By tokens it favours 128, as BERT's own pretraining did.
CAPACITIES = (0.26, 0.27, 0.44, 0.02, 0.01)
ENDERS = "。！？；!?;…"
CLOSERS = "”’」』）》)"
PAUSES = "，、,：:"

Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class CorpusFile:
    """A text file, plain or `.xz`.

    An empty line ends a document. A `.tsv` file has one document a line, `title <tab> author <tab> text`.

    Args:
        weight: how often an epoch sees it.
        one_a_line: the file is a list of unrelated sentences, so each line is a document.
    """

    path: Path
    weight: float = 1.0
    one_a_line: bool = False

    @classmethod
    def parse(cls, text: str) -> "CorpusFile":
        """A source as the command line gives it: path[:weight][:lines]. Raises: InputError"""
        path, weight, lines = re.fullmatch(r"(.*?)(?::([0-9.]+))?(:lines)?", text, re.DOTALL).groups()
        try:
            return cls(Path(path), float(weight or 1), bool(lines))
        except ValueError as error:
            raise InputError(f"{text!r} gives the weight {weight!r}; expected path[:weight][:lines]") from error

    @property
    def name(self) -> str:
        """The file's name up to its first dot: the genre."""
        return self.path.name.split(".")[0]

    @property
    def paired(self) -> bool:
        """Whether its documents are `[title, text]`."""
        return ".tsv" in self.path.suffixes

    def open(self):
        """The file, opened for reading. Raises: InputError"""
        if not self.path.is_file():
            raise InputError(f"no text file at {self.path}; expected path[:weight][:lines]")
        if self.path.suffix == ".xz":
            return lzma.open(self.path, "rt", encoding="utf-8-sig")
        return self.path.open(encoding="utf-8-sig")

    def lines(self) -> Iterator[str]:
        """Its lines, without what ends them.

        Raises: DataError for a file that is no UTF-8, or damaged.
        """
        with self.open() as file:
            try:
                for line in file:
                    yield line.strip()
            except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
                raise DataError(f"{self.path} cannot be read: {error}; expected text in UTF-8") from error

    def held_out_from(self) -> int:
        """Index of the first line of the last 1% of the file: it and all after it are never trained on."""
        count = sum(1 for _ in self.lines())
        return count - -(-count // 100)

    def documents(self, start: int = 0, stop: int | None = None) -> Iterator[list[str]]:
        """The documents, as lists of paragraphs, of lines `start` to `stop`."""
        document: list[str] = []
        for line in itertools.islice(self.lines(), start, stop):
            if self.paired:
                title, _, text = [*line.split("\t"), "", ""][:3]
                if text:
                    yield [title, text]
            elif self.one_a_line and line:
                yield [line]
            elif line:
                document.append(line)
            elif document:
                yield document
                document = []
        if document:
            yield document

    def training_documents(self) -> Iterator[list[str]]:
        """All documents but those of the last 1%."""
        return self.documents(0, self.held_out_from())

    def held_out_documents(self) -> Iterator[list[str]]:
        """The documents of the last 1%."""
        return self.documents(self.held_out_from())


class Packer:
    """Packs the sentences of documents into rows.

    Args:
        tokens: the vocabulary, to know which ids end a sentence.
        pair: a document is `[title, text]`, and its first row keeps [SEP] between the two.
    """

    def __init__(self, tokens: Sequence[str], rng: np.random.Generator, *, pair: bool = False):
        ids = {token: i for i, token in enumerate(tokens)}
        self.enders = {ids[t] for t in ENDERS if t in ids}
        self.closers = {ids[t] for t in CLOSERS if t in ids}
        self.pauses = {ids[t] for t in PAUSES if t in ids}
        self.separator = ids["[SEP]"]
        self.rng = rng
        self.pair = pair

    def capacity(self) -> int:
        """Number of tokens, without the special ones, of the next row."""
        return int(self.rng.choice(BUCKETS, p=CAPACITIES)) - 3

    def sentences(self, ids: list[int]) -> Iterator[list[int]]:
        """Splits after sentence enders and the quotes that close them."""
        start, ended = 0, False
        for i, token in enumerate(ids):
            if ended and token not in self.closers and token not in self.enders:
                yield ids[start:i]
                start, ended = i, False
            ended = ended or token in self.enders
        if start < len(ids):
            yield ids[start:]

    def rows(self, paragraphs: list[list[int]]) -> Iterator[list[int]]:
        """Rows of one document, given as the ids of its paragraphs."""
        room: int = self.capacity()
        row: list[int] = []
        if self.pair:
            title, *paragraphs = paragraphs
            # Half of the texts go without their title: verse is met without one, too.
            if 0 < len(title) <= room // 3 and self.rng.random() < 0.5:
                row = [*title, self.separator]
                room += 1
        for sentence in (s for paragraph in paragraphs for s in self.sentences(paragraph)):
            while len(row) + len(sentence) > room:
                if not row:
                    cut = self.cut(sentence, room)
                    yield sentence[:cut]
                    sentence = sentence[cut:]
                elif row[-1] == self.separator:
                    cut = self.cut(sentence, room - len(row))
                    yield row + sentence[:cut]
                    sentence = sentence[cut:]
                else:
                    yield row
                room, row = self.capacity(), []
            row += sentence
        if row and row[-1] != self.separator:
            yield row

    def cut(self, sentence: list[int], room: int) -> int:
        """Where to cut a sentence that is too long: after the last pause that fits, else where the room ends."""
        pauses = [i + 1 for i in range(room // 2, room) if sentence[i] in self.pauses]
        return pauses[-1] if pauses else room


@dataclass(frozen=True)
class Rows:
    """Rows of one file: `ids` (total,) uint16 and `offsets` (rows + 1,) int64, both memory-mapped."""

    name: str
    weight: float
    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, the special ones not counted. Shape: (rows,)"""
        return np.diff(self.offsets)


def pack(documents: Iterator[list[str]], packer: Packer, encode: Encode, chunk: int = 4000) -> Iterator[list[int]]:
    """Rows of documents, of which `chunk` at a time are tokenized and in memory."""
    while group := list(itertools.islice(documents, chunk)):
        encoded = iter(encode([paragraph for document in group for paragraph in document]))
        for document in group:
            yield from packer.rows([next(encoded) for _ in document])


def cache_rows(
    source: CorpusFile, folder: str | os.PathLike, encode: Encode, tokens: Sequence[str], *, seed: int = 0
) -> Rows:
    """Tokenizes all but the last 1% of a file into `folder`, or maps what an earlier call left there.

    Args:
        encode: texts to ids, without special tokens.
        tokens: the vocabulary; at most 65536 entries.

    Raises:
        InputError: the vocabulary does not fit uint16, or the cache was made with other settings.
    """
    if len(tokens) > 1 << 16:
        raise InputError(f"{len(tokens)} tokens do not fit the 16-bit cache; use a vocabulary of at most 65536")
    folder = Path(folder)
    ids, offsets, index = (folder / f"{source.name}.{end}" for end in ("ids", "npy", "json"))
    settings = {
        "bytes": source.path.stat().st_size if source.path.exists() else 0,
        "one_a_line": source.one_a_line,
        "seed": seed,
        "vocabulary": hashlib.sha256("\n".join(tokens).encode()).hexdigest(),
        "capacities": list(CAPACITIES),
    }
    if not index.exists():
        folder.mkdir(parents=True, exist_ok=True)
        packer = Packer(tokens, np.random.default_rng(seed), pair=source.paired)
        lengths = array.array("i")
        with ids.open("wb") as file:
            for row in pack(source.training_documents(), packer, encode):
                np.asarray(row, np.uint16).tofile(file)
                lengths.append(len(row))
        np.save(offsets, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        index.write_text(json.dumps(settings))  # last: an interrupted run leaves no index, and starts over
    if read_json(index) != settings:
        raise InputError(f"{index} was made from another file, vocabulary or setting; delete {folder} or name another")
    try:
        values = np.memmap(ids, np.uint16, "r") if ids.stat().st_size else np.zeros(0, np.uint16)
        starts = np.load(offsets, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{offsets} or {ids.name} is damaged ({error}); delete {folder}") from error
    if starts.ndim != 1 or starts[-1] != len(values):
        raise InputError(f"{ids} holds {len(values)} ids, not those that {offsets.name} says; delete {folder}")
    return Rows(source.name, source.weight, values, starts)
