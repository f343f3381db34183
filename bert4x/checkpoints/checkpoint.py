"""An opened checkpoint: which family it is, what it holds, what is wrong with it, and our variables read from it."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bert4x.checkpoints.files import Files, places
from bert4x.checkpoints.heads import HeldHead, own_head, published_head
from bert4x.checkpoints.identity_layers import POOLER
from bert4x.checkpoints.spec import Entry, Table
from bert4x.checkpoints.tables import most_layers, variables
from bert4x.checkpoints.tensors import LazyTensor, Tensors, contiguous, is_floating
from bert4x.config import TransformerConfig
from bert4x.errors import TensorMismatchError

TOOLKITS = {"paddle": "PaddleNLP", "uer": "UER", "gguf": "llama.cpp"}
VOCABULARY = re.compile(r"vocab|^tokenizer\.json$|\.model$|^encoder\.json$")


@dataclass
class Report:
    """What of a checkpoint does not fit its family. The first four are errors, unless one loads with strict=False."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    absent_heads: list[str] = field(default_factory=list)  # published without: fine unless one asks for them
    stray: list[str] = field(default_factory=list)  # not of the model itself: heads of tasks
    unknown: list[str] = field(default_factory=list)  # those of them that are of no head known here
    ignored: list[str] = field(default_factory=list)  # optimizer slots, buffers
    unfilled: list[str] = field(default_factory=list)  # variables of a model that it could not fill
    head: HeldHead | None = None  # of a task, beside the model
    head_in_use: bool = False  # whether a task took it, or it was said that none did
    layout: str = ""  # of a toolkit, by whose names the tensors were looked for

    @property
    def problems(self) -> list[str]:
        """All errors, one line each."""
        return [*self.missing, *self.unexpected, *self.misshapen, *self.duplicate]

    def raise_for_problems(self, where) -> None:
        """Raises: TensorMismatchError naming the first of them."""
        if self.problems:
            shown = "\n  ".join(self.problems[:8])
            more = f"\n  ... and {len(self.problems) - 8} more" if len(self.problems) > 8 else ""
            layout = f", by the names of {self.layout}" if self.layout else ""
            raise TensorMismatchError(
                f"{where} does not hold what its config says{layout}:\n  {shown}{more}\n"
                "Check the config beside the weights, or load with strict=False to get a report instead."
            )


class Checkpoint:
    """A checkpoint of a known family, opened but not read.

    `variables` maps each of our variable paths that it holds to (shape, dtype); `read(path)` gives the values. `head`
    is that of a task, where there is one; `architectures` are the classes that the config file names.
    """

    def __init__(
        self,
        files: Files,
        table: Table,
        config: TransformerConfig,
        tensors: Tensors,
        names: dict[str, str] | None = None,
        architectures: Sequence[str] = (),
    ):
        """`names` maps the names of the tensors to those without what wrappers put before them."""
        self.files, self.config, self.tensors, self.architectures = files, config, tensors, tuple(architectures)
        self.names: dict[str, str] = names or {}
        held = self.names.values()
        with_pooler = (head for head in table.heads if head.pooler)
        self.table = table.sized(config).holding(
            next((head for head in with_pooler if all(rule.theirs in held for rule in head.pooler)), None)
        )
        self.ranks = 1 + max((int(name.split("/")[0]) for name in tensors), default=0) if table.sharded else 1
        self.report = Report(layout=TOOLKITS.get(table.format, ""))
        self.renamed = self._rename()
        self.shapes = variables(config)
        self.entries: dict[str, Entry] = {}
        self._unasked: dict[str, np.ndarray] = {}
        left = self._bind()
        self.head = self.report.head = self._find_head(left, architectures)
        known = self.head.names if self.head else ()
        self.report.unknown = [name for name in self.report.stray if name not in known and not table.is_remnant(name)]

    @property
    def format(self) -> str:
        """hf, tf1, megatron, keras or bert4x."""
        return self.table.format

    @property
    def folder(self) -> Path:
        """Where the vocabulary lies: beside the weights, or where their layout keeps it."""
        held = (p for p in places(self.files.folder) if any(VOCABULARY.search(child.name) for child in p.iterdir()))
        return next(held, self.files.folder)

    def _rename(self) -> dict[str, LazyTensor]:
        """The tensors by the names the rules use; what is no weight goes to the report."""
        renamed, originals = {}, {}
        for name, tensor in self.tensors.items():
            unwrapped = self.names.get(name, name)
            if self.table.is_ignored(unwrapped):
                self.report.ignored.append(name)
                continue
            known = self.table.canonical_name(unwrapped)
            if known in renamed and not same_values(renamed[known], tensor):
                self.report.duplicate.append(f"{originals[known]!r} and {name!r} are one tensor, but differ")
            renamed.setdefault(known, tensor)
            originals.setdefault(known, name)
        return renamed

    def _find_head(self, left: dict[str, LazyTensor], architectures: Sequence[str]) -> HeldHead | None:
        if self.format == "bert4x":
            return own_head(self.folder, left)
        pooler = {path: from_variable(self, path) for path in POOLER if path in self.entries}
        return published_head(self.table, left, self.config, architectures, pooler)

    def _bind(self) -> dict[str, LazyTensor]:
        """Ties variables to tensors; returns the tensors that are of none."""
        shapes = self.shapes
        left = dict(self.renamed)
        for entry in self.table.entries(most_layers(self.config)):
            ours = [shapes[path][0] for path in entry.ours if path in shapes]
            if len(ours) != len(entry.ours):
                continue
            names = self._names(entry)
            found = [left.pop(name, None) for name in names]
            if None in found:
                self._note_missing(entry, names, found, shapes)
                continue
            if not entry.layout.divides(ours, self.ranks):
                self.report.misshapen.append(f"{entry.theirs}: {ours} cannot be divided over {self.ranks} ranks")
                continue
            expected = entry.layout.shape(ours, self.ranks)
            wrong = [f"{t.name}: shape {t.shape}, but the config says {expected}" for t in found if t.shape != expected]
            if wrong:
                self.report.misshapen += wrong
                continue
            if not is_floating(found[0].dtype):
                self.report.misshapen.append(f"{names[0]}: {found[0].dtype}, but weights are floating-point numbers")
                continue
            self.entries.update(dict.fromkeys(entry.ours, entry))
        self._check_heads(shapes)
        for name in self.tied:
            left.pop(name, None)
        for name in left:
            if name.rpartition("/")[0] in self.renamed:  # an optimizer's slot is named after its variable
                self.report.ignored.append(name)
                continue
            ours = self._is_backbone(name)
            (self.report.unexpected if ours else self.report.stray).append(f"{name}: unexpected" if ours else name)
        return left

    def _names(self, entry: Entry) -> list[str]:
        return [f"{rank}/{entry.theirs}" for rank in range(self.ranks)] if self.table.sharded else [entry.theirs]

    def _note_missing(self, entry, names, found, shapes) -> None:
        head = shapes[entry.ours[0]][1]
        for name, tensor in zip(names, found, strict=True):
            if tensor is None:
                expected = entry.layout.shape([shapes[path][0] for path in entry.ours], self.ranks)
                line = f"{name}: missing; expected shape {expected}"
                (self.report.missing if head is None else self.report.absent_heads).append(line)

    def _check_heads(self, shapes) -> None:
        """A head that is there in part is an error; one that is not there at all was not published."""
        for head in {head for _, head in shapes.values() if head}:
            paths = [path for path, (_, of) in shapes.items() if of == head]
            present = [path for path in paths if path in self.entries]
            names = {self.table_name(path) for path in paths if path not in self.entries}
            if present and len(present) < len(paths):
                lines = [line for line in self.report.absent_heads if line.split(":")[0] in names]
                self.report.missing += lines
                self.report.absent_heads = [line for line in self.report.absent_heads if line not in lines]

    def table_name(self, path: str) -> str | None:
        """The name in this layout of one of our variables."""
        for entry in self.table.entries(most_layers(self.config)):
            if path in entry.ours:
                return entry.theirs
        return None

    @property
    def tied(self) -> list[str]:
        """The tensors that are copies of the embedding table, as the output layer of a model of this config is it."""
        own = {entry.theirs for entry in self.entries.values()}
        return [name for name in self.table.tied if name not in own]

    def _is_backbone(self, name: str) -> bool:
        """Whether a left-over tensor claims to be part of the model itself, rather than of some task's head."""
        name = name.split("/", 1)[1] if self.table.sharded else name
        return re.match(self.table.backbone, name) is not None

    @functools.cached_property
    def variables(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of our variables that are there, in the order of the model."""
        return {path: self.variable(path) for path in self.shapes if path in self.entries}

    def variable(self, path: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of one of our variables."""
        return self.shapes[path][0], self.renamed[self._names(self.entries[path])[0]].dtype

    def read(self, path: str) -> np.ndarray:
        """The values of one of our variables, of its shape; may be a view of something larger."""
        if path not in self._unasked:  # of a tensor that holds several variables, the others are asked for soon
            entry = self.entries[path]
            theirs = [self.renamed[name].read() for name in self._names(entry)]
            ours = entry.layout.load(theirs, [self.shapes[name][0] for name in entry.ours])
            self._unasked.update(zip(entry.ours, ours, strict=True))
        return self._unasked.pop(path)

    def part(self, path: str, index: tuple[slice, ...]) -> np.ndarray:
        """Some of one of our variables, a slice with bounds for each axis; reads no more of the files than it must."""
        entry = self.entries[path]
        theirs = [self.renamed[name] for name in self._names(entry)]
        return entry.layout.part(theirs, [self.shapes[name][0] for name in entry.ours], entry.ours.index(path), index)

    def verify(self) -> int:
        """Checks every tensor against the checksum its format carries; returns how many had one.

        Raises: CorruptFileError
        """
        return sum(bool(tensor.verify()) for tensor in self.tensors.values())

    def check_tied(self) -> None:
        """Raises: TensorMismatchError when a copy of the embedding table is not a copy."""
        for name in self.tied:
            if name in self.renamed and "Embedding-Token/embeddings" in self.entries:
                table = self.renamed[self._names(self.entries["Embedding-Token/embeddings"])[0]]
                if not same_values(self.renamed[name], table):
                    raise TensorMismatchError(
                        f"{name} differs from the embedding table. By its config, this model has one matrix for both; "
                        "the checkpoint was trained with separate ones and would give other outputs."
                    )


def from_variable(checkpoint: Checkpoint, path: str) -> LazyTensor:
    """One of our variables of a checkpoint as a tensor."""
    return LazyTensor(path, *checkpoint.variable(path), lambda: checkpoint.read(path))


def same_values(a: LazyTensor, b: LazyTensor) -> bool:
    """Whether two tensors hold the same bits. Shape: any, any"""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(bits(a.read()), bits(b.read()))


def bits(array: np.ndarray) -> np.ndarray:
    """The same memory as unsigned integers, so that NaN equals NaN and -0 is not 0. Shape: any -> the same"""
    return contiguous(array).view(f"u{array.dtype.itemsize}")
