"""Which family a checkpoint is of: by the names of its tensors, and where they fit several, by its config."""

import re
from collections.abc import Collection
from dataclasses import replace

from bert4x.checkpoints.config_file import Said
from bert4x.checkpoints.files import Files
from bert4x.checkpoints.others import ALTERED, HOLLOW, OBJECTS, OTHERS
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.tables import published, writer
from bert4x.checkpoints.tensors import Tensors
from bert4x.checkpoints.wrappers import holds_model, is_rooted, known_names, lacking, unnumbered
from bert4x.config import TransformerConfig
from bert4x.errors import UnknownFormatError
from bert4x.families import families, family_name, family_of

# The layouts whose tensors a container may hold.
FORMATS = {"safetensors": ("hf",), "torch": ("hf", "uer"), "tf1": ("tf1",), "megatron": ("megatron", "megatron-lm")}
FORMATS |= {"paddle": ("paddle",), "hdf5": ("hf",), "flax": ("hf",), "gguf": ("gguf",)}
FEWEST = 3  # names that are no accident
NO_NAME = ("architectures", "library")  # labels of config files that name no family


def recognise(files: Files, tensors: Tensors, said: Said, model=None) -> Table:
    """The table of the family whose names the tensors have. Where they fit several families, the config decides, then
    `model`, then the word with which names begin, then which family has all of its tensors there.

    Raises: UnknownFormatError when no family fits, several do, or a known but different model is recognised.
    """
    tables = [table for table in published() if table.format in FORMATS.get(files.container, ())]
    named = misnamed_families(said, tables, tensors) or named_families(said)
    refuse(files, tensors, [table for table in tables if not named or table.family in named])
    scores = {table: known_names(table, tensors) for table in tables}
    best = max(scores.values(), default=0)
    if best < FEWEST:
        raise UnknownFormatError(unknown(files, tensors, said))
    tables = sorted(tables, key=scores.get)  # of several of a family the last, which knows most
    fitting = {table.family: table for table in tables if table.family in named and holds_model(table, tensors)}
    fitting = fitting or {table.family: table for table in reversed(published()) if scores.get(table) == best}
    looks = (rooted(fitting, tensors), most_whole(fitting, tensors), plainest(fitting)) if len(fitting) > 1 else ()
    table = fitting[decided(fitting, files, named, asked_for(model), *looks)]
    if table.format == "hf" and known_names(table, {name: t for name, t in tensors.items() if t.shape == (0,)}):
        raise UnknownFormatError(f"{files.path}: {HOLLOW}")
    return table


def rooted(fitting: dict[str, Table], tensors: Tensors) -> set[str]:
    """The families with whose own word some names begin, not with that of another family."""
    return {family for family, table in fitting.items() if is_rooted(table, tensors)}


def most_whole(fitting: dict[str, Table], tensors: Tensors) -> set[str]:
    """The families of which the fewest tensors are missing."""
    absent = {family: lacking(table, tensors) for family, table in fitting.items()}
    return {family for family in absent if absent[family] == min(absent.values())}


def plainest(fitting: Collection[str]) -> set[str]:
    """The families that are no variation of another of them, with variables beside it of which none are here."""
    return {name for name in fitting if not any(varies(family_of(name), family_of(other)) for other in fitting)}


def varies(family, other) -> bool:
    """Whether a family is another one with other variables."""
    return issubclass(family, other) and family.variables != other.variables


def own_family(files: Files, layers: Collection[str], said: dict, model=None) -> str:
    """The family whose layers, by our names, are among these, for weights beside a published config."""
    theirs, held = set(map(unnumbered, layers)), {}
    for name, family in families().items():
        if writer(name).styles:
            ours, always = (
                {unnumbered(path.partition("/")[0].replace("{i}", "0")) for path, _, head in rows}
                for rows in (family.variables, [row for row in family.variables if row[2] is None])
            )
            held[name] = len(ours & theirs), -len(always - theirs)
    fitting = [name for name in held if held[name] == max(held.values())]
    named = named_families(said)
    if not named.intersection(fitting):
        fitting = [name for name in fitting if not family_of(name).written_as] or fitting
    return decided(fitting, files, named, asked_for(model), plainest(fitting))


def asked_for(model) -> set[str]:
    """The family of a model that the user named."""
    return set() if model is None else {family_name(family_of(model))}


def decided(fitting: Collection[str], files: Files, *preferred: set[str]) -> str:
    """The one of several families that is left when each set of preferred ones, in turn, rules out the others.

    Raises: UnknownFormatError naming all that are left.
    """
    for some in preferred:
        if len(fitting) > 1:
            fitting = [name for name in fitting if name in some] or fitting
    if len(fitting) == 1:
        return next(iter(fitting))
    names = sorted(fitting)
    raise UnknownFormatError(
        f"{files.path}: its tensors have the names of {' and of '.join(names)}, and no config says which it is; "
        f"say it, with {' or '.join(f'model={name!r}' for name in names)}"
    )


def named_families(said: Said) -> set[str]:
    """The families that a config names: by what the files of a family always say."""
    if said is None or isinstance(said, TransformerConfig):
        return {said.model} if said else set()
    found = set()
    for name in families():
        for style in writer(name).styles.values():
            labels = {key: value for key, value in style.labels.items() if key not in NO_NAME and "." not in key}
            if labels and all(said.get(key) == value for key, value in labels.items()):
                found.add(name)
    return found


def misnamed_families(said: Said, tables: list[Table], tensors: Tensors) -> set[str]:
    """The families which config files call by the name of another: their own word begins the names of tensors, or they
    know more of these than that other.
    """
    return {table.family for table in tables if is_misnamed(table, tensors, said)}


def is_misnamed(table: Table, tensors: Tensors, said: Said) -> bool:
    """Whether a config calls the model of a table by the name of another family."""
    kind = said.get("model_type") if isinstance(said, dict) else None
    if kind not in vars(family_of(table.family)).get("misnamed", ()):
        return False
    named = named_families(said) - {table.family}
    others = [other for other in published() if other.format == table.format and other.family in named]
    most = max((known_names(other, tensors) for other in others), default=None)
    return is_rooted(table, tensors) or (most is not None and known_names(table, tensors) > most)


def refuse(files: Files, tensors: Tensors, tables: list[Table]) -> None:
    """Raises: UnknownFormatError for what looks like a family here, and is not."""
    objects = [name for name in tensors if " at " in name] if files.container == "tf1" else []
    if objects:
        raise UnknownFormatError(f"{files.path}: {OBJECTS.format(', '.join(objects[:6]))}")
    for pattern, reason in (*ALTERED, *(pair for table in tables for pair in table.foreign)):
        if any(re.search(pattern, name) for name in tensors):
            raise UnknownFormatError(f"{files.path}: {reason}")


def unknown(files: Files, tensors: Tensors, said: Said) -> str:
    """The message about tensors of no family."""
    reason = next((reason for pattern, reason in OTHERS if any(re.search(pattern, name) for name in tensors)), "")
    model_type = said.get("model_type") if isinstance(said, dict) else None
    reason = reason or (f"the config says model_type = {model_type!r}" if model_type else "")
    return (
        f"{files.path}: no family known here ({', '.join(sorted(families()))}) has tensors of these names: "
        f"{', '.join(list(tensors)[:6])} ...{reason and ' '}{reason}"
    )


def of_one_rank(files: Files, tensors: Tensors) -> tuple[Files, Tensors]:
    """What DeepSpeed (ZeRO 1 and 2) saved of a Hugging Face model: its one rank, by the model's own names."""
    if files.container != "megatron" or not all(name.startswith("0/") for name in tensors):
        return files, tensors
    plain = {name[2:]: replace(tensor, name=name[2:]) for name, tensor in tensors.items()}
    tables = [table for table in published() if table.format == "hf" or table.sharded]
    best = max(tables, key=lambda table: known_names(table, plain if table.format == "hf" else tensors))
    return (replace(files, container="torch"), plain) if best.format == "hf" else (files, tensors)
