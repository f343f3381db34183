"""Whose attribute the model is: the prefix that a wrapper puts before the names of a family's tensors.

A model inside another is named after the attribute that holds it: `module.`, `_orig_mod.`, `model.bert.`, `net.`,
`0.auto_model.`; in TensorFlow after its scope. No list of such names would ever be complete, so there is none: what
stands before names that only the family has is the prefix.
"""

import functools
import re
from dataclasses import dataclass

from bert4x.checkpoints.checkpoint import same_values
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.tensors import Tensors
from bert4x.errors import TensorMismatchError
from bert4x.families import family_of

# What wrappers of single layers leave amid the names: torch.compile, FSDP, activation checkpointing, DeepSpeed.
INSERTED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
EMA = "/ExponentialMovingAverage"  # TensorFlow's moving averages; used where a file has nothing else


@dataclass(frozen=True)
class Known:
    """The names of a table, every number in them written as #.

    `root` stands before those of the model itself ("bert."); `inner` are these without it, and
    `first` their first parts; `heads` are the others. A whole model has the `token` embedding and some of `blocks`;
    `always` are the inner names that none lacks.
    """

    separator: str
    root: str
    inner: frozenset[str]
    first: frozenset[str]
    heads: frozenset[str]
    token: str
    blocks: frozenset[str]
    always: frozenset[str]


DEEPEST = 16  # parts of the longest inner name of any table, and more


@functools.cache
def known(table: Table) -> Known:
    """What to look for in the names of a checkpoint."""
    separator = "/" if table.format == "tf1" else "."
    entries = [(entry.ours, unnumbered(entry.theirs)) for entry in table.entries(1)]
    token = next(name for ours, name in entries if ours == ("Embedding-Token/embeddings",))
    root = token.partition(separator)[0] + separator
    if not any(name.startswith(root) for ours, name in entries if "Transformer-" in ours[0]):
        root = ""  # embeddings and blocks have no word in common
    inner = {name.removeprefix(root): ours for ours, name in entries if name.startswith(root)}
    heads = {name for _, name in entries if not name.startswith(root)}
    family = family_of(table.family)
    optional = tuple(map(re.compile, family.absent))
    always = {
        path
        for path, _, head in family.variables
        if head is None and not any(pattern.match(path) for pattern in optional)
    }
    of_tasks = {entry.theirs for head in table.heads for entry in head.entries()}
    of_tasks |= {rule.theirs for head in table.heads for rule in head.pooler}
    return Known(
        separator,
        root,
        frozenset(inner),
        frozenset(name.partition(separator)[0] for name in inner),
        frozenset(heads | of_tasks | set(table.tied)),
        token.removeprefix(root),
        frozenset(name for name, ours in inner.items() if "Transformer-" in ours[0]),
        frozenset(name for name, ours in inner.items() if ours[0].replace("-0-", "-{i}-") in always),
    )


@functools.lru_cache(1 << 15)  # each table asks anew for the parts of all names
def unnumbered(name: str) -> str:
    """A name with # for every number, as `known` writes names."""
    return re.sub(r"\d+", "#", name)


@functools.lru_cache(1 << 15)
def uninserted(name: str) -> str:
    """A name without what wrappers of layers leave amid it."""
    return INSERTED.sub("", name)


@functools.lru_cache(1 << 15)
def endings(name: str, separator: str) -> tuple[str, ...]:
    """A name with # for every number, and what is left of it without its first part, its first two ..."""
    parts = unnumbered(name).split(separator)
    return tuple(separator.join(parts[start:]) for start in range(max(0, len(parts) - DEEPEST), len(parts)))


def is_rooted(table: Table, tensors: Tensors) -> bool:
    """Whether some names of a checkpoint begin with a family's own word, where it has one, behind whatever prefix."""
    look = known(table)
    return look.root != "" and any(look.separator + look.root in look.separator + name for name in tensors)


def known_names(table: Table, tensors: Tensors) -> int:
    """How many tensors of a checkpoint a table knows, whatever stands before their names."""
    if table.sharded:  # no wrapper is known there; names begin with the rank
        rules = {unnumbered(entry.theirs) for entry in table.entries(1)}
        return sum(unnumbered(table.canonical_name(name.partition("/")[2])) in rules for name in tensors)
    _, models = found_models(table, tensors)
    return max((len(names) for names in models.values()), default=0)


def lacking(table: Table, tensors: Tensors) -> int:
    """How many names that a table's model always has, numbers aside, no tensor of a checkpoint has."""
    models = found_models(table, tensors)[1].values()
    return len(known(table).always - set(map(unnumbered, max(models, key=len, default=()))))


def holds_model(table: Table, tensors: Tensors) -> bool:
    """Whether a whole model of a table is among the tensors of a checkpoint, whatever stands before their names."""
    if table.sharded:
        return known_names(table, tensors) > 2
    return bool(whole_models(table, found_models(table, tensors)[1]))


def whole_models(table: Table, models: dict[str, dict[str, str]]) -> list[str]:
    """The prefixes under which a whole model lies."""
    look, inner = known(table), {prefix: set(map(unnumbered, names)) for prefix, names in models.items()}
    return [prefix for prefix, names in inner.items() if look.token in names and names & look.blocks]


def unwrapped(table: Table, tensors: Tensors, where) -> dict[str, str]:
    """Name in the file -> the name by which a table may know it, without what wrappers put before it.

    Raises: TensorMismatchError when there are two models, under two prefixes.
    """
    if table.sharded:
        return {name: name for name in tensors}
    plain, models = found_models(table, tensors)
    whole = whole_models(table, models)
    prefixes = sorted(whole or models, key=lambda prefix: -len(models[prefix]))
    for other in whole:
        if not same_model(models[prefixes[0]], models[other], tensors):
            first, second = (repr(prefix) for prefix in sorted((prefixes[0], other)))
            raise TensorMismatchError(
                f"{where} holds two models: the names of one begin with {first}, of the other with {second}. "
                "Save the weights of the one that is meant in a file of their own, without the other's"
            )
    return {name: renamed(table, whole or prefixes[:1], cleaned) for name, cleaned in plain.items()}


def found_models(table: Table, tensors: Tensors) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The names without what wrappers of layers left amid them, and prefix -> inner name -> name in the file."""
    plain, models, look = {}, {}, known(table)
    for name in tensors:
        plain[name] = uninserted(name)
        if name.removesuffix(EMA) not in tensors:
            plain[name] = name.removesuffix(EMA)
        prefix, inner = divided(look, table.canonical_name(plain[name]))
        if inner:
            models.setdefault(prefix, {}).setdefault(inner, name)
    return plain, models


def divided(look: Known, name: str) -> tuple[str, str]:
    """A name as prefix and inner name; the latter is empty for one that the model does not have."""
    ends = endings(name, look.separator)
    if look.inner.isdisjoint(ends):
        return "", ""
    size = len(next(end for end in ends if end in look.inner).split(look.separator))
    inner = look.separator.join(name.rsplit(look.separator, size)[-size:])
    return name.removesuffix(inner), inner


def renamed(table: Table, prefixes: list[str], name: str) -> str:
    """A name as the table spells it: the root instead of the prefix. Heads lie beside the model, or further out."""
    look = known(table)
    for prefix in prefixes:
        rest = name.removeprefix(prefix)
        rooted = f"{look.separator}{prefix}".endswith(look.separator + look.root)
        if name.startswith(prefix) and (rooted or unnumbered(rest.partition(look.separator)[0]) in look.first):
            return look.root + rest
    for prefix in (*prefixes, ""):
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and unnumbered(table.canonical_name(rest)) in look.inner:
            return look.root + rest
    for prefix in prefixes:
        parts = prefix.split(look.separator)[:-1]
        for size in range(len(parts), -1, -1):
            outer = "".join(part + look.separator for part in parts[:size])
            rest = name.removeprefix(outer)
            if name.startswith(outer) and unnumbered(table.canonical_name(rest)) in look.heads:
                return rest
    return name


def same_model(first: dict[str, str], second: dict[str, str], tensors: Tensors) -> bool:
    """Whether two sets of names, by inner name, are of the same tensors: one module saved under two attributes."""
    return first.keys() == second.keys() and all(
        first[name] == second[name] or same_values(tensors[first[name]], tensors[second[name]]) for name in first
    )
