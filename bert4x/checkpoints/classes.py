"""The class that a config file of transformers names, and the names of tensors that go with it: both come back."""

import re
from collections.abc import Collection
from dataclasses import replace

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.config_spelling import ROOTLESS, remembering
from bert4x.checkpoints.heads import HeldHead, room_for
from bert4x.checkpoints.spec import Table
from bert4x.checkpoints.tables import fitting, style_for, variables
from bert4x.checkpoints.wrappers import known
from bert4x.config import TransformerConfig

KIND = re.compile(r"(For[A-Z]\w+|(LMHead|DoubleHeads|Encoder|PreTrained)?Model)$")  # what ends the name of a class


def class_of(table: Table, config: TransformerConfig, paths: Collection[str], head: HeldHead | None) -> str | None:
    """The class that a layout names for a model of these variables, and the head of a task, if it names any."""
    room = room_for(head, table, config) if head is not None and head.tensors else None
    if room is not None:
        return room.architecture
    held = {of for path, (_, of) in variables(config).items() if path in paths}
    usual = style_for(table.format, config.model).labels.get("architectures", [None])[0]
    return next((name for heads, name in table.architectures if heads <= held), usual)


def with_classes(checkpoint: Checkpoint) -> TransformerConfig:
    """The config of a checkpoint in the layout of transformers, with what its file says of the class where we would
    write another, and whether its tensors have names without the model's own word, as those of `BertModel`. A file with
    tensors that are unknown here comes back as what is left of it.
    """
    config, table, said = checkpoint.config, checkpoint.table, list(checkpoint.architectures)
    if table.format != "hf" or checkpoint.report.unknown:
        return config
    ours = class_of(fitting("hf", config) or table, config, checkpoint.entries, checkpoint.head)
    same = ours and all(KIND.sub("", name) == KIND.sub("", ours) for name in said)
    if said and said != [ours] and same:
        config = remembering(config, "architectures", [ours], said)
    root = known(table).root
    if root and all(found == root + name for name, found in checkpoint.names.items()):
        config = config.replace(extra=config.extra | {ROOTLESS: True})
    return config


def without_root(table: Table, config: TransformerConfig, paths: Collection[str]) -> Table:
    """A table as it names the tensors of a model that came without its own word, if nothing else is among them."""
    root = known(table).root
    names = [entry.theirs for entry in table.entries(1) if all(path in paths for path in entry.ours)]
    if config.extra.get(ROOTLESS) is not True or not all(name.startswith(root) for name in names):
        return table
    return replace(table, rules=tuple(replace(rule, theirs=rule.theirs.removeprefix(root)) for rule in table.rules))
