"""The language of checkpoint tables: a rule ties variables of ours to tensors of a published layout, both ways.

A rule is written once and read in both directions. `{i}` stands for the layer number; `{a,b}` lists alternatives that
are taken in step on both sides (the first of ours with the first of theirs); `[a,b]` on our side gathers several
variables that are one tensor on theirs.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bert4x.checkpoints.layout import SAME, TRANSPOSED, Layout

__all__ = ["SAME", "TRANSPOSED", "Head", "Layout", "Rule", "Table"]
NUMBER = re.compile(r"\{i(:[^}]*)?\}")  # {i} or {i:02d}, but not {intermediate,output}


@dataclass(frozen=True)
class Rule:
    """`ours` and `theirs` name the same numbers; `layout` says how they lie."""

    ours: str
    theirs: str
    layout: Layout = SAME


@dataclass(frozen=True)
class Entry:
    """A rule for one layer and one alternative: variables of ours, and the tensor that holds them."""

    ours: tuple[str, ...]
    theirs: str
    layout: Layout


@dataclass(frozen=True)
class Head:
    """The head of a task in one layout.

    `variables` are those of the task's own head, (path, letters), with L for the number of labels; `rules` tie them to
    their tensors. `architecture` is what such config files call the model with this head, where they say it.
    `settings` are those of the task that such a head always means, or what gives one of a config; `labels` is the one
    that `id2label` spells, and `dropout` the key of the config that says its rate, and the rate where it is not there
    (None: the model's own). `pooler` are the rules of the model's pooler where files with this head name it otherwise;
    `names` are how those of the whole model begin elsewhere, and in such files.
    """

    task: str
    variables: tuple[tuple[str, str], ...]
    rules: tuple[Rule, ...]
    architecture: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    labels: str | None = None
    dropout: tuple[str | None, float | None] = (None, 0.0)
    pooler: tuple[Rule, ...] = ()
    names: tuple[str, str] | None = None

    def entries(self) -> list[Entry]:
        """All rules, written out."""
        return [
            Entry((ours,), theirs, rule.layout)
            for rule in self.rules
            for ours, theirs in alternatives(rule.ours, rule.theirs)
        ]


@dataclass(frozen=True)
class Table:
    """One checkpoint family in one layout.

    `aliases` are (pattern, replacement) pairs that bring old and alternative names to those of the rules. `ignored`
    are patterns of tensors that are no weights of the model (optimizer slots, buffers); they are reported, not loaded.
    `tied` names copies of the embedding table that must equal it. `sharded` layouts hold every tensor once per rank.
    `backbone` matches the names that only the model itself has: an unknown one of those is an error, not a stray head.
    `foreign` are patterns of models that look like this family and are not, each with what to tell the user. `heads`
    are those of tasks that the layout has room for; `architectures` are the classes of models without one, by the heads
    of the model itself that they have, the first that fits. `remnants` are patterns of tensors that published files
    hold, and that no model uses: converting may leave them behind. `lacks` are heads of the model itself that the
    layout has no room for. `fits` says of which configs it is the layout, where a format has several.
    """

    format: str
    family: str
    rules: tuple[Rule, ...]
    backbone: str
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    sharded: bool = False
    foreign: tuple[tuple[str, str], ...] = ()
    heads: tuple[Head, ...] = field(default=(), hash=False)
    architectures: tuple[tuple[frozenset[str], str], ...] = ()
    remnants: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    fits: Callable[[Any], bool] | None = None

    def entries(self, num_layers: int) -> list[Entry]:
        """All rules, written out."""
        return [
            Entry(tuple(gathered(ours)), theirs, rule.layout)
            for rule in self.rules
            for ours, theirs in expanded(rule.ours, rule.theirs, num_layers)
        ]

    def sized(self, config) -> "Table":
        """This table for the models of a config, of whose fields the layouts of some rules speak."""
        if not any(rule.layout.axes for rule in self.rules):
            return self

        def of_sizes(rule: Rule) -> Rule:
            sizes = tuple(getattr(config, size) if isinstance(size, str) else size for size in rule.layout.axes)
            return replace(rule, layout=replace(rule.layout, axes=sizes))

        return replace(self, rules=tuple(map(of_sizes, self.rules)))

    def of(
        self,
        family: str,
        names: tuple[str, str] | None = None,
        classes: tuple[str, str] | None = None,
        without: tuple[str, ...] = (),
        rules: tuple[Rule, ...] = (),
    ) -> "Table":
        """The table of a family whose tensors are named like these.

        Args:
            names: how the model's own names begin here and there, ("bert.", "nezha."); default: the same.
            classes: how the classes in config files begin, ("Bert", "Nezha").
            without: our layers that it lacks; a rule that names one of them is left out.
            rules: those of what it has beside these.
        """

        kept = (rule for rule in self.rules if not any(part in rule.ours for part in without))
        return replace(
            self,
            family=family,
            rules=(*(replace(rule, theirs=begun(rule.theirs, names)) for rule in kept), *rules),
            backbone=re.escape(names[1]) if names else self.backbone,
            foreign=(),
            heads=tuple(replace(head, architecture=begun(head.architecture, classes)) for head in self.heads),
            architectures=tuple((heads, begun(name, classes)) for heads, name in self.architectures),
        )

    def holding(self, head: Head | None) -> "Table":
        """This table for files with a head, by which their pooler may be named, or all of the model; a pooler of the
        usual name is a remnant.
        """
        if head is not None and head.names:
            return replace(self, rules=tuple(replace(r, theirs=begun(r.theirs, head.names)) for r in self.rules))
        if head is None or not head.pooler:
            return self
        ours = {rule.ours for rule in head.pooler}
        others = tuple(rule for rule in self.rules if rule.ours not in ours)
        usual = tuple(f"^{re.escape(rule.theirs)}$" for rule in self.rules if rule.ours in ours)
        return replace(self, rules=(*others, *head.pooler), ignored=(*self.ignored, *usual))

    @functools.cached_property
    def _alias_patterns(self):
        return [(re.compile(pattern), replacement) for pattern, replacement in self.aliases]

    def canonical_name(self, name: str) -> str:
        """The name under which the rules know a tensor."""
        for pattern, replacement in self._alias_patterns:
            name = pattern.sub(replacement, name)
        return name

    def is_ignored(self, name: str) -> bool:
        """Whether a tensor is known not to be a weight."""
        return any(re.search(pattern, name) for pattern in self.ignored)

    def is_remnant(self, name: str) -> bool:
        """Whether a tensor is known to be of no model."""
        return any(re.search(pattern, name) for pattern in self.remnants)


def begun(text: str | None, pair: tuple[str, str] | None) -> str | None:
    """A name that begins with the second of a pair where it began with the first."""
    return pair[1] + text.removeprefix(pair[0]) if text and pair and text.startswith(pair[0]) else text


def expanded(ours: str, theirs: str, num_layers: int) -> Iterator[tuple[str, str]]:
    """The pairs of names a rule stands for."""
    layered = NUMBER.search(ours) or NUMBER.search(theirs)
    for i in range(num_layers if layered else 1):
        yield from alternatives(numbered(ours, i), numbered(theirs, i))


def numbered(template: str, i: int) -> str:
    """`{i}` replaced by the number, `{i:02d}` by the number so formatted."""
    return NUMBER.sub(lambda match: format(i, (match[1] or ":d")[1:]), template)


def alternatives(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """The `{a,b}` of both sides, taken in step; where a side repeats a list, all combinations. Raises: ValueError"""
    left, right = (re.findall(r"\{([^}]*)\}", text) for text in (ours, theirs))
    if len(left) != len(right):
        raise ValueError(f"rule {ours!r} <-> {theirs!r} does not list the same alternatives on both sides")
    choices = [list(zip(a.split(","), b.split(","), strict=True)) for a, b in zip(left, right, strict=True)]
    for chosen in itertools.product(*choices):
        pair = ours, theirs
        for a, b in chosen:
            pair = re.sub(r"\{[^}]*\}", a, pair[0], count=1), re.sub(r"\{[^}]*\}", b, pair[1], count=1)
        yield pair


def gathered(ours: str) -> list[str]:
    """The variables of a `[a,b]` name."""
    match = re.search(r"\[([^\]]*)\]", ours)
    return [ours.replace(match[0], name) for name in match[1].split(",")] if match else [ours]
